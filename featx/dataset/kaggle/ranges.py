"""An archive at Kaggle as a file; featx downloads only the parts that are read."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from featx.dataset.kaggle.credentials import ANONYMOUS, kaggle_session, read_at_most
from featx.dataset.kaggle.download import (
    KaggleError,
    KaggleSource,
    announced_bytes,
    refusal,
    request_archive,
    unreachable,
    validator,
)
from featx.text import printable

if TYPE_CHECKING:
    import requests

#: Bytes that are downloaded at a time: some dozens of photographs, which lie side by side.
_BLOCK_BYTES = 1 << 20


@contextmanager
def distant_archive(source: KaggleSource) -> Iterator[IO[bytes]]:
    """Yield the archive of a public data set as a file to read from.

    Raises:
        KaggleError: it cannot be downloaded, or only as a whole; also while it is read.
    """
    with _kaggle_errors(source), kaggle_session() as (client, session):
        with request_archive(client, source) as whole:
            n_bytes = announced_bytes(whole)
        if n_bytes is None or whole.headers.get("Accept-Ranges") != "bytes":
            raise KaggleError(f"Kaggle gives {source} only as a whole: fetch it with featx fetch {source}.")
        with io.BufferedReader(_Ranges(session, whole, n_bytes, source), _BLOCK_BYTES) as file:
            yield file


class _Ranges(io.RawIOBase):
    """The bytes that an answer announced, each asked for when it is read."""

    def __init__(
        self, session: "requests.Session", whole: "requests.Response", n_bytes: int, source: KaggleSource
    ) -> None:
        self._session, self._whole, self._n_bytes, self._source = session, whole, n_bytes, source
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; nothing is downloaded."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}[whence]
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # what BufferedReader gives
        """Download as many bytes as fit, or as there are."""
        end = min(self._at + len(buffer), self._n_bytes)
        if self._at >= end:
            return 0
        with _kaggle_errors(self._source):
            content = self._download(end)
        buffer[: len(content)] = content
        self._at = end
        return len(content)

    def _download(self, end: int) -> bytes:
        """Return the bytes from here to `end`."""
        # It is the redirected request again: that has no credentials in it if it went to another server.
        request = self._whole.request.copy()
        request.headers["Range"] = f"bytes={self._at}-{end - 1}"
        if name := validator(self._whole):  # should the archive have changed in between, all of it would come
            request.headers["If-Range"] = name
        settings = self._session.merge_environment_settings(request.url or "", {}, True, None, None)
        with self._session.send(request, **settings) as response:
            response.raise_for_status()
            expected = f"bytes {self._at}-{end - 1}/"
            if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(expected):
                raise KaggleError(f"Kaggle does not send parts of {self._source}: run the same command again.")
            content = read_at_most(response, end - self._at + 1)  # one more than there should be
        if len(content) != end - self._at:
            raise KaggleError(
                f"Kaggle sent fewer or more bytes of {self._source} than it was asked for: run the same command again."
            )
        return content


@contextmanager
def _kaggle_errors(source: KaggleSource) -> Iterator[None]:
    """Raise KaggleError for any error of the network or of Kaggle."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        raise refusal(error, source, ANONYMOUS) from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise unreachable(error, 0) from None
    except requests.RequestException:
        raise KaggleError("Could not understand Kaggle's answer: run the same command again later.") from None
    except OSError as error:
        if error.errno is None:  # not the disk: `requests` does not find its certificates
            raise KaggleError(f"Could not connect to Kaggle: {printable(str(error))}.") from None
        raise
