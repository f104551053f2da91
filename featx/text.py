"""Text that people see: in one line, without control characters, without secrets.

Nothing reaches a terminal, an error or a log but through here, whoever wrote it: names of files and classes, members of
recipes and runs, and what libraries say in their exceptions.
"""

import logging
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote, unquote_plus

#: The zero-width non-joiner and joiner.
JOINERS = "\u200c\u200d"
_EMOJI_STYLE = "\ufe0f"
_VIRAMA = 9  # its canonical combining class


class Shown(str):
    """Text for a terminal, which `shown_text` has made safe; the commands print nothing else."""

    __slots__ = ()


def shown_text(lines: Iterable[str]) -> Shown:
    r"""Return lines as text for a terminal. Each is one line, whatever is in it; those already `Shown` stay.

    >>> print(shown_text(["Run: \x1b[2Jruns", "Skipped a.jpg: new\nline"]))
    Run: \x1b[2Jruns
    Skipped a.jpg: new\nline
    """
    return Shown("\n".join(line if isinstance(line, Shown) else one_line(line) for line in lines))


class SafeLog(logging.Filter):
    """Has whatever is logged in one line, without control characters and secrets, whoever shows it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and keep it."""
        record.msg, record.args = one_line(record.getMessage()), ()
        return True


def one_line(text: object) -> str:
    r"""Return `text` for an error or a log: in one line, control characters as escapes, credentials as stars.

    >>> one_line("http://me:secret@host/photos is gone:\n\x1b[2J")
    'http://***@host/photos is gone:\\n\\x1b[2J'
    """
    return redacted(_escaped(_as_text(text)))


def printable(name: object) -> str:
    r"""Return `name` fit for a terminal, a table or a log: one line, control and undecodable characters escaped.

    For people only: a program reads the name itself, in a file or in JSON. Joiners stay where they change how a word
    or an emoji looks. Of an address, secrets are hidden.

    >>> printable("cat\n\x1b[31m.jpg")
    'cat\\n\\x1b[31m.jpg'
    >>> printable("ça va 🐈.jpg")
    'ça va 🐈.jpg'
    """
    text = _as_text(name)
    return _escaped(redacted_address(text) if _ADDRESS.match(text) else text)


def _as_text(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable():
        return str(text)
    return "".join(
        char.encode("unicode_escape", "backslashreplace").decode("ascii") if is_unsafe(text, at) else char
        for at, char in enumerate(text)
    )


def is_unsafe(text: str, at: int) -> bool:
    """Return whether the character `text[at]` controls a terminal, hides, or changes how others are read."""
    return unicodedata.category(text[at]) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and not _is_seen_joiner(text, at)


def _is_seen_joiner(text: str, at: int) -> bool:
    """Return whether `text[at]` is a zero-width joiner or non-joiner that shows; elsewhere it could only hide.

    As in the names of hosts (RFC 5892, A.1 and A.2): after a virama, and a non-joiner between Arabic letters that it
    keeps from joining. And a joiner between emoji.
    """
    if text[at] not in JOINERS or not 0 < at < len(text) - 1:
        return False
    before, after = text[at - 1], text[at + 1]
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if text[at] == "\u200c":
        return before in _joining_letters() and after.isalpha() and unicodedata.bidirectional(after) == "AL"
    is_emoji = unicodedata.east_asian_width(before) == "W" and unicodedata.category(before) in {"So", "Sk"}
    return (is_emoji or before == _EMOJI_STYLE) and unicodedata.category(after) == "So"


@cache
def _joining_letters() -> frozenset[str]:
    """Return the Arabic letters that join the next one: Unicode has a form of each for the beginning of a word."""
    forms = (unicodedata.decomposition(chr(point)).split() for point in range(0xFB50, 0xFF00))
    return frozenset(chr(int(form[1], 16)) for form in forms if form[:1] == ["<initial>"] and len(form) == 2)


# Secrets in addresses

#: What stands for a credential.
STARS = "***"

#: Protocols whose addresses are mere paths, with neither users nor queries; the latter, unless they name a host.
_IN_ARCHIVE, _HERE = {"zip", "tar"}, {"file", "local"}
#: Protocols whose addresses have no ports: what is behind a colon is a secret, even a number.
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "hf"}
#: Protocols in which a name before the @ is a container or a user, and no token.
_OPEN_USERS = {"abfs", "abfss", "az", "adl", "ftp", "sftp", "ssh", "hdfs", "webhdfs", "smb"}
#: Protocols in which # begins a fragment. In others it is a letter of a name.
_WEB = {"http", "https", "webdav", "webdavs"}

