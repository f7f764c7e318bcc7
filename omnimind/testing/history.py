"""A recorded history of a real run: what clients asked and heard, what ran, what went wrong, how it ended.

A history is a list of records, one JSON object a line, in files that survive their writers. Clients write
`Called` before they send and `Answered` when they hear; a call without an answer is *unknown*, never
failed. Handlers write `Started`, `Kept` and `Ended` by themselves, beside the runtime. Whoever makes faults
writes `Fault`, and at the end `Listed` for each task that the ledger lists, and `Run`. `history_check`
judges.

All times are seconds of the one monotonic clock of the machine that holds the hosts, which no fault shifts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec


class Called(msgspec.Struct, frozen=True, tag="call", tag_field="is", omit_defaults=True):
    """A client sends request `n`.

    verb: ``submit``, ``result``, ``status`` or ``cancel``. tasks: the ids that a submission carries, or the
    one that is asked for. payload: what makes submissions under one key the same. retries: as submitted.
    raises: how often the handler means to raise before it returns. wait and life: `delay` and time to the
    deadline in seconds, as submitted. again: the call that this one repeats, word for word.
    """

    client: str
    n: int
    at: float
    verb: str
    tasks: tuple[str, ...]
    key: str | None = None
    payload: str = ""
    once: bool = False
    retries: int = 0
    raises: int = 0
    wait: float = 0.0
    life: float | None = None
    after: tuple[str, ...] = ()
    again: int | None = None


class Answered(msgspec.Struct, frozen=True, tag="answer", tag_field="is", omit_defaults=True):
    """A client has heard of request `n`.

    outcome: ``ok``, ``refused`` (the runtime says that nothing was done; `code` says why) or ``unknown`` (no
    answer in time, a broken connection). tasks: of a submission, the ids that it stands for. status and
    value: of a read, what it saw (value: the result of a completed task). A cancel's status is what was done.
    """

    client: str
    n: int
    at: float
    outcome: str
    tasks: tuple[str, ...] = ()
    status: str = ""
    value: str | None = None
    code: str = ""


class Started(msgspec.Struct, frozen=True, tag="start", tag_field="is", omit_defaults=True):
    """An attempt begins. resumed: the number of the checkpoint that it was given, 0 for none."""

    task: str
    fence: int
    at: float
    host: str
    pid: int
    resumed: int = 0


class Ended(msgspec.Struct, frozen=True, tag="end", tag_field="is", omit_defaults=True):
    """An attempt is about to return `value`, or, when that is None, to raise; stopped: as it was told to."""

    task: str
    fence: int
    at: float
    value: str | None = None
    stopped: bool = False


class Kept(msgspec.Struct, frozen=True, tag="kept", tag_field="is"):
    """The runtime has confirmed checkpoint `number` of an attempt."""

    task: str
    fence: int
    at: float
    number: int


class Fault(msgspec.Struct, frozen=True, tag="fault", tag_field="is", omit_defaults=True):
    """Something was broken, from `at` to `until`; a kill until what was killed is back, or the run ends.

    skipped: why it was not made after all (no such process at that moment).
    """

    what: str
    where: str
    at: float
    until: float
    skipped: str = ""


class Listed(msgspec.Struct, frozen=True, tag="listed", tag_field="is", omit_defaults=True):
    """The ledger lists a task at the end.

    attempts: fences of the attempts on record, those that did not succeed. raised: those of them that raised,
    as far as the runtime has heard of it.
    """

    task: str
    status: str
    at: float
    value: str | None = None
    cause: str = ""
    key: str | None = None
    attempts: tuple[int, ...] = ()
    raised: tuple[int, ...] = ()


class Run(msgspec.Struct, frozen=True, tag="run", tag_field="is", omit_defaults=True):
    """The run itself. healed: when the last fault was over. settled: when nothing was pending or running.

    bound: seconds within which it had to settle.
    """

    command: str
    began: float
    healed: float
    settled: float | None
    bound: float


Record = Called | Answered | Started | Ended | Kept | Fault | Listed | Run

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_CLOCK_GETTIME = {"x86_64": 228, "aarch64": 113}.get(platform.machine())
_libc = ctypes.CDLL(None)


def now() -> float:
    """Return the time that histories are written in.

    It is asked of the kernel itself: a library that shifts a host's clocks (libfaketime) stands between a
    process and the C library's functions, the monotonic ones too.
    """
    if _CLOCK_GETTIME is None:
        return time.monotonic()
    found = _Timespec()
    _libc.syscall(_CLOCK_GETTIME, time.CLOCK_MONOTONIC, ctypes.byref(found))
    return float(found.seconds) + float(found.nanoseconds) * 1e-9


class Journal:
    """A file of records that survives its writer: each is appended in one write."""

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, record: Record) -> None:
        """Append a record."""
        os.write(self._fd, _encode(record) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read(paths: Iterable[Path]) -> Iterator[Record]:
    """Yield the records of several files.

    The last line of a writer that was killed may be cut short and is left out. Raises ValueError naming the
    line for anything else that is no record.
    """
    for path in paths:
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                yield _decode(line)
            except msgspec.MsgspecError as error:
                if number == len(lines):
                    continue
                msg = f"{path}:{number} is no record of a history: {error}"
                raise ValueError(msg) from error


def write(path: Path, records: Iterable[Record]) -> None:
    """Write a whole history into one file."""
    path.write_bytes(b"".join(_encode(record) + b"\n" for record in records))


def when(record: Record) -> float:
    """Return the time of a record, for the order in which a person reads."""
    return record.settled or record.healed if isinstance(record, Run) else record.at


def line(record: Record, zero: float = 0.0) -> str:
    """Return a record as a line for people; times count from `zero`."""
    at = f"{when(record) - zero:9.3f} s  "
    match record:
        case Called(client, n, _, verb, tasks):
            key = f" key={record.key}" if record.key else ""
            more = f" payload={record.payload}" if record.payload else ""
            return f"{at}{client}#{n} asks: {verb} {' '.join(tasks)}{key}{more}"
        case Answered(client, n, _, outcome):
            found = " ".join(filter(None, (*record.tasks, record.status, record.value or "", record.code)))
            return f"{at}{client}#{n} hears: {outcome} {found}".rstrip()
        case Started(task, fence, _, host, pid):
            given = f", given checkpoint {record.resumed}" if record.resumed else ""
            return f"{at}{task} starts on {host} (process {pid}) with fence {_fence(fence)}{given}"
        case Ended(task, fence, _, value):
            how = "stops" if record.stopped else "raises" if value is None else f"returns {value}"
            return f"{at}{task} {how}, with fence {_fence(fence)}"
        case Kept(task, fence, _, number):
            return f"{at}{task} has checkpoint {number} confirmed, with fence {_fence(fence)}"
        case Fault(what, where, begun, until):
            not_made = f" (not made: {record.skipped})" if record.skipped else f", for {until - begun:.1f} s"
            return f"{at}fault: {what} on {where}{not_made}"
        case Listed(task, status):
            value = f" {record.value}" if record.value else ""
            tried = (
                f", attempts on record: {' '.join(map(_fence, record.attempts))}" if record.attempts else ""
            )
            return f"{at}the ledger lists {task}: {status}{value} ({record.cause}){tried}"
        case Run(command):
            end = (
                f"settled {record.settled - record.healed:.1f} s later" if record.settled else "never settled"
            )
            return f"{at}run: {command}; healed at {record.healed - zero:.1f} s, {end}"


def _fence(fence: int) -> str:
    return f"{fence >> 40}.{fence & ((1 << 40) - 1)}"
