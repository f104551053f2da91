"""Addresses without the credentials that may be in them: these never reach a message, a file or a printed command."""

import re

#: What stands for a credential.
STARS = "***"

# A secret may hold slashes; what follows a host and a colon may be a port.
_USER_AND_SECRET = re.compile(r"(?<=://)[^\s/:@]*:(?!\d+(?:[/?#\s]|$))[^\s@]*@")
_TOKEN = re.compile(r"(?<=\bhttp://)[^\s/@]+@|(?<=\bhttps://)[^\s/@]+@")
_QUERY = re.compile(r"(://[^\s?]*\?)[^\s:'\"]+")


def has_credentials(address: str) -> bool:
    """Return whether there are a user's name and a secret in `address`."""
    return bool(_USER_AND_SECRET.search(address))


def redacted(text: str) -> str:
    """Return `text` with stars for all credentials in the addresses that it holds.

    >>> redacted("featx extract s3://AKIA:se/cret@bucket/photos --cache-dir http://host:8080/a@b")
    'featx extract s3://***@bucket/photos --cache-dir http://host:8080/a@b'
    >>> redacted("https://token@host/photos?sig=12&exp=3 is gone"), redacted("abfs://container@account/x")
    ('https://***@host/photos?*** is gone', 'abfs://container@account/x')
    """
    text = _USER_AND_SECRET.sub(f"{STARS}@", text)
    text = _TOKEN.sub(f"{STARS}@", text)
    return _QUERY.sub(rf"\1{STARS}", text)
