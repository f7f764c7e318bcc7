"""`SimOptions`: everything that is drawn per seed before a simulation begins, printed with each failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from omnimind.testing.draws import Draws


class SimOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated cluster. Times in seconds; faults as chances, 0 where the class is off.

    mix: ``all`` (every fault class on), ``swarm`` (each on or off), ``calm`` (no machine, link, disk fails).
    profile: ``mixed``, ``fair`` (two queues that always have work, no faults) or ``ageing`` (a stream of
    urgent tasks, and some that are not).

    loss, duplicate, slow: per message. cut: per link and 4 s. crash, pause, kill_worker: per node and
    second, per node and second, per batch. coordinator_before, coordinator_after: a crash before or
    after the flush, per flush. stall: per second, the coordinator stands still (SIGSTOP). zombie: share
    of the crashes after which the old life goes on for a while beside the new one. disk_full,
    disk_error: per 4 s, for up to 6 s; disk_tight: only new tasks find no room. disk_unknown: per second.
    raises, poison: per attempt, per task: the handler raises, the task kills its worker.
    jump: per restart, the coordinator's clock jumps by up to `jump_seconds` either way.
    at_most_once, deadlines, delays, keyed, after, checkpoints, picky (with needs, or wide): shares of the
    tasks. cancels, controls: per submission, per 5 s.
    """

    seed: int
    mix: str = "calm"
    profile: str = "mixed"
    nodes: int = 2
    slots: int = 2
    clients: int = 1
    tasks: int = 10
    seconds: float = 20.0
    queues: int = 1
    bound: int = 50
    window: int = 1000
    batch_max: int = 16
    ageing: float = 4.0
    duration: float = 0.2
    strategy: str = "least_loaded"
    delay: float = 0.003
    loss: float = 0.0
    duplicate: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 8.0
    cut: float = 0.0
    crash: float = 0.0
    pause: float = 0.0
    sluggish: float = 0.0
    skew: float = 0.0
    kill_worker: float = 0.0
    coordinator_before: float = 0.0
    coordinator_after: float = 0.0
    stall: float = 0.0
    zombie: float = 0.0
    disk_full: float = 0.0
    disk_error: float = 0.0
    disk_tight: float = 0.0
    disk_unknown: float = 0.0
    io: float = 0.002
    jump: float = 0.0
    jump_seconds: float = 0.0
    raises: float = 0.0
    poison: float = 0.0
    at_most_once: float = 0.0
    keyed: float = 0.0
    after: float = 0.0
    deadlines: float = 0.0
    delays: float = 0.0
    checkpoints: float = 0.0
    picky: float = 0.0
    cancels: float = 0.0
    controls: float = 0.0
    schedules: int = 0
    limited: bool = False
    """The second queue has a limit of concurrency, the third one of rate."""

    @property
    def quiet(self) -> bool:
        """Return whether no machine, link or disk can fail."""
        return not any(getattr(self, name) for name in FAULTS if name not in MILD)


FAULTS: dict[str, Sequence[float]] = {
    "loss": (0.02, 0.1, 0.3),
    "duplicate": (0.05, 0.3),
    "slow": (0.05, 0.2),
    "cut": (0.03, 0.1),
    "crash": (0.02, 0.08),
    "pause": (0.02, 0.08),
    "sluggish": (0.5,),
    "skew": (0.05, 3.0, 3600.0),
    "kill_worker": (0.05, 0.2),
    "coordinator_before": (0.01, 0.05),
    "coordinator_after": (0.01, 0.05),
    "stall": (0.02, 0.08),
    "zombie": (0.3,),
    "disk_full": (0.1, 0.3),
    "disk_error": (0.1, 0.3),
    "disk_tight": (0.1, 0.3),
    "disk_unknown": (0.01, 0.03),
    "jump": (0.5,),
    "raises": (0.2, 0.5),
    "poison": (0.05,),
}
"""The fault classes, and what a class that is on may be set to."""

MILD = ("raises", "poison", "kill_worker", "stall")
"""Faults for which no node is to be blamed, and which may happen in a ``calm`` cluster too."""

