"""Requests to Kaggle: anonymous, or with the credentials that Kaggle's own tools have stored."""

import functools
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.storage import read_small

if TYPE_CHECKING:
    import requests

#: Bytes of what Kaggle says itself: errors, and where an archive lies.
_MOST_SAID_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16

#: Seconds to wait for a connection, and for each piece of an answer. `kagglesdk` itself would wait for ever.
TIMEOUT_S = (10.0, 60.0)


@contextmanager
def kaggle_session(auth: Any = None) -> Iterator[tuple[Any, "requests.Session"]]:
    """Yield a `KaggleClient` and the session that it uses; requests are anonymous without `auth`."""
    from kagglesdk.kaggle_client import KaggleClient
    from kagglesdk.kaggle_env import KaggleEnv

    # It looks for credentials by itself unless it has a token, if only an empty one.
    with KaggleClient(env=KaggleEnv.PROD, api_token="") as client:
        session: requests.Session = client.http_client()._session  # noqa: SLF001 - there is no other way to it
        session.auth = auth
        session.headers["Accept-Encoding"] = "identity"  # bytes are counted, and asked for by number
        session.send = functools.partial(session.send, timeout=TIMEOUT_S)
        for start in ("http://", "https://"):
            session.mount(start, _bounded_adapter())
        yield client, session


def _bounded_adapter() -> "requests.adapters.HTTPAdapter":
    """Return what connects `requests` with servers, and reads no more of what they say than makes sense.

    Only of an archive, `requests` leaves the reading to others.
    """
    from requests.adapters import HTTPAdapter

    class BoundedAdapter(HTTPAdapter):  # type: ignore[misc]  # `requests` has no types
        def send(self, request: Any, *arguments: Any, **options: Any) -> "requests.Response":
            response = super().send(request, *arguments, **options)
            is_archive = options.get("stream") and response.status_code in {200, 206}
            if not is_archive or "json" in response.headers.get("Content-Type", ""):
                response._content = read_at_most(response, _MOST_SAID_BYTES)  # noqa: SLF001 - as `requests` keeps it
            return response

    return BoundedAdapter()


def read_at_most(response: "requests.Response", n_bytes: int) -> bytes:
    """Return the body of an answer, or its first `n_bytes` if it is longer.

    Raises:
        requests.RequestException: the connection broke.
    """
    pieces, n_read = [], 0
    for piece in response.iter_content(_PIECE_BYTES):
        pieces.append(piece)
        n_read += len(piece)
        if n_read >= n_bytes:
            break
    return b"".join(pieces)[:n_bytes]


