"""No text acts on a terminal, no secret is shown, and a command that is advised is what its reader runs."""

import logging
import re
import shlex
import subprocess
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from featx.errors import FeatxError, ImageError, StoreError
from featx.storage.file_system import FileSystem, StorageError
from featx.storage.paths import as_storage_path
from featx.storage.remote_path import RemotePath
from featx.system.commands import as_argument, shell_line
from featx.system.tables import escape_markdown, text_table
from featx.text import Shown, has_credentials, one_line, redacted, redacted_address, shown_text, without_secrets

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
#: Any text, and bytes that are none, as names of files and variables of the environment may be.
ANY = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
    st.text("\x1b]07;\\\a\r\n\t\x9b\u202e\u2028'\"$`;|&<>(){}*?!#~-= abc", max_size=30),
)


def unsafe(text: str) -> set[str]:
    """Characters that act on a terminal, but joiners, which `printable` keeps where a word needs them."""
    return {char for char in text if unicodedata.category(char) in UNSAFE} - {"\u200c", "\u200d"}


# Text


@settings(deadline=None)
@given(ANY, ANY)
def test_whatever_is_shown_is_one_line_without_control_characters(text, name):
    lines = [
        one_line(text),
        str(FeatxError(f"{text}: {name}")),
        str(ImageError(text)),
        str(StorageError(text, name)),
        StorageError(text, name).strerror or "",
        escape_markdown(text),
        *shown_text([text, name]).split("\n"),
        *text_table((name, "n"), [(text, name)]).split("\n"),
    ]
    assert len(lines) == 11
    assert not [line for line in lines if unsafe(line)]


@settings(deadline=None)
@given(ANY)
def test_what_is_safe_stays_as_it_is(text):
    safe = one_line(text)
    assert one_line(safe) == safe
    assert shown_text([Shown("two\nlines"), safe]) == f"two\nlines\n{safe}"


def test_a_log_that_others_show_is_safe_too(caplog):
    logging.getLogger("featx").warning("%s: %s of 100 %%", "a\n\x1b]0;x\x07", "http://me:secret@host/x")
    assert caplog.messages == [r"a\n\x1b]0;x\x07: http://***@host/x of 100 %"]


# Secrets in addresses


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("zip://cd::http://h/cd.zip?se=2020-01-01T08:00:00Z&sig=SECRET", "zip://cd::http://h/cd.zip?***"),
        ("http://u:p@SECRET@h/x", "http://***@h/x"),
        ("http://u:p@SECRET@h:80/x@y", "http://***@h:80/x@y"),
        ("HTTPS://SECRET@h", "HTTPS://***@h"),
        ("simplecache::s3://K:SECRET@b", "simplecache::s3://***@b"),
        ("filecache::zip://in/a?b::s3://K:SE/CRET@b/x.zip", "filecache::zip://in/a?b::s3://***@b/x.zip"),
        ("s3://K:SE/CR@ET@b/x", "s3://***@b/x"),
        ("s3://K:123/SECRET@b/x", "s3://***@b/x"),
        ("s3://K:SECRET", "s3://***"),
        ("http://u:SE::CRET@h/x", "http://***"),
        ("http://h/x?a=SEC::RET", "http://h/x?***"),
        ("http://h/x#token=SECRET", "http://h/x#***"),
        ("http://h/x#SECRET?y", "http://h/x#***"),
        ("http:/u:SECRET@h/x", "http:/***@h/x"),
        ("github://me:SECRET@main/x", "github://***@main/x"),
        ("zip::http://u:SEC RET@h/x.zip", "zip::http://***@h/x.zip"),
        ("http://h/x??SECRET", "http://h/x?***"),
        ("http://h/x?***SECRET", "http://h/x?***"),
        ("abfs://photos@account/x?sv=1&sig=SECRET", "abfs://photos@account/x?***"),
        ("file://me:SECRET@host/x", "file://***@host/x"),
        ("sftp://me@host/x", "sftp://me@host/x"),
        ("sftp://me:SECRET@host/x", "sftp://***@host/x"),
        *((same, same) for same in ("s3://b/x#y", "zip://a?b#c@d:e::/tmp/x.zip", "file:///a?b=c", "http://h:80/a@b")),
        *((same, same) for same in ("s3://arn:aws:s3:eu:1:accesspoint/x", "hf://datasets/me/x@main", "http://[1]:8/x")),
        *((same, same) for same in ("ray://10.0.0.1:10001", "tcp://127.0.0.1:6379", "gs://b/a:b@c", "photos/a@b:c?d")),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_secret(address, shown):
    assert redacted_address(address) == shown
    assert redacted_address(shown) == redacted(shown) == shown
    for text in (f"There is no {address!r}", f'({address}")', f"x={address}", f"--to {address}"):
        assert "SEC" not in redacted(text)
        assert "RET" not in redacted(text)


