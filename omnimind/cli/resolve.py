"""From what a person typed to the thing that was meant: unique prefixes, hostnames, did-you-mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from omnimind.cli.session import Session
from omnimind.cli.table import prose
from omnimind.errors import InvalidInput, NotFound

_WHOLE = re.compile(r"tsk_[0-9a-f]{32}")
_PREFIX = re.compile(r"(?:tsk_)?[0-9a-f]{1,32}")
_SHOWN = 5


def task_id(session: Session, text: str) -> str:
    """Return the one task id that begins with `text` (``tsk_`` may be left out).

    Raises NotFound when there is none, InvalidInput when there are several.
    """
    from omnimind.client.protocol import NameRequest  # noqa: PLC0415

    if _WHOLE.fullmatch(text):
        return text
    if not _PREFIX.fullmatch(text):
        raise NotFound(f"{text!r} is no task id", hint="ids look like tsk_0199…; see: omnimind task list")
    prefix = text if text.startswith("tsk_") else f"tsk_{text}"
    found = session.call("find", NameRequest(name=prefix, limit=_SHOWN + 1))
    return _only(found, text, "task", "omnimind task list")


def task_ids(session: Session, texts: Iterable[str]) -> list[str]:
    """Return the ids that were meant, each once, in the order given."""
    return list(dict.fromkeys(task_id(session, text) for text in texts))


def node_of(session: Session, text: str) -> dict[str, Any]:
    """Return the node whose id, hostname, address or unique prefix of an id this is.

    Of several on one host, the one that is not offline: a machine comes back as another node.
    """
    nodes: list[dict[str, Any]] = session.call("nodes")
    whole = [n for n in nodes if text in (n["node_id"], n["hostname"], n.get("ip_address"))]
    alive = [n for n in whole if n["status"] != "offline"]
    for found in (whole, alive):
        if len(found) == 1:
            return found[0]
    by_id = {n["node_id"]: n for n in whole or nodes if whole or n["node_id"].startswith(text)}
    names = [n["node_id"] for n in nodes] + [n["hostname"] for n in nodes]
    return by_id[_only(list(by_id), text, "node", "omnimind node list", names)]


def named(items: Sequence[dict[str, Any]], name: str, kind: str, see: str) -> dict[str, Any]:
    """Return the item of that name. Raises NotFound with names that look like it."""
    for item in items:
        if item["name"] == name:
            return item
    raise missing(name, kind, see, [item["name"] for item in items])


def missing(name: str, kind: str, see: str, names: Iterable[str] = ()) -> NotFound:
    """Return the error for a thing that does not exist, with what may have been meant."""
    return NotFound(f"there is no {kind} {name!r}", hint=did_you_mean(name, names) or f"see: {see}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question with the names that look like `name`, or nothing."""
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    tail = name.rpartition(".")[2]
    close += [n for n in known if n.rpartition(".")[2] == tail and n not in close]
    return f"did you mean {' or '.join(close[:3])}?" if close else ""


def _only(found: Sequence[str], text: str, kind: str, see: str, names: Iterable[str] = ()) -> str:
    if len(found) == 1:
        return found[0]
    if not found:
        raise missing(text, kind, see, names)
    listed = prose(", ".join(found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
    raise InvalidInput(f"{text!r} fits several {kind}s: {listed}", hint="type more of it")
