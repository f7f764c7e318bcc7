"""A seed is one history, in every process: nothing may hang on hash seeds, addresses or the order of sets."""

from __future__ import annotations

import os
import subprocess
import sys

SEEDS = 30

PROGRAM = f"""
from omnimind.testing.options import draw_options
from omnimind.testing.simulation import run
for seed in range({SEEDS}):
    result = run(draw_options(seed))
    print(seed, result.hash, result.events, len(result.fired), result.failure)
"""


def hashes(hash_seed: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_the_same_seeds_have_the_same_trace_in_four_processes() -> None:
    processes = [hashes(hash_seed) for hash_seed in ("0", "1", "2", "random")]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(outputs[0]) == SEEDS
    for lines in zip(*outputs, strict=True):
        assert len(set(lines)) == 1, "\n".join(lines)
