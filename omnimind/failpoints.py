"""Named places where a test can make the process die, fail or wait: between any two steps of a commit.

``OMNIMIND_FAILPOINT="ledger.before_commit=kill@3"`` kills the process (SIGKILL) when it comes by for the
third time. Actions: ``kill``, ``raise`` (an OSError), ``sleep:SECONDS``. Several are separated by commas.
Without the variable a failpoint only counts.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

VARIABLE = "OMNIMIND_FAILPOINT"

hits: Counter[str] = Counter()
"""How often this process came by, by name."""


def parse(text: str) -> dict[str, tuple[str, int]]:
    """Return the action and the number of the visit at which it happens, by name.

    Raises ValueError for what is none.
    """
    found: dict[str, tuple[str, int]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, rest = item.partition("=")
        action, _, visit = rest.partition("@")
        if action not in {"kill", "raise"} and not action.startswith("sleep:"):
            msg = f"{VARIABLE}: {item!r} is none; write NAME=kill, NAME=raise or NAME=sleep:SECONDS, and @N"
            raise ValueError(msg)
        found[name] = action, int(visit or 1)
    return found


_armed = parse(os.environ.get(VARIABLE, ""))


def arm(text: str) -> None:
    """Set what happens from now on, as the variable would, and count from zero."""
    hits.clear()
    _armed.clear()
    _armed.update(parse(text))


def failpoint(name: str) -> None:
    """Come by a failpoint; raises OSError when its action is ``raise``."""
    hits[name] += 1
    if name in _armed:
        action, visit = _armed[name]
        if hits[name] == visit:
            _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise OSError(errno.EIO, f"failpoint {name}")
    else:
        time.sleep(float(action.partition(":")[2]))