#: Letters of passwords that people and generators choose; quotes and blanks, too.
SECRET = st.text("abcXYZ019@:/?#&=+%!$*()'\"\\ \t;,.~-_é", min_size=6, max_size=24).map(lambda text: f"S3{text}cR")


@given(
    st.sampled_from(["http", "https", "s3", "gs", "sftp", "webdav", "hdfs", "unknown+x"]),
    st.sampled_from(["user-and-secret", "query", "quoted query", "fragment"]),
    SECRET,
    st.sampled_from(["", "zip://in::", "simplecache::", "tar::filecache::"]),
)
@example("http", "user-and-secret", "S3::cR", "zip://in::")
@example("http", "quoted query", "S30000:/@cR", "")
@example("http", "user-and-secret", "S3:/0@00000cR", "")
@settings(max_examples=600, deadline=None)
def test_no_secret_of_a_well_formed_address_is_shown_anywhere(protocol, where, secret, chain):
    if where == "user-and-secret":
        # Whoever connects to a host takes a number behind its colon for a port, and what is behind a slash for a path.
        assume(protocol in {"s3", "gs"} or not re.search(r"^\d*[/?#]|@.*[/?#]", secret))
        address = f"{chain}{protocol}://me:{secret}@host/a/b"
    elif where == "query":
        address = f"{chain}{protocol}://host/a/b?name={secret}"
    elif where == "quoted query":
        address = f"{chain}{protocol}://host/a/b?name={quote(secret, safe='')}&x=1"
    else:
        address = f"{chain}https://host/a/b#{secret}"
    path = RemotePath(FileSystem(address)) / "c.jpg"
    pieces = {secret[start : start + 8] for start in range(len(secret) - 7)}
    login = "" if "::" in secret else f": login of me with {secret} failed"  # fsspec splits it there
    said = f"cannot open {address!r}{login}"
    for text in (str(path), repr(path), path.system.name, without_secrets(said, address), str(StoreError(repr(path)))):
        assert not [piece for piece in pieces if piece in text], text
    for text in (redacted_address(address), redacted(repr(address)), shown_text([f"Received: {address!r}"])):
        assert not [piece for piece in pieces if piece in text], text
    assert one_line(str(path)) == str(path)


@given(
    st.lists(
        st.tuples(st.sampled_from(["zip", "simplecache", "http", "s3", "file"]), st.sampled_from(["", "a/b.zip"])),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=40, deadline=None)
def test_a_chain_is_split_as_fsspec_splits_it(parts):
    from fsspec.core import _un_chain

    address = "::".join(f"{protocol}://{path}" for protocol, path in parts)
    shown = redacted_address(address)
    assert shown == address
    assert [protocol for _, protocol, _ in _un_chain(shown, {})] == [protocol for protocol, _ in parts]


@pytest.mark.parametrize("protocol", ["s3", "simplecache::gs", "zip://x::s3", "github"])
def test_secrets_are_refused_in_addresses_of_stores_that_take_them_from_the_environment(protocol):
    assert has_credentials(f"{protocol}://K:SECRET@b/x", but_for=["http"])
    with pytest.raises(FeatxError, match=r"Do not put credentials into an address.*\*\*\*@b/x$"):
        as_storage_path(f"{protocol}://K:SECRET@b/x")
    assert not has_credentials(f"{protocol}://b/x")


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///data/x#y", "/data/x#y"),
        ("file:///data/a?b=c", "/data/a?b=c"),
        ("FILE://localhost/data/my%20%23photos", "/data/my #photos"),
        ("local:///data/%FF", "/data/\udcff"),
        ("file:///data/\udcff", "/data/\udcff"),
    ],
)
def test_an_address_of_this_machine_is_the_path_that_it_names(address, path):
    assert str(as_storage_path(address)) == path


@pytest.mark.parametrize("address", ["file://server/share", "file://data", "file://~/x"])
def test_an_address_of_another_machine_is_not_taken_for_a_path_here(address):
    with pytest.raises(FeatxError, match="three slashes"):
        as_storage_path(address)


# Commands


def words_of(line: str) -> list[str]:
    """The words that bash makes of a line."""
    done = subprocess.run(["bash", "--norc", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert not done.stderr
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


@given(st.lists(ANY, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_shell_makes_of_an_advised_command_the_words_that_were_meant(words):
    line = shell_line(words)
    assert not unsafe(line)
    assert "\n" not in line
    assert words_of(line) == words
    if not any(map(unsafe, words)):
        assert shlex.split(line) == words


@settings(deadline=None)
@given(ANY)
def test_a_path_is_never_advised_as_an_option(path):
    assert not as_argument(path).startswith("-")
    assert as_argument(path).removeprefix("./") == path.removeprefix("./")


def test_an_error_of_any_length_keeps_its_beginning_and_its_advice():
    text = str(FeatxError(f"The run has the format {'x' * 100_000}. Train again."))
    assert len(text) < 5000
    assert text.startswith("The run has the format xxx")
    assert text.endswith("xxx. Train again.")
