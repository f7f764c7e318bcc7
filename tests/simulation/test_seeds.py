"""Thousands of simulated clusters. A failure prints the one command that replays it.

`make test-fast` sets OMNIMIND_TEST_SEEDS and runs that many fixed seeds. `make test` runs 5,000 fixed
ones and 2,000 that are fresh for each commit, so that every commit looks at histories nobody has seen.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from omnimind.testing.campaign import Report, campaign, story

ROOT = Path(__file__).parents[2]
FIXED = 5_000
FRESH = 2_000
PROCESSES = 2


def chosen() -> int | None:
    text = os.environ.get("OMNIMIND_TEST_SEEDS")
    return None if text is None else int(text)


def simulate(seeds: range) -> Report:
    total = Report(0, 0, [], {}, 0.0)
    for report in campaign(seeds, processes=PROCESSES):
        total.merge(report)
    print(f"{total.runs} clusters, {total.rate:.0f} a minute on one core")
    if total.failures:
        stories = "\n".join(story(result, {}) for result in total.failures[:5])
        pytest.fail(f"{len(total.failures)} of {total.runs} clusters failed\n{stories}", pytrace=False)
    return total


def base_of_this_commit() -> int:
    """Return the first fresh seed: the commit's hash, or the sources' where there is no repository."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    name = found.stdout.strip()
    if found.returncode != 0:
        digest = hashlib.sha256()
        for path in sorted((ROOT / "omnimind").rglob("*.py")):
            digest.update(path.read_bytes())
        name = digest.hexdigest()
    return int(name[:10], 16)


@pytest.mark.timeout(600)
def test_fixed_seeds() -> None:
    total = simulate(range(chosen() or FIXED))
    assert total.missing() == [], "these never happened, so nothing was tested about them"


@pytest.mark.timeout(600)
def test_fresh_seeds() -> None:
    # A fast run looks at a few; the fixed ones are its proof.
    count = FRESH if chosen() is None else 20
    base = base_of_this_commit()
    print(f"fresh seeds {base}:{base + count}")
    simulate(range(base, base + count))
