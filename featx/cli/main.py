"""The group of all commands, and what happens on an error or a signal."""

import io
import logging
import os
import signal
import sys
from contextlib import nullcontext
from typing import Any, NoReturn

import click

from featx.cli.backbones import backbones
from featx.cli.cache import cache
from featx.cli.clean import clean
from featx.cli.compare import compare
from featx.cli.doctor import doctor
from featx.cli.export import export
from featx.cli.extract import extract
from featx.cli.fetch import fetch
from featx.cli.options import with_nearest
from featx.cli.plan import plan
from featx.cli.predict import predict
from featx.cli.rerun import rerun
from featx.cli.similar import similar
from featx.cli.streams import output_refused
from featx.cli.terminal import say
from featx.cli.train_top import train_top
from featx.errors import FeatxError
from featx.storage import archive_kind, working_folder
from featx.system import Terminated, ignore_interrupts, raise_terminated
from featx.text import one_line, redacted_word, shown_text

log = logging.getLogger("featx")


class Commands(click.Group):
    """The commands of featx: errors are one line on stderr, never a traceback."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **options: Any) -> click.Context:
        """Parse the command line; on Ctrl-C, click itself would exit with 1 and say only that it was aborted."""
        self._addresses = [word for word in args if "://" in word]
        try:
            return super().make_context(info_name, args, *others, **options)
        except KeyboardInterrupt as interrupt:
            _stop(interrupt)
        except click.UsageError as error:
            raise self._safe(error) from None
        except BrokenPipeError:
            raise
        except OSError as error:  # nothing but `--help` is printed here
            _fail(str(output_refused(error)), 2)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Treat data in place of a command as data to compare: `featx photos/` means `featx compare photos/`."""
        is_command = args[0] in self.commands
        return super().resolve_command(ctx, ["compare", *args] if not is_command and is_data(args[0]) else args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with 2 on an error, 130 on Ctrl-C, 143 on SIGTERM."""
        signal.signal(signal.SIGTERM, raise_terminated)
        try:
            working_folder()
            return super().invoke(ctx)
        except click.UsageError as error:
            raise self._safe(error) from None
        except FeatxError as error:
            _fail(str(error), 2)
        except KeyboardInterrupt as interrupt:
            _stop(interrupt)
        except BrokenPipeError:
            raise
        except MemoryError as error:
            _fail(f"not enough memory: {error}. Choose smaller images, a later layer or smaller batches.", 2)
        except OSError as error:
            _fail(": ".join(filter(None, [error.strerror or str(error), os.fsdecode(error.filename or "")])), 2)

    def _safe(self, error: click.UsageError) -> click.UsageError:
        """Return a usage error with the nearest word, fit for a terminal: what was typed is in it."""
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            return error
        message = with_nearest(error)
        for word in self._addresses:  # with any blanks in it
            message = message.replace(word, redacted_word(word))
        return click.UsageError(one_line(message), error.ctx)


def is_data(word: str) -> bool:
    """Whether a word names a folder or an archive that is there, or is a path or an address, which no command is."""
    # A Path raises for a name that is too long; these say no.
    is_archive = archive_kind(word) is not None and os.path.isfile(word)  # noqa: PTH113
    return "/" in word or os.path.isdir(word) or is_archive  # noqa: PTH112


def _stop(interrupt: KeyboardInterrupt) -> NoReturn:
    ignore_interrupts()
    _fail(
        "stopped; finished work is kept. Run it again to resume.",
        143 if isinstance(interrupt, Terminated) else 130,
    )


def _fail(message: str, exit_code: int) -> NoReturn:
    say(shown_text([f"featx: {message}"]), err=True)
    sys.exit(exit_code)


class _Handler(logging.Handler):
    """Prints the log messages of the library, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        with tqdm.external_write_mode(file=sys.stderr) if sys.stderr.isatty() else nullcontext():
            say(shown_text([f"featx: {prefix}{record.getMessage()}"]), err=True)


@click.group(
    cls=Commands,
    commands=[
        backbones,
        cache,
        clean,
        compare,
        doctor,
        export,
        extract,
        fetch,
        plan,
        predict,
        rerun,
        similar,
        train_top,
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="featx", message="%(prog)s %(version)s")
def main() -> None:
    """Transfer learning on your own images: extract features once, train on them in seconds, compare the results.

    \b
    DATA is a folder: train/CLASS/* with test/CLASS/*, or just CLASS/*; also a
    zip or tar file, or an address like s3://bucket/photos.
    Without DATA, featx uses data/ if there is one, else the built-in sample;
    featx compare runs a demo instead. featx DATA means featx compare DATA.

    \b
    Example:
      featx photos/
      featx compare data/ --backbone vgg16 --with-scratch-cnn
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack letters; the work must not be lost for them
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files, which need not be text
    if not log.handlers:
        log.addHandler(_Handler())
        log.propagate = False
    log.setLevel(logging.INFO)
