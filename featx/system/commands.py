"""Commands as one types them: those that featx advises, and the one that is running.

A command that is advised is copied and run, so whatever it is made of stays one word and runs nothing.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from featx.text import is_unsafe, redacted_word


def shell_line(words: Sequence[str]) -> str:
    r"""Return the words of a command as one types them in this system's shell; the shell makes the same words of it.

    What would harm a terminal is written as bash, zsh and ksh read it.

    >>> print(shell_line(["featx", "extract", "my photos; rm -r x", "a\nb"]))
    featx extract 'my photos; rm -r x' $'a\nb'
    """
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if not any(is_unsafe(word, at) for at in range(len(word))):
        return shlex.quote(word)
    return f"$'{''.join(_escaped(word, at) for at in range(len(word)))}'"


def _escaped(word: str, at: int) -> str:
    char = word[at]
    if is_unsafe(word, at):
        return {"\n": r"\n", "\t": r"\t"}.get(char, "".join(f"\\x{byte:02x}" for byte in os.fsencode(char)))
    return f"\\{char}" if char in "\\'" else char


def as_argument(path: object) -> str:
    """Return a path as an argument of a command that is advised: one that begins with a dash is no option.

    >>> as_argument("-photos"), as_argument("photos")
    ('./-photos', 'photos')
    """
    return f"./{path}" if str(path).startswith("-") else str(path)


def command_line() -> str:
    """Return the command that is running, as one would type it, but for credentials in addresses."""
    program = Path(sys.argv[0]).name
    return shell_line(["featx" if program == "__main__.py" else program, *map(redacted_word, sys.argv[1:])])
