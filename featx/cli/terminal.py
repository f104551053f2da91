"""The one place where commands print and ask. Text for people comes through `featx.text`: none acts on a terminal.

What programs read, JSON and CSV, is exact instead.
"""

import click

from featx.cli.streams import print_result
from featx.text import Shown, one_line


def say(text: Shown, *, err: bool = False) -> None:
    """Print text for people, on standard output or standard error."""
    if err:
        click.echo(text, err=True)
    else:
        print_result(text)


def say_data(data: str | bytes) -> None:
    """Print what a program reads on standard output."""
    print_result(data)


def ask(question: str) -> bool:
    """Return whether the answer to a question is yes; both are on standard error and standard input."""
    return click.confirm(one_line(question), err=True)
