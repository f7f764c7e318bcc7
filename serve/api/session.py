"""The console's session: a cookie for a token, so that the token is typed once and no script can read it."""

from __future__ import annotations

from fastapi import APIRouter, Request, status
from starlette.responses import Response

from omnimind.tokens import digest_of
from serve import schemas as s
from serve.api.common import errors
from serve.auth import COOKIE, SESSION_SECONDS, Door, Identity, Viewer
from serve.backend import answer

router = APIRouter(prefix="/session", tags=["session"])


def _cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(
        COOKIE, value, max_age=seconds, path="/", httponly=True, samesite="strict", secure=secure
    )


def _view(who: Identity, csrf: str) -> dict[str, str]:
    return {"name": who.name, "role": who.role.label, "csrf": csrf}


@router.post(
    "",
    operation_id="openSession",
    status_code=status.HTTP_201_CREATED,
    responses={201: {"model": s.Session}, **errors()},
)
async def open_session(request: Request, who: Viewer) -> Response:
    """Exchange a bearer token for a session cookie (HttpOnly, SameSite=Strict, Secure under TLS)."""
    door: Door = request.app.state.door
    secret = request.headers.get("authorization", "").partition(" ")[2].strip()
    cookie = door.sessions.seal(digest_of(secret)) if secret else request.cookies[COOKIE]
    response = answer(_view(who, door.sessions.csrf(cookie)), 201)
    _cookie(request, response, cookie, SESSION_SECONDS)
    return response


@router.get("", operation_id="getSession", responses={200: {"model": s.Session}, **errors()})
async def get_session(request: Request, who: Viewer) -> Response:
    """Return who is signed in."""
    door: Door = request.app.state.door
    return answer(_view(who, door.sessions.csrf(request.cookies.get(COOKIE, ""))))


@router.delete("", operation_id="closeSession", status_code=status.HTTP_204_NO_CONTENT, responses=errors())
async def close_session(request: Request, _who: Viewer) -> Response:
    """End the session in this browser."""
    response = Response(status_code=204)
    _cookie(request, response, "", 0)
    return response
