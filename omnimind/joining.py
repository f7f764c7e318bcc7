"""Another host of a cluster: where its head is, and the token that it shows there. Starts nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from omnimind import instance
from omnimind.errors import HeadUnreachable, InvalidInput
from omnimind.instance import Paths

_PORT_MAX = 65535
_TOKEN = range(16, 4096)


class Join(msgspec.Struct, frozen=True):
    """Which head to join. patience: seconds to wait for it at first, None: for ever."""

    host: str
    port: int
    patience: float | None = None

    @classmethod
    def parse(cls, text: str, patience: float | None = None) -> Self:
        """Return the head at ``HOST:PORT``. Raises InvalidInput."""
        host, sep, port = text.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not sep or not host or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
            hint = "the head says it: omnimind up shows it as `ray`"
            raise InvalidInput(f"{text!r} is not HOST:PORT of a head", field="address", hint=hint)
        return cls(host, int(port), patience)

    @property
    def address(self) -> str:
        """Return ``HOST:PORT``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def reach(self, timeout: float) -> str:
        """Open and close a connection to the head and return this host's own address as the head sees it.

        Raises HeadUnreachable with the cause.
        """
        try:
            with socket.create_connection((self.host, self.port), timeout) as connection:
                own: str = connection.getsockname()[0]
                return own
        except OSError as error:
            cause = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise HeadUnreachable(f"the head at {self.address} cannot be reached: {cause}") from error


def take_token(paths: Paths, given: str | None, source: str, environ: Mapping[str, str] = os.environ) -> None:
    """Keep the cluster's token in the home, mode 0600.

    given: the token; None takes the one that the home has, else that of Ray's own places (RAY_AUTH_TOKEN,
    RAY_AUTH_TOKEN_PATH, ``~/.ray/auth_token``). source: where a given one came from. Raises InvalidInput
    for what is no token, and where there is none.
    """
    if given is None:
        if _read(paths.ray_token):
            return
        given, source = _rays_own(environ)
    token = given.strip()
    if len(token) not in _TOKEN or not token.isascii() or any(c.isspace() for c in token):
        hint = "copy the head's: HOME/ray-token there, and name it with --token-file"
        what = "there is no token of the cluster here" if not token else f"{source} holds no token"
        raise InvalidInput(what, field="token-file", hint=hint)
    paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _read(paths.ray_token) != token:
        instance.write_atomically(paths.ray_token, token.encode() + b"\n")


def read_token_file(path: Path) -> str:
    """Return what a token file holds. Raises InvalidInput when it cannot be read, or others can."""
    try:
        with path.open(encoding="ascii") as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and stat.S_IMODE(facts.st_mode) & 0o077:
                msg = f"others can read {path}"
                raise InvalidInput(msg, field="token-file", hint=f"chmod 600 {path}")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", field="token-file") from error


def _rays_own(environ: Mapping[str, str]) -> tuple[str, str]:
    if token := environ.get("RAY_AUTH_TOKEN"):
        return token, "RAY_AUTH_TOKEN"
    path = Path(environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return _read(path), str(path)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="ascii").strip()
    return ""
