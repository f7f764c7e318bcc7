"""What Ray knows of its nodes and its autoscaler, and what it is asked.

All of them block, so they run in a `Lane`. Where Ray has no public way its own command line's way is gone:
`ray drain-node` and `ray status` use the same calls.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import ray
import yaml
from ray.autoscaler.sdk import request_resources
from ray.core.generated import autoscaler_pb2
from ray.experimental import internal_kv

from omnimind.cluster.elastic import Ask, NodeType

log = logging.getLogger("omnimind.coordinator")

_TIMEOUT = 10
_HEAD = "node:__internal_head__"
_STATUS_KEY = "__autoscaling_status"
_PREEMPTION = "DRAIN_NODE_REASON_PREEMPTION"


class RayNode(NamedTuple):
    """One living Ray node. kind: its type for the autoscaler, empty when nobody scales it.

    deadline: Unix seconds at which a node that Ray drains will be ended, None when that is not said.
    """

    node_id: str
    kind: str
    head: bool
    draining: bool
    deadline: float | None


class Seen(NamedTuple):
    """What one look has found. scaled: whether an autoscaler has reported to this cluster."""

    nodes: dict[str, RayNode]
    scaled: bool


def look() -> Seen:
    """Ask the GCS for its nodes, with their kinds, and whether one of them is being drained."""
    client: Any = _gcs()
    reply: Any = autoscaler_pb2.GetClusterResourceStateReply()  # type: ignore[attr-defined]
    reply.ParseFromString(client.get_cluster_resource_state(timeout_s=_TIMEOUT))
    state = reply.cluster_resource_state
    statuses: Any = autoscaler_pb2.NodeStatus  # type: ignore[attr-defined]
    dead, draining = statuses.Value("DEAD"), statuses.Value("DRAINING")
    found: dict[str, RayNode] = {}
    deadlines: dict[str, int] = {}
    if any(node.status == draining for node in state.node_states):
        deadlines = ray._private.state.state.get_draining_nodes()  # noqa: SLF001 (Ray has no public way)
    for node in state.node_states:
        if node.status == dead:
            continue
        node_id = node.node_id.hex()
        deadline = deadlines.get(node_id, 0)
        found[node_id] = RayNode(
            node_id,
            node.ray_node_type_name,
            _HEAD in node.total_resources,
            node.status == draining,
            deadline / 1000 if deadline else None,
        )
    scaled = state.last_seen_autoscaler_state_version > 0 or internal_kv._internal_kv_exists(_STATUS_KEY)  # noqa: SLF001
    return Seen(found, bool(scaled))


def drain(node_id: str, reason: str) -> str:
    """Let Ray keep everything away from a node, for good; return why it refuses, or an empty text.

    As "preemption", which Ray may not refuse. The raylet ends by itself once nothing holds it: neither a
    task nor an actor. There is no way back: Ray has no call that ends a drain.
    """
    accepted, why = _gcs().drain_node(
        node_id,
        autoscaler_pb2.DrainNodeReason.Value(_PREEMPTION),  # type: ignore[attr-defined]
        reason[:500],
        0,
        timeout=_TIMEOUT,
    )
    return "" if accepted else str(why)


def ask(request: Ask) -> None:
    """Make a request to the autoscaler; it stands until the next one, also when this process ends."""
    bundles: list[dict[str, float]] = []
    selectors: list[dict[str, str]] = []
    for bundle, count in request.bundles:
        bundles += [dict(bundle.resources)] * count
        selectors += [dict(bundle.labels)] * count
    # Without bundles it is an empty request, which withdraws the one before it.
    request_resources(bundles=bundles, bundle_label_selectors=selectors or None)


def node_types(path: Path) -> list[NodeType]:
    """Return the kinds of nodes that an autoscaling configuration may start; none, with a warning, if bad.

    A list of fixed hosts (provider ``local``) has no kinds: nobody can add to it.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        head = config.get("head_node_type")
        return [
            NodeType(
                str(name),
                {str(r): float(amount) for r, amount in (kind.get("resources") or {}).items()},
                {str(k): str(v) for k, v in (kind.get("labels") or {}).items()},
                int(kind.get("min_workers") or 0),
                None if kind.get("max_workers") is None else int(kind["max_workers"]),
            )
            for name, kind in (config.get("available_node_types") or {}).items()
            if name != head and kind.get("max_workers") != 0
        ]
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        log.warning("%s cannot be read as an autoscaling configuration: %s", path, error)
        return []


def _gcs() -> Any:
    worker: Any = ray._private.worker.global_worker  # noqa: SLF001 (as Ray's own command line does)
    return worker.gcs_client
