"""What the Coordinator is started with."""

from __future__ import annotations

import msgspec

from omnimind.cluster.policies import CoreLimits
from omnimind.config.elastic import ElasticSettings
from omnimind.config.sections import LedgerSettings


class CoordinatorSettings(msgspec.Struct, frozen=True):
    """What a coordinator is started with. Times in seconds."""

    home: str
    socket: str
    """Of shard 0; the others' lie beside it: see `instance.shard_socket`."""
    token_file: str
    strategy: str = "least_loaded"
    slots: int | None = None
    nodes: dict[str, str] = {}
    """Labels of the nodes on which it may run; empty: on the head."""
    limits: CoreLimits = CoreLimits()
    keep_seconds: float = 7 * 86_400.0
    keep_tasks: int = 1_000_000
    ledger: LedgerSettings = LedgerSettings()
    elastic: ElasticSettings = ElasticSettings()
    autoscaling_config: str = ""
    """File of the Ray autoscaler, where the kinds of nodes are read; empty: they are not known."""
    api_url: str = ""
    """Where the HTTP API listens, empty when there is none."""
    shards: int = 1
    shard: int = 0
    """Which of the shards this coordinator is. Shard 0 also makes the Node actors."""
