"""Where the HTTP API listens: chosen before anything starts, so that everybody can be told."""

from __future__ import annotations

import socket

import msgspec

from omnimind.config import Settings
from omnimind.errors import PortInUse

DEFAULT = 8000


def with_port(settings: Settings) -> Settings:
    """Return settings in which `api.port` is a port that is free now. Raises PortInUse."""
    api = settings.api
    if not api.enabled:
        return settings
    port = _choose(api.host, api.port)
    return msgspec.structs.replace(settings, api=msgspec.structs.replace(api, port=port))


def url(settings: Settings) -> str:
    """Return the API's address, empty when there is none."""
    api = settings.api
    if not api.enabled:
        return ""
    host = f"[{api.host}]" if ":" in api.host else api.host
    return f"{'https' if api.tls_certificate else 'http'}://{host}:{api.port}"


def _choose(host: str, port: int) -> int:
    for wanted in (port,) if port else (DEFAULT, 0):
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
    raise PortInUse(f"no port of {host} can be used", field="api.host")
