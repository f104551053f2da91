"""Linux, as strict as Windows: what Windows lacks is not there, and what it refuses is refused.

`python -m tests.as_on_windows extract data + cache ls` runs commands of featx so. Only featx itself sees another
system: the packages that it uses have code of their own for Windows.
"""

import builtins
import errno
import os
import shutil
import signal
import stat
import sys
import types
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

#: The modules that only POSIX has, by Python's documentation.
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "nis", "curses"}

#: What only POSIX has of `os` and `signal`, by Python's documentation ("Availability: Unix").
NAMES = {
    "os": """
        O_NONBLOCK O_NOCTTY O_DIRECTORY O_CLOEXEC O_SYNC O_DSYNC O_RSYNC O_NDELAY O_NOFOLLOW O_NOATIME O_PATH O_TMPFILE
        O_ASYNC O_DIRECT O_ACCMODE fork forkpty register_at_fork getuid geteuid getgid getegid getgroups getpgid getpgrp
        getpriority setpriority nice setsid setuid setgid killpg uname chown lchown fchown fchmod chroot mkfifo mknod
        major minor makedev statvfs fstatvfs pathconf fpathconf sysconf confstr pread pwrite preadv pwritev
        posix_fallocate posix_fadvise posix_spawn sendfile lockf openpty ttyname tcgetpgrp get_blocking set_blocking
        sched_getaffinity sched_setaffinity sched_yield sync wait wait3 wait4 waitid WNOHANG getloadavg ctermid
        memfd_create eventfd getxattr listxattr setxattr splice copy_file_range pidfd_open fchdir fdatasync fwalk
        getrandom environb getenvb""",
    "signal": """
        SIGHUP SIGQUIT SIGKILL SIGUSR1 SIGUSR2 SIGPIPE SIGALRM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGWINCH
        alarm pause pthread_kill pthread_sigmask setitimer getitimer sigpending sigwait sigwaitinfo sigtimedwait
        siginterrupt""",
}


def hide_posix() -> None:
    """From now on, modules of featx import `os` and `signal` without what Windows lacks, and none of `MODULES`."""
    hidden = {name: _without(module, NAMES[name].split()) for name, module in (("os", os), ("signal", signal))}
    hidden["os"].name = "nt"
    import_ = builtins.__import__

    def import_as_there(name: str, globals: Any = None, *rest: Any, **options: Any) -> Any:  # noqa: A002 - its name
        if (globals or {}).get("__name__", "").partition(".")[0] == "featx":
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in hidden:
                return hidden[name]
        return import_(name, globals, *rest, **options)

    builtins.__import__ = import_as_there


def _without(module: types.ModuleType, names: list[str]) -> types.ModuleType:
    copy = types.ModuleType(module.__name__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in names})
    return copy


def refuse_as_windows(patch: Callable[[object, str, object], None]) -> None:
    """Have renaming and removing open files, renaming over a folder, and syncing what can only be read refused.

    Args:
        patch: `setattr`, or what undoes it at the end of a test.
    """
    rename, replace, unlink, rmdir, fsync, open_ = os.rename, os.replace, os.unlink, os.rmdir, os.fsync, os.open

    def rename_there(path: Any, target: Any, **options: Any) -> None:
        if os.path.lexists(target):
            raise _error(FileExistsError, errno.EEXIST, target, 183)
        _check_not_open(path)
        rename(path, target, **options)

    def replace_there(path: Any, target: Any, **options: Any) -> None:
        _check_not_open(path)
        _check_not_open(target)
        replace(path, target, **options)

    def unlink_there(path: Any, **options: Any) -> None:
        _check_not_open(path)
        unlink(path, **options)

    def rmdir_there(path: Any, **options: Any) -> None:
        _check_not_open(path)
        rmdir(path, **options)

    def fsync_there(file: Any) -> None:
        import fcntl

        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(file)

    def open_there(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if (
            Path(os.fsdecode(path)).is_dir() and flags & os.O_ACCMODE == os.O_RDONLY
        ):  # a nameless file is opened to write
            raise _error(PermissionError, errno.EACCES, path, 5)
        return open_(path, flags, *rest, **options)

    patch(shutil, "_use_fd_functions", False)  # which Windows does not have
    for name, there in {
        "rename": rename_there,
        "replace": replace_there,
        "unlink": unlink_there,
        "remove": unlink_there,
        "rmdir": rmdir_there,
        "fsync": fsync_there,
        "open": open_there,
    }.items():
        patch(os, name, there)


def _error(kind: type[OSError], number: int, path: Any, windows_number: int) -> OSError:
    error = kind(number, os.strerror(number), os.fsdecode(path))
    error.winerror = windows_number  # type: ignore[attr-defined]  # typeshed has it on Windows only
    return error


def _check_not_open(path: Any) -> None:
    """Raise PermissionError if this process has the file, or one below the folder, open or mapped into memory."""
    named = os.path.realpath(os.fsdecode(path))
    lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    held = [fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6]
    for link in Path("/proc/self/fd").iterdir():
        try:
            opened, is_file = str(link.readlink()), stat.S_ISREG(link.stat().st_mode)
        except OSError:
            continue  # it was closed meanwhile
        held += [opened] if is_file else []
    if any(opened == named or opened.startswith(f"{named}/") for opened in held):
        raise _error(PermissionError, errno.EACCES, path, 32)


def run(words: list[str]) -> None:
    """Run commands of featx, a `+` between them; what Linux tells of the machine and its file systems is not there."""
    hide_posix()
    refuse_as_windows(setattr)
    from featx.cli.main import main
    from featx.storage import stat_key, windows
    from featx.system import machine

    assert windows.IS_WINDOWS
    assert not hasattr(windows.os, "O_NONBLOCK")
    machine._line = lambda *_: ""
    stat_key._MOUNTS = Path("there is no such file")
    for _, command in groupby(words, "+".__ne__):
        if (typed := list(command)) != ["+"]:
            main(typed, prog_name="featx", standalone_mode=False)


if __name__ == "__main__":
    run(sys.argv[1:])
