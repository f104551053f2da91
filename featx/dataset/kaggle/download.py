"""Downloads Kaggle's archives: one zip file for each data set or competition, in several attempts if necessary."""

import json
import logging
import re
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.dataset.kaggle.credentials import ANONYMOUS, Credentials, find_credentials, kaggle_session
from featx.errors import FeatxError
from featx.storage import check_reserve, check_space, file_digest, read_small, write_text
from featx.system import did_you_mean, progress_bar
from featx.text import printable

if TYPE_CHECKING:
    import requests

log = logging.getLogger("featx")

_SLUG = re.compile(
    r"(?P<owner>[A-Za-z0-9_-]+)/(?P<dataset>[A-Za-z0-9_-]+)(?:/versions/(?P<version>[1-9]\d{0,8}))?"
    r"|competition:(?P<competition>[A-Za-z0-9_-]+)",
    re.ASCII,
)
_HOW_TO_SIGN_IN = (
    "make an API token at https://www.kaggle.com/settings and put it into ~/.kaggle/access_token or the variable "
    "KAGGLE_API_TOKEN"
)
_MESSAGE_LENGTH = 300

#: Seconds before each further try after a broken connection, begun anew whenever something has come.
PAUSES_S = (1.0, 5.0, 20.0)

_CHUNK_BYTES = 1 << 14  # a broken connection costs at most one of these

#: So many of these come between two looks at how much room there is on the disk.
_CHUNKS_PER_LOOK = 256

#: What to do about a disk that is too small.
MAKE_ROOM = "make room, or name a folder on another disk with --to"


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
            f"Received: {printable(slug)}.{did_you_mean(slug, ['sample'])}"
        )
    if name := match["competition"]:
        return KaggleSource(name)
    return KaggleSource(match["dataset"], match["owner"], int(match["version"]) if match["version"] else None)


class KaggleError(FeatxError):
    """Kaggle cannot be reached, or does not give what was asked for."""


def refusal(error: "requests.HTTPError", source: KaggleSource, who: Credentials) -> KaggleError:
    """Return what an answer with an error means for the user."""
    status, said = error.response.status_code, _said(error, who)
    if status == 401 and who.where:
        return KaggleError(
            f"Kaggle does not accept the credentials in {printable(who.where)}{said}: {_HOW_TO_SIGN_IN}."
        )
    if status == 401 or (status == 403 and not who.where):
        return _sign_in_first(source, said)
    first = f"see {source.url}, and"
    if source.is_competition:
        first = f"accept the competition's rules at {source.url}/rules, then"
    sentences = {
        403: f"Kaggle refuses {source}{said}: {first} run the same command again.",
        404: f"Kaggle has no {source}{said}: see {source.url}, and check the spelling.",
        429: f"Kaggle received too many requests{said}: wait a while, then run the same command again.",
    }
    return KaggleError(
        sentences.get(status, f"Kaggle answers with error {status}{said}: run the same command again later.")
    )


def _sign_in_first(source: KaggleSource, said: str = "") -> KaggleError:
    """Return the error for what is given to those only who say who they are."""
    return KaggleError(f"You must sign in to Kaggle for {source}{said}: {_HOW_TO_SIGN_IN}.")


def unreachable(error: Exception, n_kept: int) -> KaggleError:
    """Return the error for a connection that did not come about, or broke.

    What `requests` says is left out: there may be addresses with signatures in it, and proxies with passwords.
    """
    import requests

    reasons = {
        requests.exceptions.ProxyError: "the proxy refuses the connection",
        requests.exceptions.SSLError: "this machine does not trust its certificate",
        requests.exceptions.Timeout: "it does not answer in time",
    }
    if "timed out" in str(error):  # in the middle of an answer it is a mere ConnectionError
        error = requests.exceptions.Timeout()
    reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), "there is no connection")
    if n_kept:
        return KaggleError(
            f"The download stopped, because {reason.replace('there is no connection', 'the connection was lost')}; "
            f"what was downloaded is kept. Run it again to resume."
        )
    return KaggleError(
        f"Kaggle cannot be reached, because {reason}: check the network, then run the same command again."
    )


