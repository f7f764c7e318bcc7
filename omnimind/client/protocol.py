"""The methods of a coordinator: names, requests and answers, the same over every transport.

A call is a method name and a body (msgpack of the request); the answer is a body (msgpack), or a
problem document that `errors.from_problem` turns into the error again. On a unix socket a frame is a
4-byte big-endian length and ``[id, method, body]`` there, ``[id, ok, body]`` back, in any order of ids;
the first call must be `hello`.

Tasks in answers are the dicts of `DistributedTask.to_dict`, with `payload` and `result` as bytes in
`payload_encoding` and `result_encoding` (``json`` or ``pickle``), besides ``attempts`` where asked for.
"""

from __future__ import annotations

from typing import Any

import msgspec

from omnimind.cluster.policies import QueuePolicy

VERSION = 1
MAX_FRAME = 64 << 20
PAYLOAD_MAX = 256 << 10
RESULT_MAX = 1 << 20


class Hello(msgspec.Struct):
    """Method `hello`. Answer: {"version", "omnimind", "epoch", "pid", "shard", "shards"}."""

    token: str
    version: int = VERSION


class SubmitRequest(msgspec.Struct):
    """Method `submit`: one slab of tasks of one type. Answer: `SubmitAnswer`.

    slab: base of the ids (`ids.new_slab`); sent again after a break, it is recognised.
    task_type: a registered type; its handler record gives every default that is None here.
    handler: digest of the handler's record; None takes the type's current one.
    payloads: one bytes a task, in `encoding`. keys: idempotency keys, one a task, or None.
    priority: 1 to 10. delay: seconds from now; not_before and deadline: Unix seconds; ttl: a deadline as
    seconds from now. watch: the caller will ask for these results (see `WatchRequest`).
    """

    slab: str
    task_type: str
    payloads: list[bytes]
    encoding: str = "json"
    handler: str | None = None
    keys: list[str | None] | None = None
    priority: int | None = None
    queue: str | None = None
    needs: list[str] | None = None
    max_retries: int | None = None
    timeout: float | None = None
    not_before: float | None = None
    delay: float | None = None
    deadline: float | None = None
    ttl: float | None = None
    after: list[str] = msgspec.field(default_factory=list)
    at_most_once: bool | None = None
    options: dict[str, Any] | None = None
    """Overrides of `TaskOptions` fields (retry_base, non_retryable, num_cpus, …)."""
    watch: bool = False
    actor: str = ""
    """Who submits, for the audit."""


class SubmitAnswer(msgspec.Struct):
    """count: tasks accepted. existing: index -> id of the task that stood under the same key already."""

    count: int
    existing: dict[int, str]


class WatchRequest(msgspec.Struct):
    """Method `watch`: wait until some of these tasks have ended. Answer: `WatchAnswer`.

    Answers when all have ended, or `linger` seconds after the first one has, or after `timeout`.
    Of large results it holds some 16 MiB; what is left is asked for again.
    Tasks answered once are not answered again unless asked for again. An unknown id raises NotFound,
    a pruned one Pruned.
    """

    ids: list[str]
    timeout: float = 30.0
    linger: float = 0.0


class Result(msgspec.Struct, array_like=True):
    """How one task ended. value: bytes in `encoding` when status is ``completed``."""

    task_id: str
    status: str
    value: bytes | None
    encoding: str
    error: dict[str, Any] | None
    cause: str


class WatchAnswer(msgspec.Struct):
    """Results so far, in order of completion."""

    results: list[Result]


class HandlerRequest(msgspec.Struct):
    """Method `register`: a handler's record (`registry.HandlerSpec`, JSON), with the blobs it needs.

    Answer: {"digest", "missing": digests of blobs to send with `blob_put`}.
    """

    spec: bytes


class BlobRequest(msgspec.Struct):
    """Methods `blob_get` (answer: bytes) and `blob_put` (answer: null)."""

    digest: str
    data: bytes | None = None


class IdsRequest(msgspec.Struct):
    """Methods on tasks by id.

    `tasks` (answer: list of tasks), `cancel` (id -> what was done), `retry` (id -> new id), `replay` (dead
    letters, likewise) and `discard` (id -> what was done).

    Between shards: `states` (answer: [id, status, cause] of those that are here) and `exists` (id -> ``yes``,
    ``no`` or ``undecided``: see `actors.keys`).

    What was done by `cancel` is ``cancelled`` (it was waiting), ``cancelling`` (it runs, and was asked to
    stop) or the status in which it had ended before. An unknown id raises NotFound.

    plan: say what would be done, do nothing. actor and reason go to the audit.
    """

    ids: list[str]
    plan: bool = False
    actor: str = ""
    reason: str = ""


class ClaimRequest(msgspec.Struct):
    """Method `claim`, between shards: let each key stand for a task, unless it stands for another one.

    wants: (key, task id, digest of the payload). Answer: [id, digest] for each, of the task for which the
    key stands now; or null: come again, another submission with one of the keys is under way.
    """

    wants: list[tuple[str, str, bytes]]


