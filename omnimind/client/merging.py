"""How the answers of several shards become one answer. Pure."""

from __future__ import annotations

from collections.abc import Callable
from heapq import merge as merge_sorted
from typing import Any

import msgspec

from omnimind.client.protocol import IdsRequest, NameRequest
from omnimind.errors import InvalidInput

DONE = -1
"""A shard's part of a cursor when there is nothing more of it."""
_AUDIT_MOST = 500

Answers = list[Any]


def merge(method: str, answers: Answers, body: bytes) -> Any:
    """Return one answer to a method, of those of the shards that were asked, in their order."""
    return _MERGERS[method](answers, body)


def _dicts(answers: Answers, _body: bytes) -> dict[str, Any]:
    return {key: value for answer in answers for key, value in answer.items()}


def _chained(answers: Answers, _body: bytes) -> list[Any]:
    return [item for answer in answers for item in answer]


def _by(field: str) -> Callable[[Answers, bytes], list[Any]]:
    def merger(answers: Answers, body: bytes) -> list[Any]:
        return sorted(_chained(answers, body), key=lambda item: item[field])

    return merger


def _tasks(answers: Answers, body: bytes) -> list[Any]:
    """Return the tasks in the order in which they were asked for."""
    found = {task["task_id"]: task for answer in answers for task in answer}
    return [found[i] for i in msgspec.msgpack.decode(body, type=IdsRequest).ids]


def _ids(answers: Answers, body: bytes) -> list[str]:
    limit = msgspec.msgpack.decode(body, type=NameRequest).limit
    return sorted({i for answer in answers for i in answer})[:limit]


def _register(answers: Answers, _body: bytes) -> dict[str, Any]:
    missing = dict.fromkeys(digest for answer in answers for digest in answer["missing"])
    return {"digest": answers[0]["digest"], "missing": list(missing)}


def _handlers(answers: Answers, _body: bytes) -> list[Any]:
    found: dict[str, Any] = {}
    for answer in answers:
        for handler in answer:
            found.setdefault(handler["task_type"], handler)
    return [found[name] for name in sorted(found)]


def _check(answers: Answers, _body: bytes) -> list[str]:
    return [f"shard {n}: {sentence}" for n, answer in enumerate(answers) for sentence in answer]


def _audit(answers: Answers, _body: bytes) -> list[Any]:
    return sorted(_chained(answers, b""), key=lambda entry: -entry["at"])[:_AUDIT_MOST]


def _metrics(answers: Answers, _body: bytes) -> dict[str, float]:
    found: dict[str, float] = {"shards": len(answers)}
    for answer in answers:
        for name, value in answer.items():
            found[name] = max(found.get(name, 0), value) if name == "epoch" else found.get(name, 0) + value
    return found


def _ping(answers: Answers, _body: bytes) -> dict[str, float]:
    return {"now": answers[0]["now"]}


