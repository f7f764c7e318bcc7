"""Calls to the coordinator over HTTP, for programs outside the cluster. Imports httpx when it connects.

Each call is ``POST /api/v1/call/METHOD`` with msgpack in and out, on pooled connections. A call is sent again
after a broken connection or a "not now" (503) where that is safe. No code goes this way (P8): handlers are
named, payloads are JSON.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from omnimind.client.protocol import Hello, decode, encode
from omnimind.client.transport import UNREPEATABLE
from omnimind.errors import Forbidden, InvalidInput, OmniMindError, Unavailable, from_problem

if TYPE_CHECKING:
    import httpx

MEDIA_TYPE = "application/vnd.omnimind.v1+msgpack"
_PATH = "/api/v1/call/"
_BACKOFF_FIRST = 0.1
_BACKOFF_LAST = 2.0
_POOL = 64
_MARGIN = 10.0
"""Seconds beyond a call's own timeout after which a server that says nothing is given up."""


class HttpTransport:
    """A `client.transport.Transport` over the HTTP API.

    url: ``https://host:8000``. token: sent with each call. patience: seconds for which a call is tried again.
    certificates: a file with the authorities to trust (PEM); None takes the system's.
    """

    def __init__(
        self, url: str, token: str | None, *, patience: float = 30.0, certificates: str | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._patience = patience
        self._certificates = certificates
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self.info: dict[str, Any] = {}

    async def connect(self) -> dict[str, Any]:
        if self._client is None:
            self._client = self._open()
        self.info = decode(await self._once("hello", encode(Hello(token="")), self._patience))
        return self.info

    async def call(self, method: str, body: bytes, timeout: float | None = None) -> bytes:
        if self._closed:
            raise Unavailable("this client is closed", hint="")
        if self._client is None:
            self._client = self._open()
        loop = asyncio.get_running_loop()
        patience = self._patience if timeout is None else timeout
        give_up = loop.time() + patience
        pause = _BACKOFF_FIRST
        while True:
            try:
                return await self._once(method, body, patience)
            except Unavailable as error:
                wait = max(pause, error.retry_after or 0.0)
                if loop.time() + wait > give_up or (error.details.get("sent") and method in UNREPEATABLE):
                    raise
            await asyncio.sleep(wait)
            pause = min(pause * 1.6, _BACKOFF_LAST)

    async def close(self) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.aclose()

    def _open(self) -> httpx.AsyncClient:
        import httpx  # noqa: PLC0415 (40 ms that others do not pay)

        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            verify: Any = ssl.create_default_context(cafile=self._certificates)
        except OSError as error:
            msg = f"the certificates in {self._certificates} cannot be read: {error}"
            raise InvalidInput(msg, field="certificates") from error
        limits = httpx.Limits(max_connections=_POOL, max_keepalive_connections=_POOL)
        return httpx.AsyncClient(base_url=self._url, headers=headers, limits=limits, verify=verify)

    async def _once(self, method: str, body: bytes, timeout: float) -> bytes:
        import httpx  # noqa: PLC0415

        assert self._client is not None
        try:
            answer = await self._client.post(_PATH + method, content=body, timeout=timeout + _MARGIN)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            msg = f"nobody answers at {self._url}: {error}"
            raise Unavailable(msg, hint=_tls_hint(error)) from error
        except httpx.TransportError as error:
            hint = "it may have been done all the same: look before you repeat it"
            what = f"the connection broke during `{method}`: {type(error).__name__}"
            raise Unavailable(what, hint=hint if method in UNREPEATABLE else None, sent=True) from error
        if answer.status_code == 200:  # noqa: PLR2004
            return answer.content
        raise _error(answer, self._url)


def _error(answer: httpx.Response, url: str) -> OmniMindError:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind == "application/problem+json":
        problem = answer.json()
        if answer.status_code == 401:  # noqa: PLR2004
            hint = "give connect(token=…) one that `omnimind token create` made"
            return Forbidden(problem.get("detail", "the token is wrong"), hint=hint)
        return from_problem(problem)
    if answer.status_code in {502, 503, 504}:
        return Unavailable(f"the proxy at {url} answers {answer.status_code}: no replica takes calls now")
    return Unavailable(
        f"{url} answers {answer.status_code}, and not as OmniMind does", hint="is this its address?"
    )


def _tls_hint(error: Exception) -> str | None:
    if "CERTIFICATE" in str(error).upper():
        return "its certificate is of an authority unknown here: set SSL_CERT_FILE to a file with it"
    return None
