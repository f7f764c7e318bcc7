"""Settings of the HTTP API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the HTTP API listens, and how many replicas answer."""

    enabled: Annotated[bool, Meta(description="Whether `omnimind up` starts the HTTP API.")] = False
    host: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=253,
            description="Address to listen on; every request needs a token, on loopback too.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port to listen on; 0: 8000 where that is free, else any.")
    ] = 0
    replicas: Annotated[int, Meta(ge=1, le=1000, description="Fewest replicas.")] = 1
    max_replicas: Annotated[
        int, Meta(ge=1, le=1000, description="Most replicas: Ray Serve adds them under load.")
    ] = 1
    cors: Annotated[
        str,
        Meta(
            max_length=10_000,
            description="Origins of other sites whose pages may call the API, separated by spaces.",
        ),
    ] = ""
    tls_certificate: Annotated[
        str, Meta(max_length=4096, description="File with the certificate chain (PEM); empty: plain HTTP.")
    ] = ""
    tls_key: Annotated[str, Meta(max_length=4096, description="File with its private key (PEM).")] = ""
