"""A connection to Kaggle through `kagglesdk`, the client that the `kaggle` package is made of.

`kaggle` itself is never imported: that alone signs in, prints, makes folders, sets up logging, and closes standard
input if it cannot sign in.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

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
        yield client, session
