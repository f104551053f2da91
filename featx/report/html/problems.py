"""The page of `featx clean`: the number of problems of each kind, and pictures of the first ones."""

from pathlib import Path

from markupsafe import Markup

from featx.clean import KINDS, Problems
from featx.report.html.page import LARGE, Thumbnails, asset, new_environment
from featx.report.problem_text import COUNTS_HEADER, count_cells, data_text
from featx.text import printable

#: Problems of a kind that the page shows: one of two pictures takes more room.
N_SHOWN = {"copy": 20, "near-copy": 40, "label": 80, "unreadable": 100}
N_SHOWN_ODD = 24

#: What the page says about each kind.
MEANINGS = {
    "unreadable": "featx skips these files. Look at those that you can convert, unpack, or read with another package.",
    "copy": "Files with the same bytes. One of each set stays: the one in the test split, if there is one. If copies "
    "are in different classes, you decide.",
    "near-copy": "Images that show the same photograph: re-encoded, resized, brighter, mirrored, or cropped by up to a "
    "tenth. Of near-copies in one class and split, the best stays, usually the largest. You decide about all others.",
    "label": "A model that was trained without the image gives the probabilities. Some of these labels are wrong; "
    "other images only look like another class. The most doubtful come first.",
    "blank": "There is little to see in these images.",
    "tiny": "Images with a side below 32 pixels, and less than half as long as in the median image.",
    "huge": "Images with more than 20 million pixels, and more than ten times as many as the median image.",
    "shape": "Images with one side more than four times the other, and more than twice the ratio of the median "
    "image. Stretching to a square distorts them.",
    "suffix": "The suffix belongs to another format. featx reads these files; other programs may not.",
}


def problems_html(problems: Problems, report_dir: Path) -> str:
    """Return a page about the problems of a data set.

    Args:
        problems: what was found.
        report_dir: the folder of the page; links to images on this machine are relative to it.
    """
    thumbnails = Thumbnails(problems.dataset.root, report_dir)
    sections = []
    for kind in problems.kinds:
        of_kind = [problem for problem in problems.found if problem.kind == kind]
        if of_kind:
            name = KINDS[kind][:1].upper() + KINDS[kind][1:]
            sections.append((kind, name, MEANINGS[kind], of_kind[: N_SHOWN.get(kind, N_SHOWN_ODD)]))
    n, data = len(problems), printable(problems.dataset.name)
    title = f"{n:,} problem{'' if n == 1 else 's'} found in {data}" if n else f"No problem found in {data}"
    return (
        new_environment()
        .from_string(asset("problems.html.j2"))
        .render(
            problems=problems,
            title=title,
            facts=data_text(problems),
            header=COUNTS_HEADER,
            counts=[(kind, count_cells(problems, kind)) for kind in problems.kinds],
            sections=sections,
            thumbnail=thumbnails.uri,
            link=thumbnails.link,
            side=LARGE,
            style=Markup(asset("page.css")),  # noqa: S704 - a file of featx's own
        )
    )
