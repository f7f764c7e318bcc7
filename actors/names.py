"""Names by which actors are found."""

from __future__ import annotations

NAMESPACE = "omnimind"
COORDINATOR = "coordinator"


def coordinator_actor(shard: int) -> str:
    """Return the name of a shard's coordinator: ``coordinator``, ``coordinator-1``, …"""
    return f"{COORDINATOR}-{shard}" if shard else COORDINATOR


def node_actor(node_id: str) -> str:
    """Return the name of a node's actor: readable in the Ray dashboard, unique within the cluster."""
    return f"node-{node_id[:16]}"
