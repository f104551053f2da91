"""What a command says when it is done, on standard output: for people, as JSON, or nothing."""

import json
from collections.abc import Callable
from typing import Any

import click


def say(text: Callable[[], str], data: Callable[[], Any], *, quiet: bool, as_json: bool) -> None:
    """Print `data()` as JSON if that is asked for; else `text()`, unless it is to be `quiet`."""
    if as_json:
        click.echo(json.dumps(data(), indent=2))
    elif not quiet:
        click.echo(text())
