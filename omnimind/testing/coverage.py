"""`Coverage`: what a campaign has really seen. What never happened was not tested: the run is vacuous."""

from __future__ import annotations

from collections.abc import Mapping

REQUIRED = (
    # each fault class fired
    "fault_loss", "fault_duplicate", "fault_slow", "fault_cut", "fault_crash", "fault_pause",
    "fault_kill_worker", "fault_coordinator_before", "fault_coordinator_after", "fault_disk_full",
    "fault_disk_error", "fault_disk_tight", "fault_disk_unknown", "fault_stall", "fault_jump", "fault_raises",
    "fault_poison",
    # faults hit live work
    "node_crash_with_work", "pause_with_work", "coordinator_crash_with_work", "worker_death_with_mates",
    "message_lost_in_cut", "zombie_coordinator", "stalls",
    # what the code under test did about it
    "refused_queue_full", "refused_ledger_full", "refused_ledger_unavailable", "refused_key_conflict",
    "answered_existing_key", "submission_resent_after_commit", "stale_outcome", "adopted", "retries",
    "lost", "nodes_lost", "refused_writer", "batch_of_many", "outcome_resent", "rerun_after_loss",
    "retry_after_restart", "fence_race", "spilled", "loaded_ready", "loaded_delayed", "expired",
    "cancelled_waiting", "cancelled_running", "dead", "dependency_failed", "dependency_completed",
    "at_most_once_lost", "checkpoint_taken_up", "checkpoint_refused", "queue_paused", "drained",
    "scheduled", "node_fenced", "overdue_on_disk",
    # the checks that only some runs make
    "fairness_checked", "ageing_checked",
)  # fmt: skip
"""Counters of which each must be above 0 over a campaign of 300 seeds or more."""


class Coverage:
    """Counters by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, name: str, by: int = 1) -> None:
        """Count something that happened."""
        if by:
            self.counts[name] = self.counts.get(name, 0) + by

    def merge(self, other: Mapping[str, int]) -> None:
        """Add another run's counters."""
        for name, count in other.items():
            self.add(name, count)

    def missing(self) -> list[str]:
        """Return the required counters that are still 0."""
        return [name for name in REQUIRED if not self.counts.get(name)]
