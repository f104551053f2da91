"""Who asks Kaggle: nobody in particular, or the owner of credentials that lie where Kaggle's own tools keep them."""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featx.fetching.kaggle_session import kaggle_session


@dataclass(frozen=True)
class Credentials:
    """What to send to Kaggle with a request, and where it was found. Only the latter may ever be shown.

    Attributes:
        where: where they were found, for messages; empty for an anonymous request.
        auth: what `requests` takes: a pair of user and key, or something that adds a header.
        secrets: what must not be in any message.
    """

    where: str = ""
    auth: Any = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def censored(self, text: str) -> str:
        """Return `text` without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


ANONYMOUS = Credentials()


def find_credentials() -> Iterator[Credentials]:
    """Yield all credentials there are, in the order in which `kaggle` tries them: token, key, `kaggle auth login`."""
    for name in ("kagglesdk", "urllib3"):  # what they have to say would end up on standard error
        logging.getLogger(name).addHandler(logging.NullHandler())
    yield from _access_token()
    yield from _api_key()
    yield from _login()


def _bearer(where: str, token: str) -> Credentials:
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    return Credentials(where, KaggleHttpClient.BearerAuth(token), (token,))


def _access_token() -> Iterator[Credentials]:
    from kagglesdk.kaggle_env import get_access_token_from_env

    try:
        token, where = get_access_token_from_env()
    except (OSError, ValueError):  # a long token is a file name that no system allows, or a file cannot be read
        token, where = os.environ.get("KAGGLE_API_TOKEN", ""), "KAGGLE_API_TOKEN"
    if token and _is_header(token):
        yield _bearer("~/.kaggle/access_token" if where == "access_token" else where, token)


def _api_key() -> Iterator[Credentials]:
    path = _config_dir() / "kaggle.json"
    user, key, where = None, None, str(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        user, key = content.get("username"), content.get("key")
    except (OSError, ValueError, AttributeError):
        pass  # no such file, or it keeps something else
    if "KAGGLE_USERNAME" in os.environ or "KAGGLE_KEY" in os.environ:
        user, key = os.environ.get("KAGGLE_USERNAME", user), os.environ.get("KAGGLE_KEY", key)
        where = "KAGGLE_USERNAME and KAGGLE_KEY"
    if isinstance(user, str) and isinstance(key, str) and user and _is_header(key):
        yield Credentials(where, (user.encode(), key.encode()), (key,))


def _config_dir() -> Path:
    """Return the folder of `kaggle`'s settings, as it finds it on Linux."""
    if named := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(named)
    home = _home()
    if (home / ".kaggle").exists():
        return home / ".kaggle"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"


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
        return  # not to be read, or no longer valid: as if there were none
    if token:
        yield _bearer("~/.kaggle/credentials.json", token)


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() is an error where there is none


def _is_header(text: str) -> bool:
    """Whether `text` may stand in a header: `requests` puts what may not into its error message."""
    return bool(text) and text.isascii() and text.isprintable()
