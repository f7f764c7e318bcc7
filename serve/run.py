"""The process that puts the API on Ray Serve: ``python -P -m serve.run --home HOME --parent PID``.

It is a Ray job of its own beside OmniMind's, so that an API that fails takes nothing else along. Serve's
actors are detached: they go on when this process is started again.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from actors.lifeline import follow
from actors.names import NAMESPACE
from omnimind import config
from omnimind.config import Settings
from omnimind.errors import OmniMindError, PortInUse, StartFailed
from omnimind.instance import Paths, make_token
from omnimind.tokens import digest_of

DEFAULT_PORT = 8000


def main() -> None:
    """Start the API, say where it is, and stay."""
    parser = argparse.ArgumentParser(prog="serve.run", description="Put OmniMind's API on Ray Serve.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    follow(args.parent)
    tell = _own_stdout()
    paths = Paths(args.home)
    try:
        tell({"ready": start(paths, config.effective(paths.settings))})
    except OmniMindError as error:
        tell({"error": error.to_problem()})
        sys.exit(1)
    signal.pause()


def start(paths: Paths, settings: Settings) -> dict[str, Any]:
    """Run the application on this home's Ray; return {"url"}. Raises PortInUse, StartFailed."""
    import ray  # noqa: PLC0415 (takes a second: after the lifeline)
    from ray import serve as ray_serve  # noqa: PLC0415

    from serve.deployment import NAME, ApiOptions, application  # noqa: PLC0415 (it imports Ray)

    api = settings.api
    ray.init(address=os.environ["RAY_ADDRESS"], namespace=NAMESPACE, log_to_driver=False)
    port = _running_port() or choose_port(api.host, api.port)
    options = ApiOptions(
        home=str(paths.home),
        admin=digest_of(paths.token.read_text(encoding="utf-8").strip()),
        key=make_token(paths.session_key).encode(),
        cors=tuple(api.cors.split()),
        replicas=(api.replicas, max(api.replicas, api.max_replicas)),
    )
    http: dict[str, Any] = {"host": api.host, "port": port}
    if api.tls_certificate:
        http |= {"ssl_certfile": api.tls_certificate, "ssl_keyfile": api.tls_key}
    try:
        where = "HeadOnly" if api.max_replicas == 1 else "EveryNode"
        ray_serve.start(proxy_location=where, http_options=http)
        ray_serve.run(application(options), name=NAME, route_prefix="/")
    except Exception as error:
        raise StartFailed(f"the API did not start: {error}") from error
    scheme = "https" if api.tls_certificate else "http"
    return {"url": f"{scheme}://{_shown(api.host)}:{port}"}


def choose_port(host: str, port: int) -> int:
    """Return the port to listen on; 0 takes 8000 where that is free, else any. Raises PortInUse."""
    for wanted in (port,) if port else (DEFAULT_PORT, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, wanted))
            except OSError as error:
                if port:
                    msg = f"{host}:{port} cannot be used: {error.strerror}"
                    raise PortInUse(msg, field="api.port") from error
            else:
                return int(probe.getsockname()[1])
    raise PortInUse(f"no port of {host} is free", field="api.port")


def _running_port() -> int | None:
    """Return the port of a Serve that goes on from before."""
    from ray.serve import context  # noqa: PLC0415

    try:
        client: Any = context._get_global_client(raise_if_no_controller_running=False)  # noqa: SLF001
    except Exception:  # noqa: BLE001 (there is none)
        return None
    return int(client.http_config.port) if client is not None else None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_stdout() -> Callable[[dict[str, Any]], None]:
    """Keep standard output for our lines alone: what Ray prints goes to standard error, which is the log."""
    out = os.dup(1)
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        os.write(out, msgspec.json.encode(message) + b"\n")

    return tell


if __name__ == "__main__":
    main()
