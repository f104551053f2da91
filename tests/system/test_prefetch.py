"""Threads that read, and whom nobody waits for."""

import subprocess
import sys
import threading

import pytest

from featx.system import DaemonThreads
from featx.system import prefetch as module


def test_results_come_in_order_and_errors_are_raised():
    with DaemonThreads(3, "test") as pool:
        assert list(pool.map(lambda number: number * 2, range(100))) == list(range(0, 200, 2))
        assert len({thread for thread in threading.enumerate() if thread.name.startswith("test-")}) == 3
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result()
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_what_is_under_way_is_finished_and_what_waits_is_cancelled(monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 60.0)
    started, going_on = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        going_on.wait(60)
        return "done"

    pool = DaemonThreads(1, "test")
    first, second = pool.submit(work), pool.submit(work)
    started.wait(60)
    threading.Timer(0.2, going_on.set).start()
    pool.shutdown(cancel_futures=True)
    assert first.result() == "done"
    assert second.cancelled()


def test_an_error_does_not_wait_for_a_thread_that_never_ends(monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    never = threading.Event()

    def interrupted() -> None:
        with DaemonThreads(2, "test") as pool:
            pool.submit(never.wait)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    never.set()


STUCK = """
import threading
from featx.system import DaemonThreads
pool = DaemonThreads(2, "stuck")
pool.submit(threading.Event().wait)
pool.shutdown(cancel_futures=True)
print("the end")
"""


def test_a_process_ends_though_a_thread_never_does():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
