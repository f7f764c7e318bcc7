"""Names by which actors are found."""

from __future__ import annotations

NAMESPACE = "omnimind"
COORDINATOR = "coordinator"


def coordinator_actor(shard: int) -> str:
    """Return the name of a shard's coordinator: ``coordinator``, ``coordinator-1`` and so on."""
    return f"{COORDINATOR}-{shard}" if shard else COORDINATOR


NODE_PREFIX = "node-"


def node_actor(node_id: str) -> str:
    """Return the name of a node's actor: readable in the Ray dashboard, unique within the cluster."""
    return f"{NODE_PREFIX}{node_id[:16]}"
