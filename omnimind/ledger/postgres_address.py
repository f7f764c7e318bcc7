"""Where a PostgreSQL database is, and how it is connected to: from the settings to libpq's parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from omnimind.config.sections import LedgerSettings
from omnimind.errors import ConfigError

SCHEMES = ("postgresql", "postgres")

_SECRET = {"password", "passfile", "sslpassword"}


class Address:
    """A database and one schema in it. Raises ConfigError for a url that is none, or that has a password.

    shard: 0 is the schema ``omnimind``, n is ``omnimind_n``.
    """

    def __init__(self, settings: LedgerSettings, shard: int = 0) -> None:
        self.settings = settings
        self.schema = f"omnimind_{shard}" if shard else "omnimind"
        self._given = _parsed(settings.url)
        hosts = str(self._given.get("host") or self._given.get("hostaddr") or "localhost").split(",")
        ports = str(self._given.get("port") or 5432).split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        named = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
        self.where = f"{named}/{self._given['dbname']}"
        """For people: hosts, port and database, without user and secrets."""

    def __str__(self) -> str:
        return f"PostgreSQL at {self.where}, schema {self.schema}"

    def parameters(self, role: str) -> dict[str, Any]:
        """Return libpq's parameters for a connection that does `role`; the password file is read anew.

        A host that falls silent is noticed within `silence_timeout`: by the kernel, which gives up data that
        is not acknowledged (tcp_user_timeout) and asks when there is nothing to send (keepalives).
        """
        silence = self.settings.silence_timeout
        asks = max(1, math.floor(silence / 3))
        known: dict[str, Any] = {
            "application_name": f"{self.schema} {role}",
            "client_encoding": "UTF8",
            "connect_timeout": max(2, math.ceil(self.settings.connect_timeout)),
            "tcp_user_timeout": int(silence * 1000),
            "keepalives": 1,
            "keepalives_idle": asks,
            "keepalives_interval": asks,
            "keepalives_count": 2,
            # Of several hosts, the one that is the primary now.
            "target_session_attrs": "read-write",
        }
        known |= self._given
        if self.settings.password_file:
            known["password"] = _password(Path(self.settings.password_file).expanduser())
        return known


def _parsed(url: str) -> dict[str, Any]:
    field = "ledger.url"
    shape = "write postgresql://user@host:5432/database"
    if url.partition("://")[0] not in SCHEMES:
        raise ConfigError("it is no PostgreSQL url", field=field, hint=shape)
    try:
        given: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.Error:
        # What libpq says repeats parts of the url.
        raise ConfigError("libpq cannot read this url", field=field, hint=shape) from None
    if _SECRET & given.keys():
        hint = "put the password into a file of mode 0600 and name it in ledger.password_file"
        raise ConfigError("a password must not stand in the url", field=field, hint=hint)
    if not given.get("dbname"):
        raise ConfigError("the url names no database", field=field, hint=shape)
    return given


def _password(path: Path) -> str:
    field = "ledger.password_file"
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        msg = f"{path} cannot be read: {reason}"
        raise ConfigError(msg, field=field, hint="name a file that this user can read") from None
    if mode & 0o077:
        msg = f"others may read {path}"
        raise ConfigError(msg, field=field, hint=f"chmod 600 {path}")
    if not text:
        raise ConfigError(f"{path} is empty", field=field, hint="write the password into it")
    return text
