"""Settings about the size of the cluster: what the Ray autoscaler is asked for, and when nodes are let go."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

SECONDS = {"unit": "s"}


class ElasticSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the cluster grows and shrinks where a Ray autoscaler runs."""

    enabled: Annotated[
        str,
        Meta(
            pattern="^(auto|on|off)$",
            description=(
                "Whether the autoscaler is asked: auto (where one has reported to Ray, or "
                "ray.autoscaling_config names its file), on or off."
            ),
        ),
    ] = "auto"
    hold: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Work that only lacks free slots waits so long before more nodes are asked for.",
            extra=SECONDS,
        ),
    ] = 5.0
    within: Annotated[
        float,
        Meta(
            ge=1,
            le=86400,
            description="As many slots are asked for as work off what waits in this time.",
            extra=SECONDS,
        ),
    ] = 60.0
    hold_down: Annotated[
        float,
        Meta(
            ge=0, le=86400, description="A request shrinks after less was wanted for so long.", extra=SECONDS
        ),
    ] = 60.0
    interval: Annotated[
        float,
        Meta(ge=1, le=3600, description="Shortest time between two requests.", extra=SECONDS),
    ] = 5.0
    max_bundles: Annotated[
        int, Meta(ge=1, le=10_000, description="Most bundles of resources in a request, what runs included.")
    ] = 100
    max_nodes: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="With so many nodes of the autoscaler no more are asked for; 0: its own bound alone.",
        ),
    ] = 0
    idle: Annotated[
        float,
        Meta(
            ge=1,
            le=604_800,
            description="A node of the autoscaler that had nothing to do for so long is let go.",
            extra=SECONDS,
        ),
    ] = 120.0
    patience: Annotated[
        float,
        Meta(
            ge=1,
            le=604_800,
            description="A node that was let go and that nobody has ended in this time is taken back.",
            extra=SECONDS,
        ),
    ] = 900.0
