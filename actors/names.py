"""Names by which actors are found."""

from __future__ import annotations

NAMESPACE = "omnimind"
COORDINATOR = "coordinator"


def node_actor(node_id: str) -> str:
    """Return the name of a node's actor: readable in the Ray dashboard, unique within the cluster."""
    return f"node-{node_id[:16]}"
