"""The checks of `omnimind doctor` that look at this machine rather than at the cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

from omnimind.cli.findings import ERROR, OK, SKIPPED, WARNING, Facts, Finding, Fix

GIB = 1 << 30
FULL, NEARLY_FULL = 0.95, 0.90
"""Share of the disk used: from the first on Ray spills no more."""

LEAST_FREE = GIB
LEAST_SHM = 512 << 20
LEAST_FILES = 4096
SHM = Path("/dev/shm")  # noqa: S108 - looked at, not written to


def disk(facts: Facts) -> Finding:
    """Whether the ledger and Ray have room."""
    place = facts.paths.home
    while not place.exists():
        place = place.parent
    whole = shutil.disk_usage(place)
    used = 1 - whole.free / whole.total
    told = f"{whole.free / GIB:.1f} GiB free ({used:.0%} used) below {place}"
    if used < NEARLY_FULL and whole.free >= LEAST_FREE:
        return Finding("disk", OK, told)
    return Finding(
        "disk",
        ERROR if used >= FULL or whole.free < LEAST_FREE // 4 else WARNING,
        told,
        "on a full disk submissions are refused; from 95 % used on Ray keeps no more objects there",
        "free space, or move the instance: omnimind up --home DIR",
    )


def shared_memory(_facts: Facts) -> Finding:
    """Whether Ray's object store has shared memory."""
    if not SHM.is_dir():
        return Finding("shared memory", SKIPPED, f"{SHM} is not there")
    free = shutil.disk_usage(SHM).free
    if free >= LEAST_SHM:
        return Finding("shared memory", OK, f"{free / GIB:.1f} GiB free in {SHM}")
    return Finding(
        "shared memory",
        WARNING,
        f"{free >> 20} MiB free in {SHM}",
        "Ray's object store falls back to the disk, which is slow",
        f"in a container: --shm-size=1g; else remove what fills {SHM}",
    )


def open_files(_facts: Facts) -> Finding:
    """Whether this user may open enough files."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= LEAST_FILES:
        return Finding(
            "open files",
            OK,
            f"{soft:,} allowed, {hard:,} when asked for" if soft < hard else f"{soft:,} allowed",
        )
    return Finding(
        "open files",
        WARNING,
        f"only {hard:,} allowed",
        "Ray keeps many files and connections open",
        f"raise it: ulimit -Hn {LEAST_FILES * 16}, or LimitNOFILE= in the unit",
    )


def socket_file(facts: Facts) -> Finding:
    """Whether the socket is there exactly when an instance runs."""
    path = facts.paths.socket
    there = path.is_socket()
    if facts.record is not None:
        if there or facts.record.state != "ready":
            return Finding("socket", OK, f"{path} ({facts.record.state})")
        return Finding(
            "socket", ERROR, f"{path} is gone", "no client on this machine can connect",
            "restart the instance: omnimind down && omnimind up",
        )  # fmt: skip
    if not there:
        return Finding("socket", SKIPPED, "no instance runs here")
    if facts.answers:
        return Finding("socket", OK, f"{path} answers")
    return Finding(
        "socket",
        WARNING,
        f"{path} is left over",
        "clients try it first, and only then find that nobody answers",
        "omnimind doctor --fix",
        Fix(f"remove {path}", lambda: path.unlink(missing_ok=True)),
    )


def leftovers(facts: Facts) -> Finding:
    """Whether processes of an instance outlived it."""
    from omnimind import launch, ownership, processes  # noqa: PLC0415

    if facts.record is not None:
        return Finding("processes", OK, f"supervisor is pid {facts.record.supervisor.pid}")
    found = ownership.leftovers(facts.paths)
    if not found:
        return Finding("processes", OK, "none is left over")
    if facts.answers:
        return Finding(
            "processes",
            WARNING,
            f"the coordinator answers, but its supervisor is gone ({len(found)} processes are without one)",
            "nobody restarts what dies, and nobody stops it",
            "omnimind down; then: omnimind up",
        )

    pids = ", ".join(f"{p.pid} ({Path((processes.command(p.pid) or ['?'])[0]).name})" for p in found[:5])
    return Finding(
        "processes",
        WARNING,
        f"{len(found)} left over: {pids}" + (", …" if len(found) > 5 else ""),  # noqa: PLR2004
        "they hold memory and ports; no task can be lost by ending them, since nobody commits their results",
        "omnimind doctor --fix",
        Fix(
            f"end {len(found)} processes that an instance of this home left behind",
            lambda: launch.stop(facts.paths.home),
        ),
    )


def packages(_facts: Facts) -> Finding:
    """Whether the installed packages fit together, and no foreign one stands in front of ours."""
    import omnimind  # noqa: PLC0415
    from omnimind.errors import BadInstallation  # noqa: PLC0415

    why = "`omnimind up` would start foreign code, or none"
    try:
        from actors.preflight import check  # noqa: PLC0415

        check()
    except ImportError as error:
        mend = f"run it from another folder than {Path.cwd()}, or rename what is there; else install again"
        return Finding("packages", ERROR, f"OmniMind's package `actors` is not found: {error}", why, mend)
    except BadInstallation as error:
        return Finding("packages", ERROR, error.message, why, error.hint)
    return Finding("packages", OK, f"from {Path(omnimind.__file__).parent.parent}")


def settings(facts: Facts) -> Finding:
    """Whether the settings can be read, and what they ask for can be had."""
    from omnimind.config import load  # noqa: PLC0415
    from omnimind.errors import ConfigError, PortInUse  # noqa: PLC0415

    why = "`omnimind up` would refuse to start"
    try:
        found = load(facts.paths.home)
        if facts.record is None:
            from actors.ray_instance import check_ports  # noqa: PLC0415

            check_ports(found)
    except (ConfigError, PortInUse) as error:
        return Finding("settings", ERROR, f"{error.field}: {error.message}", why, error.hint)
    changed = len(found.origins)
    return Finding(
        "settings", OK, f"{changed} set, the rest at its default" if changed else "all at their defaults"
    )