WORK: dict[str, Sequence[float]] = {
    "at_most_once": (0.0, 0.0, 0.3),
    "keyed": (0.0, 0.3, 0.7),
    "after": (0.0, 0.3),
    "deadlines": (0.0, 0.0, 0.2),
    "delays": (0.0, 0.0, 0.3),
    "checkpoints": (0.0, 0.5),
    "picky": (0.0, 0.2, 0.6),
    "cancels": (0.0, 0.3),
    "controls": (0.0, 0.0, 0.3),
}
"""What the work is like, drawn apart from the faults."""

FLOORS: dict[str, float] = {"nodes": 1, "clients": 1, "tasks": 1, "queues": 1, "slots": 1, "schedules": 0}
"""The options that the shrinker makes smaller, and how far."""


def draw_options(seed: int, fixed: Mapping[str, Any] | None = None) -> SimOptions:
    """Draw a cluster's options; `fixed` ones are taken as they are."""
    draws = Draws(seed)

    def pick(name: str, *choices: Any) -> Any:
        return draws.pick("option", name, 0, choices)

    mix = pick("mix", "all", "all", "all", "all", "all", "swarm", "swarm", "swarm", "swarm", "calm")
    options: dict[str, Any] = {
        "mix": mix,
        "profile": pick("profile", *["mixed"] * 18, "fair", "ageing"),
        "nodes": pick("nodes", 1, 1, 2, 2, 3, 3, 4, 5, 8),
        "slots": pick("slots", 1, 2, 2, 4),
        "clients": pick("clients", 1, 1, 2, 3, 4),
        "tasks": pick("tasks", 2, 5, 10, 15, 20, 30, 40),
        "seconds": pick("seconds", 15.0, 20.0, 30.0),
        "queues": pick("queues", 1, 1, 2, 3),
        "bound": pick("bound", 3, 6, 50, 50),
        "window": pick("window", 2, 6, 1000, 1000),
        "batch_max": pick("batch_max", 4, 16, 256),
        "ageing": pick("ageing", 2.0, 6.0),
        "duration": pick("duration", 0.005, 0.2, 1.0, 1.0, 4.0),
        "strategy": pick("strategy", "least_loaded", "least_loaded", "round_robin", "random", "ray"),
        "delay": pick("delay", 0.001, 0.003, 0.05),
        "io": pick("io", 0.001, 0.05, 0.5),
        "slow_seconds": pick("slow_seconds", 1.0, 8.0),
        "jump_seconds": pick("jump_seconds", 3.0, 3600.0),
        "schedules": pick("schedules", 0, 0, 0, 1),
        "limited": pick("limited", False, True),
    }
    for name, values in FAULTS.items():
        drawn = mix == "swarm" or (mix == "calm" and name in MILD)
        on = mix == "all" or (drawn and pick(f"on {name}", False, True))
        options[name] = pick(name, *values) if on else 0.0
    for name, values in WORK.items():
        options[name] = pick(name, *values)
    options.update(fixed or {})
    options.update(PROFILES[options["profile"]])
    options.update({k: v for k, v in (fixed or {}).items() if k != "profile"})
    return SimOptions(seed=seed, **options)


_QUIET: dict[str, Any] = {
    **dict.fromkeys(FAULTS, 0.0),
    **dict.fromkeys(WORK, 0.0),
    "mix": "calm",
    "schedules": 0,
    "limited": False,
}

PROFILES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "fair": {
        **_QUIET, "nodes": 1, "slots": 2, "clients": 2, "queues": 2, "tasks": 160, "bound": 1000,
        "window": 1000, "delay": 0.001, "io": 0.001,
    },
    "ageing": {
        **_QUIET, "nodes": 1, "slots": 1, "clients": 2, "queues": 1, "tasks": 60, "bound": 1000,
        "window": 1000, "ageing": 2.0, "duration": 0.2,
    },
}  # fmt: skip
"""What a profile fixes, over what was drawn."""


def describe(options: SimOptions) -> str:
    """Return the options in one line, those that are 0 left out."""
    values = msgspec.to_builtins(options)
    return " ".join(f"{name}={value}" for name, value in values.items() if value)


def parse_fixed(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs of a command line; raises ValueError naming what is wrong."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(SimOptions)}
    fixed: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in kinds or name == "seed":
            known = ", ".join(k for k in kinds if k != "seed")
            msg = f"{name!r} is no option of a simulation: use one of {known}"
            raise ValueError(msg)
        fixed[name] = msgspec.convert(value, kinds[name], strict=False)
    return fixed
