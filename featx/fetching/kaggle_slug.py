"""What can be fetched from Kaggle, and how it is named."""

import re
from dataclasses import dataclass

from featx.errors import FeatxError, printable

_SLUG = re.compile(
    r"(?P<owner>[A-Za-z0-9_-]+)/(?P<dataset>[A-Za-z0-9_-]+)(?:/versions/(?P<version>[1-9]\d{0,8}))?"
    r"|competition:(?P<competition>[A-Za-z0-9_-]+)",
    re.ASCII,
)


@dataclass(frozen=True)
class KaggleSource:
    """A data set or a competition at Kaggle.

    Attributes:
        name: the last part of its address.
        owner: whose data set it is; empty for a competition.
        version: of a data set, or None for the newest.
    """

    name: str
    owner: str = ""
    version: int | None = None

    @property
    def is_competition(self) -> bool:
        """Whether it is a competition, which has rules to accept."""
        return not self.owner

    @property
    def url(self) -> str:
        """Its page."""
        if self.is_competition:
            return f"https://www.kaggle.com/competitions/{self.name}"
        return f"https://www.kaggle.com/datasets/{self.owner}/{self.name}"

    @property
    def file_name(self) -> str:
        """A name for a file that is its own.

        >>> KaggleSource("cat-and-dog", "tongpython", 3).file_name
        'tongpython+cat-and-dog+3'
        """
        return "+".join(str(part) for part in (self.owner or "competition", self.name, self.version) if part)

    def __str__(self) -> str:
        if self.is_competition:
            return f"competition:{self.name}"
        return f"{self.owner}/{self.name}" + (f"/versions/{self.version}" if self.version else "")


def parse_slug(slug: str) -> KaggleSource:
    """Return what a slug names.

    >>> parse_slug("tongpython/cat-and-dog/versions/1").version
    1

    Raises:
        FeatxError: it is no slug.
    """
    match = _SLUG.fullmatch(slug)
    if not match:
        raise FeatxError(
            f"A slug is sample, OWNER/DATASET, OWNER/DATASET/versions/NUMBER or competition:NAME. "
            f"Received: {printable(slug)}"
        )
    if name := match["competition"]:
        return KaggleSource(name)
    return KaggleSource(match["dataset"], match["owner"], int(match["version"]) if match["version"] else None)
