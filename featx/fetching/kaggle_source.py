"""Kaggle's archives: one zip file for each data set or competition, brought to the disk, in several goes if need be."""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import printable
from featx.fetching.byte_bar import byte_bar
from featx.fetching.disk_space import check_space
from featx.fetching.kaggle_credentials import ANONYMOUS, Credentials, find_credentials
from featx.fetching.kaggle_errors import (
    KaggleError,
    incomprehensible,
    refusal,
    sign_in_first,
    status_of,
    unreachable,
    with_unusable,
)
from featx.fetching.kaggle_session import kaggle_session
from featx.fetching.kaggle_slug import KaggleSource
from featx.files import write_text

if TYPE_CHECKING:
    import requests

log = logging.getLogger("featx")

#: Seconds before each further try after a broken connection, begun anew whenever something has come.
PAUSES_S = (1.0, 5.0, 20.0)

_CHUNK_BYTES = 1 << 14  # a broken connection costs at most one of these


@dataclass(frozen=True)
class _Partial:
    """What has come of an archive, and of which: the server's name for these very bytes lies beside it."""

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
            noted = json.loads(self._note_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return noted is not None and noted == _validator(response)

    def begin(self, response: "requests.Response") -> None:
        """Forget what has come, and note what is coming."""
        self.path.unlink(missing_ok=True)
        write_text(self._note_path, json.dumps(_validator(response)))

    def finish(self, archive: Path) -> None:
        """Give the whole archive its name."""
        self.path.replace(archive)
        self._note_path.unlink()


def download(source: KaggleSource, archive: Path, *, show: bool = False) -> None:
    """Bring the archive of `source` to the file `archive`, going on where an earlier call was cut off.

    Data sets are asked for anonymously first; credentials are sent only if that does not do.

    Raises:
        KaggleError: it cannot be had; what has come of it is kept beside `archive` for the next call.
        FeatxError: there is not enough room on the disk.
        OSError: it cannot be written.
    """
    import requests

    partial = _Partial(archive.with_suffix(".part"))
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
            raise incomprehensible() from None
        except OSError as error:
            if error.errno is None:  # not the disk: `requests` does not find its certificates
                raise KaggleError(f"Kaggle cannot be asked: {printable(str(error))}.") from None
            raise
        else:
            partial.finish(archive)
            return


def _try(source: KaggleSource, partial: _Partial, *, show: bool) -> None:
    """Ask for the archive, and write what is missing of it to `partial`."""
    import requests

    refused: KaggleError | None = None
    unusable: list[Credentials] = []
    for who in _askers(source):
        if who.trouble:
            unusable.append(who)
            continue
        log.debug(
            "Asking Kaggle for %s, %s.", source, f"with the credentials in {who.where}" if who.where else "anonymously"
        )
        with kaggle_session(who.auth) as (client, session):
            try:
                _receive(session, _request(client, source), partial, show=show)
            except requests.HTTPError as error:
                refused = refusal(error, source, who)
                if status_of(error) not in ({401} if who.where else {401, 403, 404}):
                    break
            else:
                return
    else:
        refused = with_unusable(refused or sign_in_first(source), unusable)
    raise refused


def _askers(source: KaggleSource) -> Iterator[Credentials]:
    """Yield who may ask, those first who give away least."""
    if not source.is_competition:
        yield ANONYMOUS
    yield from find_credentials()


def _request(client: Any, source: KaggleSource) -> Any:
    """Return the `requests.Response` that brings the archive: Kaggle says where it lies, and from there it comes."""
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
    if there and there == _length(whole):
        whole.close()
        return
    with _rest(session, whole, there) as response:
        if response.status_code != 206:
            there = 0
            partial.begin(response)
        coming = _length(response)
        log.debug("Downloading from byte %s on.", there)
        if coming is not None:  # what is unpacked takes as much again, or more
            check_space(partial.path.parent, coming + there + coming, "The archive, with what is in it,")
        total = None if coming is None else there + coming
        with partial.path.open("ab") as file, byte_bar(total, "downloading", show=show, n_done=there) as bar:
            for piece in response.iter_content(_CHUNK_BYTES):
                file.write(piece)
                bar.update(len(piece))
    if total is not None and partial.n_bytes != total:  # which urllib3 before 2.0 does not notice
        raise requests.ConnectionError


def _rest(session: "requests.Session", whole: "requests.Response", there: int) -> "requests.Response":
    """Return an answer that brings all but the first `there` bytes of `whole`: with status 206, or else all of it."""
    total = _length(whole)
    if not there or total is None or there > total or whole.headers.get("Accept-Ranges") != "bytes":
        return whole
    whole.close()
    # It is the redirected request again: that has no credentials in it if it went to another server.
    request = whole.request.copy()
    # Should the archive have changed in between, all of it comes.
    request.headers.update({"Range": f"bytes={there}-", "If-Range": str(_validator(whole))})
    settings = session.merge_environment_settings(request.url or "", {}, True, None, None)
    response = session.send(request, **settings)
    response.raise_for_status()
    if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
        response.close()
        return session.send(whole.request, **settings)
    return response


def _validator(response: "requests.Response") -> str | None:
    """Return the server's name for the very bytes that it sends, if it has one that can be relied upon."""
    if "Content-Encoding" in response.headers:
        return None
    name: str | None = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return name


def _length(response: "requests.Response") -> int | None:
    """Return how many bytes the body has, if the server says so."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
