"""The suites in the order in which they run."""

from __future__ import annotations

from benchmarks import backlog, compare, core, healing, ledger, scale, shards, status
from benchmarks.settings import Suite

SUITES: tuple[Suite, ...] = (
    compare.SUITE,
    core.SUITE,
    scale.SUITE,
    shards.SUITE,
    healing.SUITE,
    backlog.SUITE,
    ledger.SUITE,
    status.SUITE,
)
