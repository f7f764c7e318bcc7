"""A process that writes to a ledger and says on stdout what is durable, to be killed at any moment.

``python writer.py PATH FIRST LAST [options]`` makes the steps of `omnimind.testing.ledger_history`.
``ack n`` is printed when the write has returned, ``error n TYPE ...`` when it raised.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from omnimind.errors import OmniMindError
from omnimind.ledger import postgres_statements
from omnimind.ledger.interface import Ledger
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.postgres import PostgresLedger
from omnimind.ledger.sqlite import SqliteLedger
from omnimind.testing.ledger_history import tasks_of, transaction
from omnimind.testing.rows import id_of


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--synchronous", default="FULL")
    parser.add_argument("--checkpoint", type=int, help="maintain after every so many steps")
    parser.add_argument(
        "--open-again", action="store_true", help="after an error; a step that is not there is made again"
    )
    parser.add_argument(
        "--plant-ack-first",
        action="store_true",
        help="the bug that the tests must see: acknowledge, then write",
    )
    parser.add_argument(
        "--plant-no-proof", action="store_true", help="another bug: no transaction proves its epoch"
    )
    parser.add_argument(
        "--plant-lazy-commit",
        action="store_true",
        help="another bug: acknowledge what the server has not flushed (synchronous_commit off)",
    )
    return parser.parse_args()


def _commit_later(self: PostgresLedger, cursor: Any) -> None:
    del self
    cursor.execute(b"SET LOCAL synchronous_commit TO off")
    cursor.execute(b"COMMIT")


def opened(given: argparse.Namespace) -> Ledger:
    """Open the ledger, with the bugs that were asked for."""
    if given.plant_no_proof:
        postgres_statements.PROVE = "SELECT 1 WHERE $1::bigint > 0"  # type: ignore[misc]
    if given.plant_lazy_commit:
        PostgresLedger._commit = _commit_later  # type: ignore[method-assign]
    ledger: Ledger
    if "://" in given.path:
        ledger = open_ledger(given.path, Path())
    else:
        ledger = SqliteLedger(given.path, reserve=0, synchronous=given.synchronous)
    ledger.open(10)
    return ledger


def main(given: argparse.Namespace) -> None:
    ledger = opened(given)
    say("open")
    step = given.first
    while step < given.last:
        if given.plant_ack_first:
            say(f"ack {step}")
        try:
            ledger.write(transaction(step))
        except OmniMindError as error:
            say(f"error {step} {type(error).__name__} {error}")
            if not given.open_again:
                break
            try:
                ledger.open(10)
            except OmniMindError as again:
                say(f"closed {type(again).__name__} {again}")
                break
            say("open")
            if not ledger.tasks([id_of(tasks_of(step)[0])]):
                continue
        if not given.plant_ack_first:
            say(f"ack {step}")
        step += 1
        if given.checkpoint and step % given.checkpoint == 0:
            ledger.maintain()
    if step == given.last:
        say("end")
    # No close: that would be one more checkpoint, and a process that dies has none.


if __name__ == "__main__":
    main(arguments())
