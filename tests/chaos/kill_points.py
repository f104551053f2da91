"""Every rename, fsync, removal and opening of a file to write is a point at which a process may be killed.

Python tells a hook of them before it does them (PEP 578), but for fsync. So no name of featx's code stands here.
"""

import itertools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

#: Runs the command line in a process that is killed at one point. The words: those of `watch`, then the command's.
PROGRAM = """
import sys
from tests.chaos.kill_points import watch
watch(*sys.argv[1:5])
sys.argv = ["featx", *sys.argv[5:]]
from featx.__main__ import run
run()
"""

#: What Python calls things that change a folder; the word for the table; and for each path among the arguments its
#: position, and that of the descriptor of the folder it is relative to.
_EVENTS = {
    "os.rename": ("rename", ((0, 2), (1, 3))),
    "os.remove": ("remove", ((0, 1),)),
    "os.rmdir": ("remove", ((0, 1),)),
    "os.mkdir": ("make a folder", ((0, 2),)),
    "os.link": ("link", ((1, 3),)),
    "os.symlink": ("link", ((1, 2),)),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Point(NamedTuple):
    """Something that a process was about to do: a word for it, and the path, without what is random in it."""

    kind: str
    path: str


def watch(folder: str, number: str, delay_s: str, journal_path: str) -> None:
    """Kill this process at the point `number`, from 1, of those below `folder`; at none if it is 0.

    The points that it comes to are written to `journal_path`. If `delay_s` is not 0, the process is killed so many
    seconds after the point, wherever it is then.
    """
    journal = os.open(journal_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    counter = itertools.count(1)

    def reach(kind: str, *paths: str) -> None:
        inside = [path for path in paths if path.startswith(f"{folder}/")]
        if not inside:
            return
        os.write(journal, os.fsencode(f"{kind}\t{_without_chance(inside[-1].removeprefix(folder))}\n"))
        if next(counter) == int(number):
            if float(delay_s):
                threading.Thread(target=_kill, args=[float(delay_s)], daemon=True).start()
            else:
                _kill()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int) and arguments[2] & _WRITES:
            reach("open to write", _whole(arguments[0]))
        elif event in _EVENTS:
            kind, places = _EVENTS[event]
            reach(kind, *(_whole(arguments[path], arguments[descriptor]) for path, descriptor in places))

    _watch_fsync(reach)
    sys.addaudithook(hook)


def _watch_fsync(reach: Callable[..., None]) -> None:
    real = os.fsync

    def fsync(file: Any) -> None:
        reach("fsync", _path_of(file if isinstance(file, int) else file.fileno()))
        real(file)

    os.fsync = fsync


def _kill(delay_s: float = 0) -> None:
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)


def _whole(path: Any, descriptor: int = -1) -> str:
    """Return the absolute path that `path` means in the folder that a descriptor is of, or in the working folder."""
    text = _path_of(path) if isinstance(path, int) else os.fsdecode(path)
    return text if text.startswith("/") else f"{_path_of(descriptor) if descriptor >= 0 else os.getcwd()}/{text}"  # noqa: PTH109


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""


def _without_chance(path: str) -> str:
    return re.sub(r"[0-9a-f]{32}", "…", path)


def read_points(journal_path: Path) -> list[Point]:
    """Return the points that a process came to."""
    return [Point(*line.split("\t")) for line in os.fsdecode(journal_path.read_bytes()).splitlines()]
