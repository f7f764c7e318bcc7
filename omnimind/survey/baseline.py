"""The survey without OmniMind: one process, one loop. The independent check of the distributed run.

`python -m omnimind.survey.baseline [--path DIR]` prints the report as JSON; apart from times and places its
totals are those of `out/report.json` over the same files and the same Python.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from omnimind.errors import InvalidInput
from omnimind.survey.analysis import analyse_file
from omnimind.survey.files import Tree, find_files
from omnimind.survey.reduce import Reduction, reason_of
from omnimind.survey.source import UNREADABLE


def run_plain(tree: Tree) -> dict[str, Any]:
    """Return the report over the files of `tree`, taken one after the other in this process."""
    began = time.perf_counter()
    reduction = Reduction()
    for file in tree.files:
        try:
            reduction.add(analyse_file(path=file.path, root=file.root))
        except UNREADABLE as error:
            reduction.fail(file.path, file.root, reason_of(type(error).__name__, str(error)))
    return reduction.report(seconds=time.perf_counter() - began, not_read=tree.problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 2 when the folder cannot be surveyed."""
    parser = argparse.ArgumentParser(prog="python -m omnimind.survey.baseline", description=run_plain.__doc__)
    parser.add_argument(
        "--path", metavar="DIR", help="folder to survey (default: the library and packages of this Python)"
    )
    chosen = parser.parse_args(arguments)
    try:
        tree = find_files(chosen.path)
    except InvalidInput as error:
        parser.error(str(error))
    json.dump(run_plain(tree), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
