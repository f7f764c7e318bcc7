"""``python -m omnimind.testing.check_history FILE …``: judge recorded histories again.

Several files are one history (a journal each of its clients, its handlers, its faults). The exit code is
1 when a rule is broken or the history is vacuous, 2 when it cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omnimind.testing.history import line, read
from omnimind.testing.history_check import check, explain
from omnimind.testing.history_story import Story


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m omnimind.testing.check_history", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--task", help="print all that concerns one task, in the order of time")
    arguments = parser.parse_args(argv)
    try:
        records = list(read(arguments.files))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if arguments.task is not None:
        _tell(Story(records), arguments.task)
    verdict = check(records)
    print(explain(verdict))  # noqa: T201
    return 0 if verdict.good else 1


def _tell(story: Story, task: str) -> None:
    found = story.of(task)
    calls = [*found.named, *found.submissions, *found.reads, *found.cancels]
    concerned = {
        id(record): record
        for records in (
            [r for c in calls for r in c.records],
            found.starts,
            found.kept,
            found.ends,
            found.listed,
        )
        for record in records
    }
    for record in story.records:
        if id(record) in concerned:
            print(line(record, story.zero))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