def _sum(counts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for count in counts:
        for name, value in count.items():
            found[name] = found.get(name, 0) + value
    return found


def _usage(answers: Answers, _body: bytes) -> dict[str, Any]:
    pruned = [a["pruned_before"] for a in answers if a["pruned_before"] is not None]
    return {
        "by_status": _sum([a["by_status"] for a in answers]),
        "by_queue": {queue: lines for a in answers for queue, lines in a["by_queue"].items()},
        "bytes": sum(a["bytes"] for a in answers),
        "pruned": sum(a["pruned"] for a in answers),
        "pruned_before": max(pruned, default=None),
        **{k: v for k, v in answers[0].items() if k not in _USAGE},
    }


_USAGE = ("by_status", "by_queue", "bytes", "pruned", "pruned_before")
_WORST = ("offline", "suspect", "draining", "cordoned", "degraded", "busy", "active")


def _node(answers: Answers, _body: bytes = b"") -> dict[str, Any]:
    """Return a node as all shards together see it: its slots are shared between them."""
    first: dict[str, Any] = answers[0]
    slots = first.get("slots") or first["max_concurrent_tasks"]
    taken = min(slots, sum(a["current_tasks"] for a in answers))
    statuses = {a["status"] for a in answers}
    status = next((s for s in _WORST if s in statuses), first["status"])
    if statuses <= {"busy", "active"}:
        # Busy for one shard is only that its share is taken.
        status = "busy" if taken >= slots else "active"
    merged = first | {
        "status": status,
        "max_concurrent_tasks": slots,
        "current_tasks": taken,
        "load_factor": taken / slots if slots else 1.0,
        "total_tasks_completed": sum(a["total_tasks_completed"] for a in answers),
        "last_heartbeat": min(a["last_heartbeat"] for a in answers),
    }
    if "attempts" in first:
        merged["attempts"] = _chained([a["attempts"] for a in answers], b"")
    return merged


def _nodes(answers: Answers, _body: bytes = b"") -> list[Any]:
    by_id: dict[str, list[Any]] = {}
    for answer in answers:
        for node in answer:
            by_id.setdefault(node["node_id"], []).append(node)
    return [_node(seen) for seen in by_id.values()]


def _node_control(answers: Answers, _body: bytes) -> dict[str, Any]:
    statuses = {a["status"] for a in answers}
    status = next((s for s in _WORST if s in statuses), answers[0]["status"])
    first: dict[str, Any] = answers[0]
    return first | {"attempts": sum(a["attempts"] for a in answers), "status": status}


def _status(answers: Answers, _body: bytes) -> dict[str, Any]:
    nodes = _nodes([a["nodes"] for a in answers])
    alive = [n for n in nodes if n["status"] != "offline"]
    capacity = sum(n["max_concurrent_tasks"] for n in alive)
    load = sum(n["current_tasks"] for n in alive)
    first: dict[str, Any] = answers[0]
    return first | {
        "total_nodes": len(nodes),
        "active_nodes": sum(n["status"] in ("active", "busy") for n in nodes),
        "offline_nodes": len(nodes) - len(alive),
        "total_capacity": capacity,
        "current_load": load,
        "load_percentage": 100.0 * load / capacity if capacity else 0.0,
        "pending_tasks": sum(a["pending_tasks"] for a in answers),
        "running_tasks": sum(a["running_tasks"] for a in answers),
        "nodes": nodes,
        "tasks": _sum([a["tasks"] for a in answers]),
        "trouble": next((a["trouble"] for a in answers if a["trouble"]), None),
        "shards": [a["coordinator"] for a in answers],
    }


def _explain(answers: Answers, _body: bytes) -> dict[str, Any]:
    """Return why a node is as it is, shard by shard."""
    first: dict[str, Any] = answers[0]
    facts = first["facts"] | {
        name: sum(a["facts"][name] for a in answers) for name in ("batches", "running_attempts", "completed")
    }
    verdict = "; ".join(f"shard {n}: {a['verdict']}" for n, a in enumerate(answers))
    return first | {"facts": facts, "verdict": verdict}


def _nothing(_answers: Answers, _body: bytes) -> None:
    return None


_MERGERS: dict[str, Callable[[Answers, bytes], Any]] = {
    "tasks": _tasks,
    **dict.fromkeys(("cancel", "retry", "replay", "discard"), _dicts),
    "find": _ids,
    "queues": _by("name"),
    "schedules": _by("name"),
    "register": _register,
    "blob_put": _nothing,
    "handlers": _handlers,
    "check": _check,
    "audit": _audit,
    "metrics": _metrics,
    "ping": _ping,
    "usage": _usage,
    "node": _node,
    "nodes": _nodes,
    "node_control": _node_control,
    "status": _status,
    "explain": _explain,
    "states": _chained,
    "exists": _dicts,
}


# ------------------------------------------------------------------------------------------------ listings


def cursors_of(cursor: int | str | None, shards: int) -> list[int | None]:
    """Return each shard's own cursor. Raises InvalidInput for one that is none, or of other shards."""
    if cursor is None:
        return [None] * shards
    try:
        parts = [int(part) if part else None for part in str(cursor).split(".")]
    except ValueError:
        parts = []
    if len(parts) != shards:
        hint = "begin the listing again: the number of shards has changed"
        raise InvalidInput(f"{cursor!r} is no cursor of {shards} shards", field="cursor", hint=hint)
    return parts


def page(
    pages: dict[int, dict[str, Any]], cursors: list[int | None], limit: int, *, numbered: bool
) -> dict[str, Any]:
    """Return the page that several shards' pages make, the newest task first."""

    def tagged(shard: int) -> list[tuple[float, int, dict[str, Any]]]:
        return [(-item["created_at"], shard, item) for item in pages[shard]["items"]]

    merged = list(merge_sorted(*(tagged(s) for s in pages), key=lambda entry: entry[:2]))
    taken = merged[:limit]
    after = list(cursors)
    for shard, answer in pages.items():
        mine = [item for _, s, item in taken if s == shard]
        if len(mine) == len(answer["items"]):
            after[shard] = DONE if answer["next"] is None else answer["next"]
        elif mine:
            after[shard] = mine[-1]["seq"]
    items = [item for _, _, item in taken]
    if not numbered:
        for item in items:
            item.pop("seq", None)
    over = all(part == DONE for part in after)
    befores = [b for a in pages.values() if (b := a["truncated_before"]) is not None]
    return {
        "items": items,
        "next": None if over else ".".join("" if part is None else str(part) for part in after),
        "truncated_before": max(befores, default=None) if over else None,
    }
