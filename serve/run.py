"""The process that puts the API on Ray Serve: ``python -P -m serve.run --home HOME --parent PID``.

It is a Ray job of its own beside OmniMind's, so that an API that fails takes nothing else along. Serve's
actors are detached: they go on when this process is started again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from actors.lifeline import follow
from actors.names import NAMESPACE
from omnimind import config
from omnimind.config import Settings
from omnimind.errors import OmniMindError, StartFailed
from omnimind.instance import Paths, make_token
from omnimind.tokens import digest_of


def main() -> None:
    """Start the API, say where it is, and stay."""
    parser = argparse.ArgumentParser(prog="serve.run", description="Put OmniMind's API on Ray Serve.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    follow(args.parent)
    paths = Paths(args.home)
    try:
        start(paths, config.effective(paths.settings))
    except OmniMindError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    signal.pause()


def start(paths: Paths, settings: Settings) -> None:
    """Run the application on this home's Ray. Raises StartFailed."""
    import ray  # noqa: PLC0415 (takes a second: after the lifeline)
    from ray import serve as ray_serve  # noqa: PLC0415

    from serve.deployment import NAME, ApiOptions, application  # noqa: PLC0415 (it imports Ray)

    api = settings.api
    ray.init(address=os.environ["RAY_ADDRESS"], namespace=NAMESPACE, log_to_driver=False)
    options = ApiOptions(
        home=str(paths.home),
        admin=digest_of(paths.token.read_text(encoding="utf-8").strip()),
        key=make_token(paths.session_key).encode(),
        cors=tuple(api.cors.split()),
        replicas=(api.replicas, max(api.replicas, api.max_replicas)),
    )
    http: dict[str, Any] = {"host": api.host, "port": api.port}
    if api.tls_certificate:
        http |= {"ssl_certfile": api.tls_certificate, "ssl_keyfile": api.tls_key}
    try:
        where = "HeadOnly" if api.max_replicas == 1 else "EveryNode"
        ray_serve.start(proxy_location=where, http_options=http)
        ray_serve.run(application(options), name=NAME, route_prefix="/")
    except Exception as error:
        raise StartFailed(f"the API did not start: {error}") from error


if __name__ == "__main__":
    main()
