"""The checks of `omnimind doctor` that look at the cluster: one function a check, each returning a `Finding`.

A check reads; only a finding's `fix` changes anything, and it does only what cannot lose work. What each
check needs is gathered once, in `Facts`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from omnimind.cli.findings import ERROR, OK, SKIPPED, WARNING, Facts, Finding, Fix
from omnimind.cli.nodes import missing
from omnimind.cli.status import ledger_line
from omnimind.errors import OmniMindError, Unavailable

SKEW_WARNING, SKEW_ERROR = 0.5, 2.0
"""Seconds: deadlines and not-before times are kept by each machine's own clock."""


def coordinator(facts: Facts) -> Finding:
    """Whether the coordinator answers."""
    if isinstance(facts.status, OmniMindError):
        if facts.record is None and isinstance(facts.status, Unavailable):
            return Finding("coordinator", SKIPPED, f"no instance runs in {facts.paths.home}")
        return Finding(
            "coordinator",
            ERROR,
            f"it does not answer: {facts.status.message}",
            "nothing can be submitted or read; what was accepted is safe in the ledger",
            f"look into {facts.paths.logs}; then: omnimind down && omnimind up",
        )
    who = facts.status.get("coordinator") or {}
    trouble = facts.status.get("trouble")
    if trouble:
        return Finding(
            "coordinator",
            ERROR,
            f"it refuses work: {trouble.get('detail')}",
            "submissions fail until this is mended; accepted work is safe",
            trouble.get("hint") or "omnimind explains it in its logs",
        )
    return Finding("coordinator", OK, f"answers: pid {who.get('pid')}, epoch {who.get('epoch')}")


def ledger(facts: Facts) -> Finding:
    """Whether the ledger is whole and set up well: asked of the coordinator, else of the database itself."""
    if isinstance(facts.status, OmniMindError):
        return _ledger_at_rest(facts)
    about = facts.status.get("ledger")
    if facts.status.get("trouble"):
        what = f"{ledger_line(about) or 'the ledger'} cannot be used now"
        return Finding("ledger", SKIPPED, f"{what}: see the finding about the coordinator")
    wrong = facts.session.call("check", None, 120.0)
    return _ledger_finding(wrong, about, "the coordinator checked it")


def _ledger_at_rest(facts: Facts) -> Finding:
    if facts.record is not None:
        return Finding("ledger", SKIPPED, "it is in use, and its coordinator does not answer")
    from omnimind import config  # noqa: PLC0415

    settings = config.load(facts.paths.home).ledger
    return _ledger_in_database(settings, facts) if settings.url else _ledger_file(facts)


def _ledger_in_database(settings: Any, facts: Facts) -> Finding:
    import msgspec  # noqa: PLC0415

    from omnimind.ledger.opening import open_ledger  # noqa: PLC0415

    try:
        ledger = open_ledger(settings, facts.paths.home)
        try:
            wrong = ledger.check()
        finally:
            ledger.close()
    except OmniMindError as error:
        why = "without it no coordinator starts; what was accepted is safe in it"
        return Finding("ledger", ERROR, error.message, why, error.hint)
    return _ledger_finding(wrong, msgspec.to_builtins(ledger.about()), "it was asked directly")


def _ledger_file(facts: Facts) -> Finding:
    import sqlite3  # noqa: PLC0415

    path = facts.paths.ledger
    if not path.exists():
        return Finding("ledger", SKIPPED, "there is none yet")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            wrong = [row[0] for row in connection.execute("PRAGMA quick_check(10)") if row[0] != "ok"]
        finally:
            connection.close()
    except sqlite3.Error as error:
        wrong = [str(error)]
    return _ledger_finding(wrong, None, "its file was read")


def _ledger_finding(wrong: list[str], about: Mapping[str, Any] | None, how: str) -> Finding:
    which = ledger_line(about)
    if not wrong and about and about["warnings"]:
        what = f"{which}: {'; '.join(about['warnings'])}"
        why = "what is acknowledged is promised to outlive a power cut"
        return Finding(
            "ledger", WARNING, what, why, "set it to on in postgresql.conf, then reload PostgreSQL"
        )
    if not wrong:
        return Finding("ledger", OK, f"whole ({how})" + (f": {which}" if which else ""))
    mend = "stop with: omnimind down; copy ledger.db* aside; restore a backup, or: sqlite3 ledger.db .recover"
    if about and about["kind"] == "postgresql":
        mend = "stop with: omnimind down; look into PostgreSQL's log; restore a backup"
    return Finding("ledger", ERROR, "; ".join(wrong[:3]), "tasks, results and history live there", mend)


def ray(facts: Facts) -> Finding:
    """Whether Ray's head and its processes are there."""
    from omnimind import processes  # noqa: PLC0415

    record = facts.record
    if record is None or not record.ray_address:
        return Finding("ray", SKIPPED, "no instance runs here")
    gone = [name for name, process in record.children.items() if not processes.lives(process)]
    host, _, port = record.ray_address.rpartition(":")
    mend = f"it is restarted by itself within seconds; if not, look into {facts.paths.logs}"
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError) as error:
        return Finding(
            "ray", ERROR, f"{record.ray_address} does not answer: {error}", "no task can run", mend
        )
    if gone:
        return Finding("ray", ERROR, f"gone: {', '.join(sorted(gone))}", "no task can run without them", mend)
    return Finding("ray", OK, f"answers on {record.ray_address}, {len(record.children)} processes live")


