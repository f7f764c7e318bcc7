"""A driver that can be killed: submits slabs and journals what was sent and what was acknowledged.

``python submitter.py HOME JOURNAL RUNS COUNT ONCE SECONDS [PAUSE]``: COUNT tasks in slabs of 50, the first
ONCE of them with at_most_once. Each handler takes SECONDS and journals its start and its end in RUNS.
PAUSE: seconds between two slabs.
"""

from __future__ import annotations

import asyncio
import sys
import time

from omnimind import TaskContext, encoding, task
from omnimind.client import protocol
from omnimind.client.client import AsyncClient
from omnimind.errors import LedgerUnavailable
from omnimind.ids import new_slab, task_id
from omnimind.testing.witness import Journal

SLAB = 50
KIND = "chaos.witnessed"


@task(name=KIND)
def witnessed(ctx: TaskContext, runs: str, seconds: float, n: int) -> str:
    """Do `seconds` of work, in sight of the witness."""
    import os
    import uuid

    journal = Journal(runs)
    journal.write("START", ctx.task_id, time.time(), os.getpid())
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    result = f"{n}-{uuid.uuid4().hex}"
    journal.write("END", ctx.task_id, result)
    return result


async def main(
    home: str, journal_path: str, runs: str, count: int, once: int, seconds: float, pause: float
) -> None:
    """Submit, one slab after the other: each id is journalled before it is sent."""
    journal = Journal(journal_path)
    async with AsyncClient(home) as om:
        first = await om.submit(witnessed, runs="/dev/null", seconds=0.0, n=-1)
        await first.result(timeout=60)
        transport = await om.transport()
        for start in range(0, count, SLAB):
            slab = new_slab()
            ids = [task_id(slab, i) for i in range(SLAB)]
            at_most_once = start < once
            for id_ in ids:
                journal.write("SENT", id_)
                if at_most_once:
                    journal.write("ONCE", id_)
            calls = [{"runs": runs, "seconds": seconds, "n": start + i} for i in range(SLAB)]
            payloads = [encoding.encode(call, "payload")[0] for call in calls]
            request = protocol.SubmitRequest(slab, KIND, payloads, at_most_once=at_most_once)
            while True:
                try:
                    await transport.call("submit", protocol.encode(request), 60)
                    break
                except LedgerUnavailable as refused:
                    # Whether it was taken is unknown, and the same ids are no second submission.
                    journal.write("REFUSED", ids[0])
                    await asyncio.sleep(refused.retry_after or 0.2)
            for id_ in ids:
                journal.write("ACK", id_)
            await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(
        main(
            sys.argv[1],
            sys.argv[2],
            sys.argv[3],
            int(sys.argv[4]),
            int(sys.argv[5]),
            float(sys.argv[6]),
            float(sys.argv[7]) if len(sys.argv) > 7 else 0.0,
        )
    )
