"""``python -m omnimind.testing.healer``: run seeds of the healer's simulation, or one with its story."""

from __future__ import annotations

import argparse
import sys
import time

from omnimind.testing.healer.options import describe, draw_options
from omnimind.testing.healer.plants import PLANTS, planted_or_not
from omnimind.testing.healer.sim import REQUIRED, run

_ENOUGH = 300


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 1 when a run failed, or 300 seeds or more have left something out."""
    parser = argparse.ArgumentParser(prog="python -m omnimind.testing.healer", description=__doc__)
    parser.add_argument("--seeds", required=True, metavar="A:B", help="from A up to before B")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="plant a bug")
    arguments = parser.parse_args(argv)
    first, _, last = arguments.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    counts: dict[str, int] = {}
    failed, begin = 0, time.process_time()
    with planted_or_not(arguments.plant):
        for seed in seeds:
            result = run(draw_options(seed))
            for name, count in result.counts.items():
                counts[name] = counts.get(name, 0) + count
            if result.failure is not None:
                failed += 1
                _say(
                    f"--seeds {seed}: {result.failure[0]}: {result.failure[1]}\n  {describe(result.options)}"
                )
                _say(result.trace)
    spent = time.process_time() - begin
    _say(
        f"{len(seeds)} fleets, {failed} failed; {60 * len(seeds) / max(spent, 0.001):.0f} a minute on a core"
    )
    missing = [name for name in REQUIRED if not counts.get(name)]
    if len(seeds) >= _ENOUGH and missing and arguments.plant is None:
        _say(f"vacuous: never happened: {', '.join(missing)}")
        return 1
    return 1 if failed else 0


def _say(text: str) -> None:
    if text:
        print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