def _said(error: "requests.HTTPError", who: Credentials) -> str:
    """Return what Kaggle itself said, if it did, in brackets. Without that, `requests` names the address."""
    if "json" not in error.response.headers.get("Content-Type", ""):
        return ""
    text = printable(who.censored(str(error)))[:_MESSAGE_LENGTH].rstrip(". ")
    return f" ({text})" if text else ""


@dataclass(frozen=True)
class _Partial:
    """The part of an archive that was downloaded. The server's name for exactly these bytes is in a file beside it."""

    path: Path

    @property
    def n_bytes(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def _note_path(self) -> Path:
        return self.path.with_suffix(".json")

    def belongs_to(self, response: "requests.Response") -> bool:
        """Whether the bytes are the beginning of what `response` is about to bring."""
        try:
            noted = json.loads(read_small(self._note_path))
        except (OSError, ValueError):
            return False
        return noted is not None and noted == validator(response)

    def begin(self, response: "requests.Response") -> None:
        """Forget what has come, and note what is coming."""
        self.path.unlink(missing_ok=True)
        write_text(self._note_path, json.dumps(validator(response)))

    def check_room(self) -> None:
        """Check that the disk has room for more of an archive of unknown size; if not, remove it: it is of no use.

        Raises:
            FeatxError: it has not.
        """
        try:
            check_reserve(self.path.parent, "The archive, whose size Kaggle does not say,", MAKE_ROOM)
        except FeatxError:
            self.path.unlink()
            raise

    def finish(self, archive: Path) -> None:
        """Give the whole archive its name, with a record of what is in it beside it."""
        write_text(_record_path(archive), json.dumps(_record(self.path)))
        self.path.replace(archive)
        self._note_path.unlink()


def _record_path(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.json")


def _record(path: Path) -> dict[str, Any]:
    return {"n_bytes": path.stat().st_size, "sha256": file_digest(path).hex()}


def _is_downloaded(archive: Path) -> bool:
    """Return whether `download` has written this very file. No other file counts."""
    try:
        return archive.is_file() and bool(json.loads(read_small(_record_path(archive))) == _record(archive))
    except (OSError, ValueError):
        return False


def has_downloads(folder: Path) -> bool:
    """Return whether there is an archive in `folder`, or a part of one."""
    return any(path.suffix in {".zip", ".part"} for path in folder.iterdir())


def download(source: KaggleSource, folder: Path, *, show: bool = False) -> Path:
    """Download the archive of `source` to a folder of this user's alone, and return its path; resume a download.

    It asks for data sets anonymously first, and sends credentials only if Kaggle refuses.

    Raises:
        KaggleError: it cannot be downloaded; the part that was downloaded stays in `folder` for the next call.
        FeatxError: there is not enough room on the disk.
        OSError: it cannot be written.
    """
    import requests

    archive = folder / f"{source.file_name}.zip"
    if _is_downloaded(archive):
        return archive
    partial = _Partial(folder / f"{source.file_name}.part")
    pauses: list[float] = []
    while True:
        n_before = partial.n_bytes
        try:
            _try(source, partial, show=show)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if partial.n_bytes > n_before:
                pauses = list(PAUSES_S)
            if not pauses:
                raise unreachable(error, partial.n_bytes) from None
            time.sleep(pauses.pop(0))
        except (requests.RequestException, ValueError, TypeError, KeyError, AttributeError):
            raise KaggleError("Could not understand Kaggle's answer: run the same command again later.") from None
        except OSError as error:
            if error.errno is None:  # not the disk: `requests` does not find its certificates
                raise KaggleError(f"Could not connect to Kaggle: {printable(str(error))}.") from None
            raise
        else:
            partial.finish(archive)
            return archive


def _try(source: KaggleSource, partial: _Partial, *, show: bool) -> None:
    """Ask for the archive, and write what is missing of it to `partial`."""
    import requests

    refused: KaggleError | None = None
    unusable: list[Credentials] = []
    # Those first who give away least.
    for who in chain([] if source.is_competition else [ANONYMOUS], find_credentials()):
        if who.trouble:
            unusable.append(who)
            continue
        log.debug(
            "Asking Kaggle for %s, %s.", source, f"with the credentials in {who.where}" if who.where else "anonymously"
        )
        with kaggle_session(who.auth) as (client, session):
            try:
                _receive(session, request_archive(client, source), partial, show=show)
            except requests.HTTPError as error:
                refused = refusal(error, source, who)
                if error.response.status_code not in ({401} if who.where else {401, 403, 404}):
                    break
            else:
                return
    else:
        refused = refused or _sign_in_first(source)
        if unusable:  # which may be the reason for it
            mend = ", or ".join(f"fix {printable(found.where)}, which {found.trouble}" for found in unusable)
            refused = KaggleError(f"{str(refused).removesuffix('.')}, or {mend}.")
    raise refused


def request_archive(client: Any, source: KaggleSource) -> Any:
    """Return the `requests.Response` with the archive; Kaggle redirects the request to the place where it is."""
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    if source.is_competition:
        files = ApiDownloadDataFilesRequest()
        files.competition_name = source.name
        return client.competitions.competition_api_client.download_data_files(files)
    dataset = ApiDownloadDatasetRequest()
    dataset.owner_slug = source.owner
    dataset.dataset_slug = source.name
    dataset.dataset_version_number = source.version
    return client.datasets.dataset_api_client.download_dataset(dataset)


def _receive(session: "requests.Session", whole: "requests.Response", partial: _Partial, *, show: bool) -> None:
    """Write what is missing of the archive to `partial`."""
    import requests

    there = partial.n_bytes if partial.belongs_to(whole) else 0
    if there and there == announced_bytes(whole):
        whole.close()
        return
    with _rest(session, whole, there) as response:
        if response.status_code != 206:
            there = 0
            partial.begin(response)
        coming = announced_bytes(response)
        log.debug("Downloading from byte %s on.", there)
        if coming is not None:  # what is unpacked takes as much again, or more
            check_space(partial.path.parent, coming + there + coming, "The archive, with its content,", MAKE_ROOM)
        total = None if coming is None else there + coming
        bar = progress_bar(total, "downloading", "B", show=show, n_done=there)
        with partial.path.open("ab") as file, bar:
            for number, piece in enumerate(response.iter_content(_CHUNK_BYTES)):
                if total is None and number % _CHUNKS_PER_LOOK == 0:
                    partial.check_room()
                file.write(piece)
                bar.update(len(piece))
    if total is not None and partial.n_bytes != total:  # which urllib3 before 2.0 does not notice
        raise requests.ConnectionError


def _rest(session: "requests.Session", whole: "requests.Response", there: int) -> "requests.Response":
    """Return an answer that brings all but the first `there` bytes of `whole`: with status 206, or else all of it."""
    total = announced_bytes(whole)
    if not there or total is None or there > total or whole.headers.get("Accept-Ranges") != "bytes":
        return whole
    whole.close()
    # It is the redirected request again: that has no credentials in it if it went to another server.
    request = whole.request.copy()
    # Should the archive have changed in between, all of it comes.
    request.headers.update({"Range": f"bytes={there}-", "If-Range": str(validator(whole))})
    settings = session.merge_environment_settings(request.url or "", {}, True, None, None)
    response = session.send(request, **settings)
    response.raise_for_status()
    if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
        response.close()
        return session.send(whole.request, **settings)
    return response


def validator(response: "requests.Response") -> str | None:
    """Return the server's name for the very bytes that it sends, if it has one that can be relied upon."""
    if "Content-Encoding" in response.headers:
        return None
    name: str | None = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return name


def announced_bytes(response: "requests.Response") -> int | None:
    """Return how many bytes the body has, if the server says so."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
