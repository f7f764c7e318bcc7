from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from actors.wakeups import Wakeups, reap
from omnimind import processes

LONG = 60.0


def test_a_signal_ends_a_wait_and_counts_as_a_wish_to_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Wakeups() as wakeups:
        os.kill(os.getpid(), signal.SIGTERM)
        wakeups.wait(LONG)
        assert wakeups.stops == 1
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        wakeups.wait(LONG)
        assert wakeups.stops == 3
        began = time.monotonic()
        wakeups.pause(LONG)
        assert time.monotonic() - began < LONG / 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_end_of_a_process_ends_a_wait() -> None:
    with Wakeups() as wakeups:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        process = processes.identify(child.pid)
        assert process is not None
        ended: list[bool] = []
        wakeups.watch(process, lambda: ended.append(True))
        child.communicate(b"\n")
        while not ended:
            wakeups.wait(LONG)
        wakeups.unwatch(process)  # which has been done; once more does no harm
        wakeups.watch(process, lambda: ended.append(True))
        wakeups.wait(0.0)
        assert ended == [True]


def test_something_to_read_ends_a_wait() -> None:
    read, write = os.pipe()
    with Wakeups() as wakeups, os.fdopen(read, "rb") as file:
        wakeups.listen(file)
        os.write(write, b"x")
        wakeups.wait(LONG)
        assert os.read(read, 10) == b"x"
        wakeups.unlisten(file)
        wakeups.unlisten(file)
        os.close(write)


def test_adopted_processes_are_reaped_and_our_own_are_left_alone() -> None:
    own = subprocess.Popen([sys.executable, "-c", ""])
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    identities = [own.pid, pid]
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    assert set(identities) <= set(processes.children(os.getpid()))
    reap([own])
    assert not set(identities) & set(processes.children(os.getpid()))
    assert own.returncode == 0
