"""Errors on their way out: RFC 9457 problem documents, whatever raised them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from omnimind.errors import DOCS, OmniMindError

log = logging.getLogger("omnimind.api")

MEDIA_TYPE = "application/problem+json"
_UNPROCESSABLE = 422
_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    404: "no_such_route",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "too_many_failures",
}
_RETRYABLE = frozenset({408, 429})
_WAITS = {429: 1.0, 503: 1.0, 507: 10.0}
"""Seconds after which to come again where the error does not say."""
_encode = msgspec.json.Encoder(enc_hook=str).encode


def problem_response(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem document as an answer, with `Retry-After` when it says when to come again."""
    sent = dict(headers or {})
    wait = problem.get("retry_after", _WAITS.get(problem["status"]))
    if wait is not None and "Retry-After" not in sent:
        sent["Retry-After"] = str(max(1, math.ceil(wait)))
    return Response(_encode(problem), status_code=problem["status"], media_type=MEDIA_TYPE, headers=sent)


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """Return a problem document of the HTTP layer itself, in the shape of `OmniMindError.to_problem`."""
    title = HTTPStatus(status).phrase
    retryable = bool(more.pop("retryable", False))
    head = {"type": f"{DOCS}{code}", "title": title, "status": status, "detail": detail, "code": code}
    return head | {"retryable": retryable} | more


def install(app: FastAPI) -> None:
    """Let every error of an app leave it as a problem document."""

    @app.exception_handler(OmniMindError)
    async def _ours(request: Request, error: OmniMindError) -> Response:
        return problem_response(error.to_problem() | {"instance": request.url.path})

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [{"field": _place(e["loc"]), "detail": e["msg"]} for e in error.errors()]
        first = errors[0] if errors else {"field": "body", "detail": "not valid"}
        found = problem(
            _UNPROCESSABLE, "invalid_request", f"{first['field']}: {first['detail']}", errors=errors
        )
        return problem_response(found | {"instance": request.url.path})

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "http_error")
        retryable = error.status_code in _RETRYABLE
        found = problem(error.status_code, code, str(error.detail), retryable=retryable)
        return problem_response(found | {"instance": request.url.path}, error.headers)


def unexpected(method: str, path: str, error: Exception) -> Response:
    """Return what a caller hears of a fault of ours; the log hears all of it."""
    log.error("%s %s failed", method, path, exc_info=error)
    found = problem(500, "error", "this is a fault of OmniMind, not of the request", retryable=True)
    return problem_response(found | {"hint": "the API's log has the traceback", "instance": path})


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part not in ("body", "query", "path", "header")) or "body"