def nodes(facts: Facts) -> Finding:
    """Whether every node can work."""
    if isinstance(facts.status, OmniMindError):
        return Finding("nodes", SKIPPED, "nobody answers")
    if not facts.nodes:
        return Finding(
            "nodes", ERROR, "no node has joined", "nothing can run", "see: omnimind explain, and the logs"
        )
    bad = [n for n in facts.nodes if n["status"] in {"suspect", "degraded"}] + missing(facts.nodes)
    if bad:
        named = ", ".join(f"{n['hostname'] or n['node_id']} is {n['status']}" for n in bad)
        return Finding(
            "nodes",
            WARNING,
            named,
            "their share of the work waits or runs elsewhere",
            f"omnimind explain {bad[0]['node_id']}",
        )
    live = [n for n in facts.nodes if n["status"] != "offline"]
    return Finding("nodes", OK, f"{len(live)} in order")


def versions(facts: Facts) -> Finding:
    """Whether the same versions run everywhere: here, in the coordinator, on each node."""
    if isinstance(facts.status, OmniMindError):
        return Finding("versions", SKIPPED, "nobody answers")
    seen: dict[str, dict[str, list[str]]] = {}

    def note(part: str, value: str | None, where: str) -> None:
        if value:
            seen.setdefault(part, {}).setdefault(value, []).append(where)

    for part, value in _own_versions().items():
        note(part, value, "this command")
    note("omnimind", facts.session.hello().get("omnimind"), "the coordinator")
    for n in facts.nodes:
        for part, value in (n.get("versions") or {}).items():
            note(part, value, n["hostname"] or n["node_id"])
    mixed = {part: values for part, values in seen.items() if len(values) > 1}
    if mixed:
        told = "; ".join(
            f"{part}: " + ", ".join(f"{v} ({', '.join(where)})" for v, where in values.items())
            for part, values in mixed.items()
        )
        why = "messages and pickles of one version may not be read by another"
        return Finding("versions", ERROR, told, why, "install the same versions everywhere, then restart")
    told = ", ".join(f"{part} {next(iter(values))}" for part, values in sorted(seen.items()))
    return Finding("versions", OK, told or "nobody says which it runs")


def _own_versions() -> dict[str, str]:
    try:
        from actors.preflight import versions  # noqa: PLC0415
    except ImportError:
        return {}
    return versions()


def clocks(facts: Facts) -> Finding:
    """Whether the clocks agree: this machine's with the coordinator's, and each node's."""
    import time  # noqa: PLC0415

    if isinstance(facts.status, OmniMindError):
        return Finding("clocks", SKIPPED, "nobody answers")
    before = time.time()
    theirs = facts.session.call("ping", None, 5.0)["now"]
    after = time.time()
    away = max(0.0, before - theirs, theirs - after)
    skews = {"this machine": away}
    skews |= {
        n["hostname"] or n["node_id"]: abs(n["clock_skew"])
        for n in facts.nodes
        if n.get("clock_skew") is not None
    }
    worst = max(skews, key=lambda name: skews[name])
    if skews[worst] < SKEW_WARNING:
        return Finding("clocks", OK, f"within {max(skews[worst], 0.001) * 1000:.0f} ms of the coordinator's")
    return Finding(
        "clocks",
        ERROR if skews[worst] >= SKEW_ERROR else WARNING,
        f"{worst} is {skews[worst]:.1f} s away from the coordinator",
        "deadlines and timeouts are kept by each machine's clock",
        "let chrony or systemd-timesyncd set the clock; restart OmniMind if it was set back",
    )


def permission(facts: Facts) -> Finding:
    """Whether only its owner can read the instance's secrets."""
    paths = facts.paths
    if not paths.home.exists():
        return Finding("permissions", SKIPPED, f"{paths.home} does not exist yet")
    loose = []
    for path in (paths.home, paths.token, paths.ray_token, paths.ledger, paths.run / "coordinator.sock"):
        try:
            facts_ = path.lstat()
        except FileNotFoundError:
            continue
        if facts_.st_mode & 0o077:
            loose.append(path)
        if facts_.st_uid not in {os.geteuid(), paths.home.stat().st_uid}:
            return Finding(
                "permissions", ERROR, f"{path} belongs to another user", "they can act as you here",
                f"sudo chown $(id -u) {path}",
            )  # fmt: skip
    if not loose:
        return Finding("permissions", OK, "tokens, ledger and socket are private")

    def fix() -> None:
        for path in loose:
            path.chmod(0o700 if path.is_dir() else 0o600)

    return Finding(
        "permissions",
        ERROR,
        "others may read " + ", ".join(str(p) for p in loose),
        "who has a token may run any code as you",
        "omnimind doctor --fix; then change the tokens, if somebody may have read them",
        Fix("close " + ", ".join(str(p) for p in loose) + " to others", fix),
    )
