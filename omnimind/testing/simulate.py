"""``python -m omnimind.testing.simulate``: run seeds, replay one, shrink what fails.

The exit code is 1 when a run failed, or when 300 seeds or more have not covered what they should.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from omnimind.testing.campaign import Report, campaign, plant, replay_command, shrink, story
from omnimind.testing.options import describe, draw_options, parse_fixed
from omnimind.testing.plants import PLANTS
from omnimind.testing.simulation import run

_ENOUGH = 300
_SHOWN = 10


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        fixed = parse_fixed(arguments.set)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if arguments.list_plants:
        for name, planted in PLANTS.items():
            _say(f"{name:34} {planted.invariant:4} {planted.story}")
        return 0
    if arguments.seeds is not None:
        return _many(arguments, fixed)
    return _one(arguments, fixed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m omnimind.testing.simulate", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="replay one seed")
    which.add_argument("--seeds", type=_range, metavar="A:B", help="run the seeds from A up to before B")
    which.add_argument("--list-plants", action="store_true", help="list the bugs that can be planted")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write all that happens, as JSON lines")
    parser.add_argument("--only-faults", metavar="F1,F2", help="let only these faults fire ('none': none)")
    parser.add_argument("--plant", choices=sorted(PLANTS), metavar="NAME", help="plant a bug")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="fix an option")
    parser.add_argument("--processes", type=int, default=1, help="for --seeds (default 1)")
    parser.add_argument("--no-shrink", action="store_true", help="do not make a failure small")
    return parser


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _one(arguments: argparse.Namespace, fixed: dict[str, Any]) -> int:
    only = None
    if arguments.only_faults is not None:
        only = [fault for fault in arguments.only_faults.split(",") if fault != "none"]
    options = draw_options(arguments.seed, fixed)
    _say(replay_command(options, fixed, only, arguments.plant))
    _say(f"  {describe(options)}")
    faults = None if only is None else frozenset(only)
    with plant(arguments.plant):
        if arguments.trace is None:
            result = run(options, faults)
        else:
            with arguments.trace.open("w", encoding="utf-8") as file:
                result = run(options, faults, _writer(file))
    _say(f"  {result.events} events, {len(result.fired)} faults, {result.seconds:.1f} s, trace {result.hash}")
    if result.failure is None:
        _say("  all invariants hold")
        return 0
    _say(f"  {result.failure[0]}: {result.failure[1]}")
    _say(result.trace)
    if not arguments.no_shrink and only is None:
        _shrink(result, fixed, arguments.plant)
    return 1


def _shrink(result: Any, fixed: dict[str, Any], name: str | None) -> None:
    shrunk = shrink(result, fixed, name)
    smallest = shrunk.result
    _say(f"made small in {shrunk.runs} runs: {smallest.events} events, {len(smallest.fired)} faults")
    _say(replay_command(smallest.options, shrunk.fixed, shrunk.only, name))
    if smallest.failure is not None:
        _say(f"  {smallest.failure[0]}: {smallest.failure[1]}")


def _writer(file: TextIO) -> Callable[[dict[str, Any]], None]:
    def plain(value: Any) -> Any:
        return value.decode(errors="replace") if isinstance(value, bytes) else repr(value)

    encoder = msgspec.json.Encoder(enc_hook=plain)

    def write(entry: dict[str, Any]) -> None:
        file.write(encoder.encode(entry).decode() + "\n")

    return write


def _many(arguments: argparse.Namespace, fixed: dict[str, Any]) -> int:
    total = Report(0, 0, [], {}, 0.0)
    for report in campaign(arguments.seeds, fixed, arguments.plant, arguments.processes):
        for result in report.failures:
            if len(total.failures) < _SHOWN:
                _say(story(result, fixed, arguments.plant))
                if not arguments.no_shrink:
                    _shrink(result, fixed, arguments.plant)
            total.failures.append(result)
        report.failures = []
        total.merge(report)
    broken: dict[str, int] = {}
    for result in total.failures:
        broken[result.invariant or ""] = broken.get(result.invariant or "", 0) + 1
    each = total.events / max(1, total.runs)
    _say(
        f"{total.runs} clusters, {len(total.failures)} failed {broken or ''}; "
        f"{each:.0f} events each, {total.rate:.0f} a minute on one core"
    )
    missing = total.missing() if total.runs >= _ENOUGH and arguments.plant is None and not fixed else []
    if missing:
        _say(f"vacuous: never happened: {', '.join(missing)}")
    return 1 if total.failures or missing else 0


if __name__ == "__main__":
    sys.exit(main())
