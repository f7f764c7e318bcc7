"""One router a noun. `ROUTERS` is what `app` mounts under ``/api/v1``."""

from __future__ import annotations

from fastapi import APIRouter

from serve.api import call, cluster, deadletters, nodes, queues, schedules, session, tasks, tokens

ROUTERS: tuple[APIRouter, ...] = (
    tasks.router,
    deadletters.router,
    queues.router,
    schedules.router,
    nodes.router,
    cluster.router,
    session.router,
    tokens.router,
    call.router,
)