@dataclass(frozen=True)
class Credentials:
    """What to send to Kaggle with a request, and where it was found. Only the latter may ever be shown.

    Attributes:
        where: where they were found, for messages; empty for an anonymous request.
        auth: what `requests` takes: a pair of user and key, or something that adds a header.
        secrets: what must not be in any message.
        trouble: why nothing can be sent of what was found, as it follows "which"; empty if something can.
    """

    where: str = ""
    auth: Any = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    trouble: str = ""

    def censored(self, text: str) -> str:
        """Return `text` without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


ANONYMOUS = Credentials()

_EXAMPLE = '{"username": "NAME", "key": "KEY"}'


def find_credentials() -> Iterator[Credentials]:
    """Yield all credentials there are, in the order in which `kaggle` tries them: token, key, `kaggle auth login`.

    Credentials that cannot be used are among them, with their `trouble`.
    """
    for name in ("kagglesdk", "urllib3"):  # what they have to say would end up on standard error
        logging.getLogger(name).addHandler(logging.NullHandler())
    yield from _access_token()
    yield from _api_key()
    yield from _login()


def _bearer(where: str, token: str) -> Credentials:
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    return Credentials(where, KaggleHttpClient.BearerAuth(token), (token,))


def _access_token() -> Iterator[Credentials]:
    for where, source in _token_sources():
        read = _read(source) if isinstance(source, Path) else (source.strip(), "")
        if read is None:
            continue
        token, trouble = read
        if _is_header(token):
            yield _bearer(where, token)
            return
        yield Credentials(where, trouble=trouble or ("has characters that no token has" if token else "is empty"))


def _token_sources() -> Iterator[tuple[str, Path | str]]:
    """Yield what messages call each source of a token, and its file, or the token itself."""
    from kagglesdk.kaggle_env import is_in_kaggle_notebook

    if (path := os.environ.get("KAGGLE_API_V1_TOKEN")) and is_in_kaggle_notebook():
        yield "KAGGLE_API_V1_TOKEN", Path(path)
    if named := os.environ.get("KAGGLE_API_TOKEN"):
        yield "KAGGLE_API_TOKEN", Path(named) if os.path.exists(named) else named  # noqa: PTH110 - of any length
        return
    for name in ("access_token", "access_token.txt"):  # the latter is what an editor on Windows makes of it
        yield f"~/.kaggle/{name}", _home() / ".kaggle" / name


def _api_key() -> Iterator[Credentials]:
    variables = ("KAGGLE_USERNAME", "KAGGLE_KEY")
    typed = tuple(os.environ.get(name, "").strip() for name in variables)
    found = Credentials(" and ".join(variables), secrets=typed) if all(typed) else _key_file(typed)
    if found and not found.trouble:
        user, key = found.secrets
        where = " and ".join(variables) if any(typed) else found.where
        trouble = "" if _is_header(key) else "has a key with characters that no key has"
        yield Credentials(where, None if trouble else (user.encode(), key.encode()), (key,), trouble)
    elif found:
        yield found
    elif any(typed):
        there, lacking = variables if typed[0] else variables[::-1]
        yield Credentials(there, trouble=f"is set without {lacking}")


def _key_file(typed: tuple[str, ...]) -> Credentials | None:
    """Return user and key, as secrets, or why they cannot be used; None if there is no `kaggle.json`.

    `typed` overrides the file.
    """
    for path in _key_files():
        if (read := _read(path)) is None:
            continue
        text, trouble = read
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            no_json = f"is not JSON{at}; it must look like {_EXAMPLE}, with straight double quotes"
            return Credentials(str(path), trouble=trouble or no_json)
        found = [content.get(name) if isinstance(content, dict) else None for name in ("username", "key")]
        there = (value.strip() if isinstance(value, str) else "" for value in found)
        values = tuple(value or other for value, other in zip(typed, there, strict=True))
        lacking = [name for name, value in zip(("username", "key"), values, strict=True) if not value]
        trouble = f"has no text for {' and '.join(lacking)}; it must look like {_EXAMPLE}" if lacking else ""
        return Credentials(str(path), secrets=values, trouble=trouble)
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        return Credentials("KAGGLE_CONFIG_DIR", trouble="names a folder without kaggle.json")
    return None


def _key_files() -> list[Path]:
    """Return the files in which `kaggle` may keep user and key on Linux."""
    if named := os.environ.get("KAGGLE_CONFIG_DIR"):
        return [Path(named) / "kaggle.json"]
    home = _home()
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [home / ".kaggle" / "kaggle.json", settings / "kaggle" / "kaggle.json"]


def _read(path: Path) -> tuple[str, str] | None:
    """Return the text in a file without blanks around it, or why the file cannot be used; None if there is none.

    It is in UTF-8, or in UTF-16 or UTF-32, as `>` writes it in PowerShell.
    """
    try:
        content = read_small(path)
        return content.decode(json.detect_encoding(content)).strip(), ""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"
    except UnicodeError:
        return "", "is not text in UTF-8 or UTF-16"


def _login() -> Iterator[Credentials]:
    """Yield what `kaggle auth login` has left; a token that has run out is renewed, for which Kaggle is asked."""
    import requests
    from kagglesdk.kaggle_creds import KaggleCredentials

    try:
        with kaggle_session() as (client, _):
            login = KaggleCredentials.load(client)
            token = login.get_access_token() if login else None
    except (requests.ConnectionError, requests.Timeout):
        raise
    except (requests.RequestException, OSError, ValueError, TypeError, AttributeError, KeyError):
        token = None  # not to be read, or no longer valid
    if token:
        yield _bearer("~/.kaggle/credentials.json", token)
    elif os.path.lexists(_home() / ".kaggle" / "credentials.json"):
        yield Credentials(
            "~/.kaggle/credentials.json", trouble="has no valid login; run kaggle auth login to make a new one"
        )


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() is an error where there is none


def _is_header(text: str) -> bool:
    """Whether `text` may stand in a header: `requests` puts what may not into its error message."""
    return bool(text) and text.isascii() and text.isprintable()