_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(:/+)(.*)", re.DOTALL)
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+:(?://+|/(?=\S*@))(?=[^\s/])")
_HOST = re.compile(r"[^:]*(?::(?:\d*|PORT))?|\[[^\]]*\](?::\d*)?|arn:[\w:.-]+")
#: A query that a library names without its address.
_QUERY = re.compile(r"""((?<![^\s='"(])/[^\s?'"]*\?)[^\s'"]*=[^\s'"]*""")
_PUNCTUATION = "'\")]}>.,;:"
#: Shorter secrets would be found within other words.
_MIN_SECRET = 4


@dataclass(frozen=True)
class _Link:
    """One link of a chain of addresses, such as `s3://bucket/x.zip` in `zip://photos::s3://bucket/x.zip`.

    Attributes:
        protocol: in small letters; empty of a path.
        user: what is before the @, with its secret; empty if there is none.
        shown: all of it but what is hidden.
        hidden: what must not be shown.
        is_open: whether what follows in the chain may still belong to a secret.
    """

    protocol: str
    user: str
    shown: str
    hidden: tuple[str, ...] = ()
    is_open: bool = False

    @classmethod
    def of(cls, text: str) -> "_Link":
        match = _LINK.fullmatch(text)
        protocol = match[1].lower() if match else ""
        if not match or protocol in _IN_ARCHIVE or (protocol in _HERE and match[2] != "://"):
            return cls("", "", text)
        start, rest = match[1] + match[2], match[3]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        user, at, host = authority.rpartition("@")
        is_secret = protocol in _BUCKETS and ":" in authority and not authority.startswith("arn:")
        if not _HOST.fullmatch(host) or is_secret:  # there may be a slash in it
            user, at, _ = rest.rpartition("@")
            if not at:
                return cls(protocol, "", start + STARS, (rest,), is_open=True)
        rest = rest.removeprefix(f"{user}@") if at else rest
        is_named = protocol in _OPEN_USERS and ":" not in user
        start += f"{user if is_named else STARS}@" if at else ""
        marks = "?#" if protocol in _WEB else "?"
        query = re.search(rf"(?<=[{marks}])(?!\*{{3}}(?:/|$)).+", rest, re.DOTALL)
        hidden = (user,) if user and not is_named else ()
        if query:
            return cls(protocol, user, start + rest[: query.start()] + STARS, (*hidden, query[0]), is_open=True)
        return cls(protocol, user, start + rest, hidden)


def _links(address: str) -> list[_Link]:
    """Return the links of a chain as fsspec splits it, up to the first of which nobody knows where it ends."""
    texts, links = address.split("::"), list[_Link]()
    for number, text in enumerate(texts):
        link = _Link.of(text)
        if links and links[-1].user and not link.protocol and "@" in text:  # the secret had two colons in it
            before, whole = links.pop(), texts[number - 1]
            start = "".join(re.split("(:/+)", whole, maxsplit=1)[:2])
            link = _Link(before.protocol, before.user, start + STARS, (whole[len(start) :], text), is_open=True)
        links.append(link)
        if links[-1].is_open:
            links.append(_Link("", "", "", tuple(texts[number + 1 :])))
            break
    return links


def redacted_address(address: str) -> str:
    """Return an address as it may be shown: of users, queries and fragments, nothing but what is no secret.

    >>> redacted_address("zip://cd::http://h/cd.zip?se=T08:00:00Z&sig=abc"), redacted_address("simplecache::s3://K:S@b")
    ('zip://cd::http://h/cd.zip?***', 'simplecache::s3://***@b')
    """
    links = _links(address)
    return "::".join(link.shown for link in (links[:-1] if len(links) > 1 and links[-2].is_open else links))


def redacted_word(word: str) -> str:
    """Return a word of a command without secrets: all of it that is behind the beginning of an address belongs to it.

    >>> redacted_word("--data=http://me:a secret@host/photos")
    '--data=http://***@host/photos'
    """
    match = _ADDRESS.search(word)
    return word[: match.start()] + redacted_address(word[match.start() :]) if match else word


def has_credentials(address: str, but_for: Iterable[str] = ()) -> bool:
    """Return whether a link of an address has a user's name and a secret, but for those with some protocols."""
    return any(":" in link.user for link in _links(address) if link.protocol not in set(but_for))


def without_secrets(text: str, address: str) -> str:
    """Return what a library says about `address` without the address's secrets, however they are quoted in it.

    >>> without_secrets("login failed for me with p@ss", "ftp://me:p%40ss@host/x")
    'login failed for me with ***'
    """
    hidden = [part for link in _links(address) for part in link.hidden]
    parts = [*hidden, *(part for whole in hidden for part in re.split("[&;:/]", whole))]
    quoted = {secret for part in parts for secret in (part, part.partition("=")[2], part.partition(":")[2])}
    meant = {form for secret in quoted for form in (unquote(secret), unquote_plus(secret))} - quoted
    text = text.replace(address, redacted_address(address))
    # What is meant comes first, for it is not in the address; and what looks like an address, which would be cut.
    first = meant | {secret for secret in quoted if _ADDRESS.search(secret)}
    return _QUERY.sub(rf"\1{STARS}", _starred(redacted(_starred(text, first)), quoted))


def _starred(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with stars for each secret that is not too short to be one, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, STARS) if len(secret) >= _MIN_SECRET else text
    return text


def redacted(text: str) -> str:
    """Return `text` with stars for all credentials in the addresses that it holds.

    >>> redacted("featx extract s3://AKIA:se/cret@bucket/photos --cache-dir http://host:8080/a@b")
    'featx extract s3://***@bucket/photos --cache-dir http://host:8080/a@b'
    >>> redacted("https://token@host/photos?sig=12&exp=3 is gone"), redacted("abfs://container@account/x")
    ('https://***@host/photos?*** is gone', 'abfs://container@account/x')
    """
    parts, done = [], 0
    while match := _ADDRESS.search(text, done) if ":/" in text else None:
        end = _end(text, match)
        parts += [text[done : match.start()], redacted_address(text[match.start() : end])]
        done = end
    return "".join([*parts, text[done:]])


def _end(text: str, match: re.Match[str]) -> int:
    """Return where an address in a text ends: at a quote like the one before it, or before the next blank.

    An address that ends in a secret may go on behind the blank.
    """
    quote = text[match.start() - 1] if match.start() else ""
    if quote and quote in "'\"" and (quoted := re.match(rf"(?:\\.|[^{quote}\\])*(?={quote})", text[match.start() :])):
        return match.start() + quoted.end()
    address = re.match(r"\S*", text[match.start() :])
    assert address
    token = address[0].rstrip(_PUNCTUATION)
    last = _Link.of(token.split("::")[-1])
    return len(text) if last.is_open and last.shown.endswith(f"/{STARS}") else match.start() + len(token)
