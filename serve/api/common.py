"""What routers share: documented errors, the `plan` switch, cursors."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import Query

from omnimind.errors import InvalidInput
from serve.problems import MEDIA_TYPE
from serve.schemas import Problem

Plan = Annotated[bool, Query(description="Say what would be done, and do nothing.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Most items in one answer.")]

_TEXTS = {
    400: "The request is not valid.",
    401: "No token, or a wrong, expired or revoked one.",
    403: "The token's role is too low, or a session's change lacks its header.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    409: "The state of the thing forbids this.",
    410: "It existed; its record is older than is kept.",
    413: "Too large.",
    415: "The media type is not one of those that this takes.",
    422: "A field is not valid.",
    429: "Not now: a bound is reached. See Retry-After.",
    503: "No coordinator, or no ledger, can be reached now. See Retry-After.",
    507: "The disk of the ledger is full.",
}
_ALWAYS = (400, 401, 403, 422, 429, 500, 503)


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route for the OpenAPI document: the usual ones and `more`."""
    return {
        status: {
            "description": _TEXTS.get(status, "A fault of OmniMind."),
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*_ALWAYS, *more})
    }


def cursor_out(position: int | str | None) -> str | None:
    """Return a cursor as clients see it: opaque. The coordinator's is a number; text with several shards."""
    if position is None:
        return None
    text = f"t{position}" if isinstance(position, str) else f"s{position}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor_in(text: str | None) -> int | str | None:
    """Return the position of a cursor. Raises InvalidInput."""
    if text is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        raw = ""
    if raw.startswith("t"):
        return raw[1:]
    if not raw.startswith("s") or not raw[1:].isdigit() or int(raw[1:]) >= 1 << 63:
        hint = "take `next_cursor` of the page before"
        raise InvalidInput("this is no cursor", field="cursor", hint=hint)
    return int(raw[1:])
