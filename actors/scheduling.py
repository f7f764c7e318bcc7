"""What a batch asks of Ray's scheduler."""

from __future__ import annotations

from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from omnimind.cluster.sends import Batch


def ray_options(batch: Batch, node_id: str) -> dict[str, Any]:
    """Return the options of a batch's Ray task, owned by the node `node_id`.

    The node is a hint (soft affinity): when others have taken its CPUs, Ray may run the batch elsewhere.
    The name is what the Ray dashboard shows.
    """
    options, count = batch.options, len(batch.items)
    chosen: dict[str, Any] = {
        "name": f"{batch.task_type} x{count}" if count > 1 else batch.task_type,
        "num_cpus": options.num_cpus,
        "scheduling_strategy": "SPREAD",
    }
    if options.num_gpus:
        chosen["num_gpus"] = options.num_gpus
    if options.memory:
        chosen["memory"] = options.memory
    if batch.strategy == "affinity":
        chosen["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=True)
    return chosen
