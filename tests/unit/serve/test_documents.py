"""The OpenAPI document is exact: what the app answers fits what the document says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from omnimind import AsyncClient
from serve import schemas as s


def test_each_operation_has_an_id_of_its_own_and_documented_errors(app: FastAPI) -> None:
    document = app.openapi()
    assert document["openapi"].startswith("3.1")
    seen = set()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["operationId"] not in seen
            seen.add(operation["operationId"])
            if path.startswith("/api/"):
                assert {"401", "403", "429", "503"} <= operation["responses"].keys(), path
                for status, answer in operation["responses"].items():
                    if int(status) >= 400:
                        assert "application/problem+json" in answer["content"], (path, status)
                assert operation.get("description"), path


ANSWERS = [
    ("/api/v1/tasks", s.TaskPage),
    ("/api/v1/tasks/{id}", s.Task),
    ("/api/v1/tasks/{id}/wait", s.TaskEnd),
    ("/api/v1/tasks/{id}/explain", s.Explanation),
    ("/api/v1/tasks/{id}/attempts", list[s.Attempt]),
    ("/api/v1/tasks/{id}/progress", s.Progress),
    ("/api/v1/tasks/{id}/logs", list[s.LogEntry]),
    ("/api/v1/deadletters", s.TaskPage),
    ("/api/v1/queues", list[s.Queue]),
    ("/api/v1/queues/default", s.Queue),
    ("/api/v1/schedules", list[s.Schedule]),
    ("/api/v1/nodes", list[s.Node]),
    ("/api/v1/nodes/nod_1", s.NodeDetail),
    ("/api/v1/cluster/status", s.ClusterStatus),
    ("/api/v1/handlers", list[s.Handler]),
    ("/api/v1/audit", list[s.AuditEntry]),
    ("/api/v1/tokens", list[s.Token]),
    ("/api/v1/session", s.Session),
]


@pytest.mark.parametrize(("path", "model"), ANSWERS)
async def test_an_answer_is_what_the_document_says(
    admin: Any, om: AsyncClient, path: str, model: Any
) -> None:
    handle = await om.submit(len, "abc")
    await handle.result(5)
    found = await admin.get(path.format(id=handle.id))
    TypeAdapter(model).validate_json(json.dumps(found))
