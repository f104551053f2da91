"""What went wrong between here and Kaggle, in one sentence without secrets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featx.errors import FeatxError, printable
from featx.fetching.kaggle_credentials import Credentials
from featx.fetching.kaggle_slug import KaggleSource

if TYPE_CHECKING:
    import requests

_HOW_TO_SIGN_IN = (
    "make an API token at https://www.kaggle.com/settings and put it into ~/.kaggle/access_token or the variable "
    "KAGGLE_API_TOKEN"
)
_MESSAGE_LENGTH = 300


class KaggleError(FeatxError):
    """Kaggle cannot be reached, or does not give what was asked for."""


def status_of(error: "requests.HTTPError") -> int:
    """Return the status of the answer that is an error, or 0 if it has none."""
    return error.response.status_code if error.response is not None else 0


def refusal(error: "requests.HTTPError", source: KaggleSource, who: Credentials) -> KaggleError:
    """Return what an answer with an error means for the user."""
    status, said = status_of(error), _said(error, who)
    if status == 401 and who.where:
        return KaggleError(
            f"Kaggle does not accept the credentials in {printable(who.where)}{said}: {_HOW_TO_SIGN_IN}."
        )
    if status == 401 or (status == 403 and not who.where):
        return sign_in_first(source, said)
    sentences = {
        403: f"Kaggle does not hand out {source}{said}: see {source.url}, and run the same command again.",
        404: f"Kaggle has no {source}{said}: look at {source.url}, and check how it is spelled.",
        429: f"Kaggle has been asked too often{said}: wait a while, then run the same command again.",
    }
    if source.is_competition:
        sentences[403] = (
            f"Kaggle does not hand out {source}{said}: accept the competition's rules at {source.url}/rules, then run "
            f"the same command again."
        )
    return KaggleError(
        sentences.get(status, f"Kaggle answers with error {status}{said}: run the same command again later.")
    )


def sign_in_first(source: KaggleSource, said: str = "") -> KaggleError:
    """Return the error for what is given to those only who say who they are."""
    return KaggleError(f"Kaggle gives {source} only to those who sign in{said}: {_HOW_TO_SIGN_IN}.")


def with_unusable(error: KaggleError, unusable: Sequence[Credentials]) -> KaggleError:
    """Return `error` with what was found of credentials and could not be used, which may be the reason for it."""
    mend = [f"mend {printable(found.where)}, which {found.trouble}" for found in unusable]
    return KaggleError(f"{str(error).removesuffix('.')}, or {', or '.join(mend)}.") if mend else error


def unreachable(error: Exception, n_kept: int) -> KaggleError:
    """Return the error for a connection that did not come about, or broke.

    What `requests` says is left out: there may be addresses with signatures in it, and proxies with passwords.
    """
    import requests

    reasons = {
        requests.exceptions.ProxyError: "the proxy refuses to help",
        requests.exceptions.SSLError: "its certificate is not trusted here",
        requests.exceptions.Timeout: "it does not answer in time",
    }
    if "timed out" in str(error):  # in the middle of an answer it is a mere ConnectionError
        error = requests.exceptions.Timeout()
    reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), "there is no connection")
    if n_kept:
        return KaggleError(
            f"The download broke off, because {reason.replace('there is no connection', 'the connection was lost')}; "
            f"what has come is kept: run the same command again to go on."
        )
    return KaggleError(
        f"Kaggle cannot be reached, because {reason}: check the network, then run the same command again."
    )


def incomprehensible() -> KaggleError:
    """Return the error for an answer that means nothing."""
    return KaggleError("Kaggle's answer cannot be understood: run the same command again later.")


def _said(error: "requests.HTTPError", who: Credentials) -> str:
    """Return what Kaggle itself said, if it did, in brackets. Without that, `requests` names the address."""
    if error.response is None or "json" not in error.response.headers.get("Content-Type", ""):
        return ""
    text = printable(who.censored(str(error)))[:_MESSAGE_LENGTH].rstrip(". ")
    return f" ({text})" if text else ""
