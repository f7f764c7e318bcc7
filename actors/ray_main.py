"""`ray start`, tied to its supervisor: ``python -P -m actors.ray_main PARENT_PID start …``.

Ray's own daemons are tied to this process in the same way (``--block`` does that), so however the
supervisor ends, Ray ends too.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from actors.lifeline import follow

_HOOK = "RAY_START_HOOK"


def main() -> None:
    """Turn into ``ray``."""
    follow(int(sys.argv.pop(1)))
    os.environ[_HOOK] = "actors.ray_main.trim"
    from ray.scripts.scripts import main as ray  # noqa: PLC0415 - after the lifeline: it takes a second

    if "--head" not in sys.argv and os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0":
        _join_on_loopback()
    sys.argv[0] = "ray"
    run: Any = ray
    run()


def _join_on_loopback() -> None:
    """Let a node join a head that listens on loopback only: Ray holds that for a mistake.

    It would refuse, or put the machine's public address in the place of 127.0.0.1.
    """
    from ray._private import ray_constants, services  # noqa: PLC0415

    constants: Any = ray_constants
    constants.ENABLE_RAY_CLUSTER = True
    addresses: Any = services
    addresses.resolve_ip_for_localhost = lambda host: host


def trim(params: Any, _head: bool) -> None:
    """Take out the Ray Client server, which wants a fixed port; OmniMind's clients do not use it.

    Ray calls it before it starts anything.
    """
    os.environ.pop(_HOOK, None)
    params.ray_client_server_port = None
    # Of the GCS's Redis. Ray takes it as an argument only, and hands it on as one.
    params.redis_password = os.environ.get("RAY_REDIS_PASSWORD", params.redis_password)


if __name__ == "__main__":
    main()
