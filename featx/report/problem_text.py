"""The problems of a data set in words: a table of their numbers, and how many images featx looked at."""

from featx.clean import KINDS, LOOK, REMOVE, Problems
from featx.system import text_table
from featx.text import Shown, printable

#: The columns of the numbers of problems; the suggestions of the last one are to move, relabel or rename.
COUNTS_HEADER = ("Problem", "Found", "Remove", "Look at", "Change")


def count_cells(problems: Problems, kind: str) -> tuple[str, ...]:
    """Return a row of the table: how many problems of a kind there are, and how many have each suggestion."""
    suggestions = [problem.suggestion for problem in problems.found if problem.kind == kind]
    n, n_remove, n_look = len(suggestions), suggestions.count(REMOVE), suggestions.count(LOOK)
    return KINDS[kind], *(f"{count:,}" if count else "–" for count in (n, n_remove, n_look, n - n_remove - n_look))


def counts_table(problems: Problems) -> Shown:
    """Return the table for a terminal."""
    rows = [count_cells(problems, kind) for kind in problems.kinds]
    return text_table(COUNTS_HEADER, [(f"  {name}", *counts) for name, *counts in rows])


def data_text(problems: Problems) -> str:
    """Return how many images were looked at, in a sentence."""
    dataset = problems.dataset
    splits = f", {dataset.n_train:,} for training and {dataset.n_test:,} for testing" if dataset.n_test else ""
    return f"{dataset.n_images:,} images in {printable(dataset.root)}{splits}."
