"""A campaign in which a fault or a refusal never happened has not tested it, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnimind.testing.campaign import Report, campaign
from omnimind.testing.coverage import REQUIRED, Coverage
from omnimind.testing.options import FAULTS

SEEDS = range(120)


def covered(fixed: Mapping[str, Any]) -> Report:
    total = Report(0, 0, [], {}, 0.0)
    for report in campaign(SEEDS, fixed):
        total.merge(report)
    return total


def test_without_faults_the_campaign_is_vacuous() -> None:
    report = covered(dict.fromkeys(FAULTS, 0.0))
    assert not report.failures
    missing = report.missing()
    assert {f"fault_{kind}" for kind in ("loss", "crash", "pause", "raises", "jump")} <= set(missing)
    assert {"stale_outcome", "adopted", "nodes_lost", "refused_ledger_full"} <= set(missing)


def test_one_class_that_is_off_is_named() -> None:
    report = covered({"disk_full": 0.0, "disk_tight": 0.0})
    missing = report.missing()
    assert "fault_disk_full" in missing
    assert "refused_ledger_full" in missing
    assert "fault_loss" not in missing


def test_every_required_counter_can_be_missing() -> None:
    assert Coverage().missing() == list(REQUIRED)


def test_a_full_campaign_misses_nothing() -> None:
    counts = Coverage()
    counts.merge(dict.fromkeys(REQUIRED, 1))
    assert counts.missing() == []
