"""Several labels for one image: the text of a cell, or a list, becomes a set of labels."""

from collections.abc import Sequence

from featx.dataset.label_table import Row
from featx.errors import DatasetError
from featx.system import shown
from featx.text import printable

#: What stands between labels in most tables that have several in a cell.
_USUAL_SEPARATORS = ("|", ";")


def with_sets(rows: list[Row], separator: str | None) -> list[Row]:
    """Return the rows with sets of labels, if images can have several; otherwise the rows as they are.

    Images can have several labels if there is a separator, or if a label is a list. A set is a sorted tuple without
    repetitions, empty if the row has no label.

    Raises:
        DatasetError: there is nothing between two separators, or a list contains an empty label.
    """
    if separator is None and not any(isinstance(row.label, tuple) for row in rows):
        return rows
    return [row._replace(label=_set_of(row, separator)) for row in rows]


def _set_of(row: Row, separator: str | None) -> tuple[str, ...]:
    given = row.label
    if not given:
        return ()
    if isinstance(given, tuple):
        labels = given
    else:
        labels = (given,) if separator is None else tuple(part.strip() for part in given.split(separator))
    if "" in labels:
        received = shown(list(given)) if isinstance(given, tuple) else printable(given)
        raise DatasetError(
            f"{row.where[:1].upper()}{row.where[1:]} has an empty label among several for {printable(row.path)}. "
            f"Received: {received}"
        )
    return tuple(sorted(set(labels)))


def separator_warning(rows: Sequence[Row], name: str, separator: str | None) -> str:
    """Return a warning of a separator that is missing, or that no label contains; empty without a reason for one.

    Args:
        rows: as they were read.
        name: what the labels are called, such as `labels.csv`.
        separator: the one that was given.
    """
    texts = [row.label for row in rows if isinstance(row.label, str) and row.label]
    if len(texts) < sum(bool(row.label) for row in rows):
        return ""
    if separator is not None:
        if any(separator in text for text in texts):
            return ""
        return (
            f"No label in {name} contains the separator {printable(separator)}, so each image has at most one. If "
            f"these labels exclude each other, leave out --label-separator."
        )
    for usual in _USUAL_SEPARATORS:
        having = [text for text in texts if usual in text]
        if 2 * len(having) > len(texts):
            return (
                f"Most labels in {name} contain {usual}, such as {printable(having[0])}. If these are several labels "
                f"of one image, add --label-separator '{usual}'."
            )
    return ""
