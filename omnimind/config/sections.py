"""The settings themselves: one class a section, one field a setting."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

SECONDS, BYTES = {"unit": "s"}, {"unit": "bytes"}


class RaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How Ray is started on this machine."""

    num_cpus: (
        Annotated[
            int,
            Meta(ge=1, le=4096, description="Cores that tasks may use; unset: all that this machine has."),
        ]
        | None
    ) = None
    num_gpus: (
        Annotated[int, Meta(ge=0, le=1024, description="GPUs that tasks may use; unset: all that Ray finds.")]
        | None
    ) = None
    object_store_memory: Annotated[
        int,
        Meta(
            ge=80 << 20,
            le=1 << 44,
            description="Shared memory for objects between Ray tasks; batches are small and hardly use it.",
            extra=BYTES,
        ),
    ] = 256 << 20
    node_ip: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=253,
            description="Address that Ray listens on; loopback lets nobody in from other machines.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of Ray's GCS, for nodes that join; 0: a free one.")
    ] = 0
    dashboard: Annotated[bool, Meta(description="Whether Ray's dashboard runs.")] = True
    dashboard_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of Ray's dashboard on loopback; 0: a free one.")
    ] = 0
    labels: Annotated[
        dict[str, str], Meta(description="Labels of this node, as k=v,k2=v2; tasks may ask for them.")
    ] = {}
    autoscaling_config: Annotated[
        str,
        Meta(
            max_length=4096,
            description=(
                "File by which Ray's autoscaler adds hosts; `ray up` makes ~/ray_bootstrap_config.yaml "
                "on the head. Empty: none runs."
            ),
        ),
    ] = ""
    idle_workers: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=4096,
                description="Idle worker processes kept warm, about 50 MB each; unset: twice the cores.",
            ),
        ]
        | None
    ) = None
    idle_worker_seconds: Annotated[
        float,
        Meta(ge=0, le=86400, description="How long an idle worker beyond those is kept.", extra=SECONDS),
    ] = 60.0
    gcs_storage: Annotated[
        str,
        Meta(
            pattern="^(auto|memory|rocksdb|redis)$",
            description=(
                "Where Ray's GCS keeps what it knows, so that the other hosts outlive the head's Ray: "
                "memory (nowhere), rocksdb (in the home), redis; auto: memory on loopback, else rocksdb."
            ),
        ),
    ] = "auto"
    gcs_redis: Annotated[
        str,
        Meta(
            max_length=253,
            description="Address of the Redis for ray.gcs_storage=redis, as host:port.",
        ),
    ] = ""


class InstanceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance starts and stops."""

    start_timeout: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Within this time it must take work, or the start fails.",
            extra=SECONDS,
        ),
    ] = 60.0
    stop_timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Time that the coordinator, and then Ray, get to end by themselves.",
            extra=SECONDS,
        ),
    ] = 10.0
    min_free_disk: Annotated[
        int,
        Meta(ge=0, le=1 << 44, description="With less free space it does not start.", extra=BYTES),
    ] = 64 << 20


class CoordinatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the coordinator places, watches and repeats work; most are fields of `policies.CoreLimits`."""

    strategy: Annotated[
        str,
        Meta(
            pattern="^(least_loaded|round_robin|random|ray)$",
            description="How a node is chosen: least_loaded, round_robin, random, or ray (leave it to Ray).",
        ),
    ] = "least_loaded"
    slots: (
        Annotated[
            int, Meta(ge=1, le=65536, description="Attempts that a node runs at one time; unset: its cores.")
        ]
        | None
    ) = None
    window: Annotated[
        int, Meta(ge=1000, le=5_000_000, description="Live tasks in memory; the rest waits on disk.")
    ] = 50_000
    ageing: Annotated[
        float,
        Meta(
            ge=1,
            le=604_800,
            description="A waiting task rises by one priority class in this time.",
            extra=SECONDS,
        ),
    ] = 300.0
    batch_seconds: Annotated[
        float, Meta(ge=0.001, le=10, description="How long a batch of tasks should run.", extra=SECONDS)
    ] = 0.05
    batch_max: Annotated[int, Meta(ge=1, le=65536, description="Most tasks in one batch.")] = 256
    heartbeat_timeout: Annotated[
        float,
        Meta(ge=1.5, le=3600, description="A node silent for so long is given up.", extra=SECONDS),
    ] = 5.0
    suspect_after: Annotated[
        float,
        Meta(ge=1.1, le=3600, description="A node silent for so long gets no more work.", extra=SECONDS),
    ] = 2.0
    keep_offline: Annotated[
        float,
        Meta(
            ge=0,
            le=3.2e9,
            description="How long a node stays listed that is gone (of the newest 100).",
            extra=SECONDS,
        ),
    ] = 3600.0
    cancel_grace: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Time between asking a handler to stop and killing its worker.",
            extra=SECONDS,
        ),
    ] = 10.0
    nodes: Annotated[
        dict[str, str],
        Meta(
            description=(
                "Labels of the nodes on which the coordinator may run, as k=v,k2=v2; "
                "needs a ledger in PostgreSQL; unset: the head."
            )
        ),
    ] = {}
    shards: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            description=(
                "Coordinators that share the queues between them, each with a ledger of its own; "
                "queues that change their shard are moved at the next start."
            ),
        ),
    ] = 1
    max_deaths: Annotated[
        int, Meta(ge=1, le=1000, description="Worker deaths that put a task into the dead letters.")
    ] = 3


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long the ledger keeps what has ended: until the first bound is reached."""

    age: Annotated[
        float,
        Meta(ge=60, le=3.2e9, description="Keep an ended task for so long.", extra=SECONDS),
    ] = 7 * 86400.0
    tasks: Annotated[int, Meta(ge=1000, le=10**9, description="Most ended tasks to keep.")] = 1_000_000


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ledger is. A password never stands here: it would be seen in logs and process lists."""

    url: Annotated[
        str,
        Meta(
            max_length=4096,
            description="Empty: a SQLite file in OMNIMIND_HOME; else postgresql://user@host:5432/database.",
        ),
    ] = ""
    password_file: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File with the database's password; empty: PGPASSWORD, PGPASSFILE or ~/.pgpass.",
        ),
    ] = ""
    connect_timeout: Annotated[
        float,
        Meta(ge=1, le=600, description="Time to reach the database, for each of its hosts.", extra=SECONDS),
    ] = 5.0
    silence_timeout: Annotated[
        float,
        Meta(
            ge=1,
            le=600,
            description="A database whose host does not answer for so long is given up.",
            extra=SECONDS,
        ),
    ] = 5.0
    statement_timeout: Annotated[
        float,
        Meta(
            ge=1, le=3600, description="A statement that takes longer is given up and undone.", extra=SECONDS
        ),
    ] = 30.0