class NameRequest(msgspec.Struct):
    """Methods on one thing by name or id.

    `explain` (task or node): {"kind": task or node, "id", "status", "verdict": one sentence,
    "facts": {name: value}, "checks": [{"node", "check", "ok", "detail"}], "story": [{"at", "what"}]}.
    `progress`: {"status", "progress": the last value the handler reported or None, "at"}.
    `attempts`: list of the attempts that did not succeed, oldest first, as dicts of `ATTEMPT_COLUMNS`
    with `error` as a dict.
    `find` (ids of tasks by prefix): list of at most `limit` ids.
    `node`: the node as in `nodes`, and "attempts": [{"task_id", "task_type", "started_at"}].
    `schedule`: the schedule as in `schedules`. `schedule_run`: {"task_id"}.
    `schedule_pause`, `schedule_resume`, `schedule_remove`, `queue_remove`: the thing as it was listed.
    """

    name: str
    plan: bool = False
    actor: str = ""
    reason: str = ""
    limit: int = 20


class ListRequest(msgspec.Struct):
    """Method `list`: tasks without payload and result, newest first.

    Answer: {"items", "next": cursor or None, "truncated_before": Unix seconds or None}.
    """

    status: list[str] | None = None
    queue: str | None = None
    task_type: str | None = None
    node: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: int | str | None = None
    """Of one shard: a number. Of several: what `routing` made of their numbers."""
    limit: int = 50
    numbered: bool = False
    """Whether each task is to say its number, `seq`, by which listings of shards are put together."""


class LogsRequest(msgspec.Struct):
    """Method `logs`: lines beyond `after`. Answer: list of [number, Unix seconds, level, text]."""

    task_id: str
    after: int = 0
    limit: int = 500


class QueueRequest(msgspec.Struct):
    """Method `queue_set`. Answer: the queue as in `queues`."""

    policy: QueuePolicy
    plan: bool = False
    actor: str = ""


class ScheduleRequest(msgspec.Struct):
    """Method `schedule_set`: submit `task` (one payload, empty slab) at each time. Answer: the schedule."""

    name: str
    task: SubmitRequest
    cron: str | None = None
    interval: float | None = None
    timezone: str = "UTC"
    paused: bool = False
    plan: bool = False
    actor: str = ""


class NodeRequest(msgspec.Struct):
    """Method `node_control`: verb ``cordon``, ``drain`` (deadline in seconds from now) or ``uncordon``.

    Answer: {"node", "attempts": running attempts that are affected, "status"}.
    """

    node_id: str
    verb: str
    deadline: float | None = None
    plan: bool = False
    actor: str = ""
    reason: str = ""


class TokenRequest(msgspec.Struct):
    """Method `token_create`. Answer: the token as in `tokens` and, this once, "secret".

    role: viewer, submitter, operator or admin. expires_in: seconds from now, None: never.
    """

    name: str
    role: str
    expires_in: float | None = None
    plan: bool = False
    actor: str = ""


class TokensUsed(msgspec.Struct):
    """Method `tokens_used`: when tokens were last used (id -> Unix seconds). Answer: null."""

    used: dict[str, float]


class Empty(msgspec.Struct):
    """Methods without a request.

    `status`: `get_cluster_status` with "coordinator": {"pid", "node_id", "epoch", "started_at"}, "tasks":
    {status: count} (of ended tasks those that ended since this coordinator started; `usage` counts all)
    and, where there is an API, "api": {"url"}.
    `queues`: list of `QueuePolicy` as dicts with "ready", "delayed", "waiting", "running" and "oldest" (when
    the longest waiting ready task was submitted, or None).
    `schedules`: list of dicts: name, task_type, queue, cron, interval, timezone, paused, next_run,
    last_run, runs.
    `nodes`: list of `NodeInfo.to_dict`. `handlers`: list of `HandlerSpec` as dicts with "digest".
    `usage`: `ledger.Usage` as a dict. `check` (ledger integrity): list of sentences, empty when all is well.
    `audit`: list of {"at", "actor", "verb", "subject", "detail"}, newest first.
    `tokens`: list of {"token_id", "name", "role", "digest", "created_at", "created_by", "expires_at",
    "revoked_at", "last_used_at"}. `token_revoke` (a `NameRequest`, by id or name) answers one of them.
    `ping`: {"now": Unix seconds}.
    `metrics`: {name: number}. `shutdown`: null.
    """


METHODS: dict[str, type[msgspec.Struct]] = {
    "hello": Hello,
    "submit": SubmitRequest,
    "watch": WatchRequest,
    "register": HandlerRequest,
    "blob_get": BlobRequest,
    "blob_put": BlobRequest,
    "tasks": IdsRequest,
    "cancel": IdsRequest,
    "retry": IdsRequest,
    "replay": IdsRequest,
    "discard": IdsRequest,
    "states": IdsRequest,
    "exists": IdsRequest,
    "claim": ClaimRequest,
    "explain": NameRequest,
    "progress": NameRequest,
    "attempts": NameRequest,
    "find": NameRequest,
    "queue_remove": NameRequest,
    "schedule": NameRequest,
    "schedule_remove": NameRequest,
    "schedule_run": NameRequest,
    "schedule_pause": NameRequest,
    "schedule_resume": NameRequest,
    "node": NameRequest,
    "list": ListRequest,
    "logs": LogsRequest,
    "queue_set": QueueRequest,
    "schedule_set": ScheduleRequest,
    "node_control": NodeRequest,
    "token_create": TokenRequest,
    "token_revoke": NameRequest,
    "tokens_used": TokensUsed,
    "tokens": Empty,
    "ping": Empty,
    "status": Empty,
    "queues": Empty,
    "schedules": Empty,
    "nodes": Empty,
    "handlers": Empty,
    "usage": Empty,
    "check": Empty,
    "audit": Empty,
    "metrics": Empty,
    "shutdown": Empty,
}

encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Any:
    """Return an answer's value as plain builtins."""
    return msgspec.msgpack.decode(data)
