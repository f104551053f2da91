"""The one place where commands print and ask. Text for people comes through `featx.text`: none acts on a terminal.

What programs read, JSON and CSV, is exact instead.
"""

import click

from featx.cli.streams import output_refused
from featx.text import Shown, one_line


def say(text: Shown, *, err: bool = False) -> None:
    """Print text for people, on standard output or standard error.

    Raises:
        FeatxError: standard output is closed, or on a disk that is full.
    """
    if err:
        click.echo(text, err=True)
    else:
        say_data(text)


def say_data(data: str | bytes, *, ends_line: bool = True) -> None:
    """Print what a program reads on standard output, and end the line.

    Raises:
        FeatxError: standard output is closed, or on a disk that is full.
    """
    try:
        click.echo(data, nl=ends_line)
    except BrokenPipeError:  # whoever read it has what it wants, like `head`
        raise
    except OSError as error:
        raise output_refused(error) from error


def ask(question: str) -> bool:
    """Return whether the answer to a question is yes; both are on standard error and standard input."""
    return click.confirm(one_line(question), err=True)
