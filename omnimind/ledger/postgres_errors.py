"""The one border where PostgreSQL's errors become ours, with what to do about them.

A connection that cannot be made has no SQLSTATE, so there the server's words decide. Of a transaction that
was under way when its connection broke nobody knows whether it was committed: `outcome_unknown`.
"""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

from omnimind.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerUnavailable,
    OmniMindError,
)

SOON, LATER = 1.0, 10.0
"""Seconds after which to try again: what passes by itself, and what a person must mend."""

_GOING = {"57P01": "shuts down", "57P02": "has crashed", "57P03": "is starting up"}
_DAMAGED = {"XX001", "XX002", "58030"}

_REFUSALS: tuple[tuple[str, str, str, float], ...] = (
    (
        "password authentication failed",
        "the user or the password is wrong",
        "check the user in ledger.url and the password in ledger.password_file (or PGPASSWORD, ~/.pgpass)",
        LATER,
    ),
    (
        "no password supplied",
        "it asks for a password",
        "write it into a file of mode 0600 and name that in ledger.password_file",
        LATER,
    ),
    ("no pg_hba.conf entry", "it lets nobody in from here", "add a line to the server's pg_hba.conf", LATER),
    ("authentication failed", "it does not accept this user", "check the user in ledger.url", LATER),
    (
        "too many connections for",
        "this user or database has all the connections it may have",
        "raise the CONNECTION LIMIT of the role or the database; a coordinator needs at most 6",
        SOON,
    ),
    ("role ", "this user does not exist", "CREATE ROLE name LOGIN PASSWORD '…'", LATER),
    (
        "database ",
        "this database does not exist",
        "createdb --encoding UTF8 --template template0 NAME",
        LATER,
    ),
    (
        "too many clients",
        "all its connections are taken",
        "raise max_connections; a coordinator needs at most 6",
        SOON,
    ),
    (
        "remaining connection slots",
        "all its connections are taken",
        "raise max_connections; a coordinator needs at most 6",
        SOON,
    ),
    ("starting up", "it is starting up", "wait: it is tried again by itself", SOON),
    ("recovery mode", "it is recovering from a crash", "wait: it is tried again by itself", SOON),
    ("shutting down", "it shuts down", "start it again", SOON),
    (
        "read-only",
        "no host of the url takes writes: they are standbys",
        "promote one, or name the primary in ledger.url",
        SOON,
    ),
    (
        "not read-write",
        "no host of the url takes writes: they are standbys",
        "promote one, or name the primary in ledger.url",
        SOON,
    ),
    ("SSL", "the encrypted connection cannot be made", "check sslmode and sslrootcert in ledger.url", LATER),
    ("resolve host", "its name cannot be resolved", "check the host in ledger.url, and the DNS", SOON),
    ("translate host", "its name cannot be resolved", "check the host in ledger.url, and the DNS", SOON),
    ("refused", "nothing listens there", "start PostgreSQL, or check host and port in ledger.url", SOON),
    (
        "No such file",
        "nothing listens on that socket",
        "start PostgreSQL, or check the host in ledger.url",
        SOON,
    ),
    ("timeout", "it does not answer", "check the network and the firewall on the way", SOON),
)


def state_of(error: BaseException) -> str:
    """Return the SQLSTATE, empty when the server did not give one."""
    return getattr(error, "sqlstate", None) or ""


def outcome_unknown(error: BaseException) -> bool:
    """Return whether a transaction that ended so may or may not be committed."""
    state = state_of(error)
    if isinstance(error, psycopg.Error) and state and not state.startswith("08"):
        return state in _GOING or state in _DAMAGED or state.startswith("57P")
    return True


def as_ours(error: BaseException, where: str) -> OmniMindError:
    """Return the error to raise instead of one that PostgreSQL, its driver or SQLAlchemy raised."""
    if isinstance(error, OmniMindError):
        return error
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    if not isinstance(error, psycopg.Error):
        return LedgerError(f"{where}: {type(error).__name__}: {error}", hint="")
    state = state_of(error)
    if not state:
        return _lost(error, where)
    return _known(state, error, where)


def _lost(error: psycopg.Error, where: str) -> OmniMindError:
    """Return the error for a connection that could not be made or broke."""
    text = str(error)
    for words, what, hint, again in _REFUSALS:
        if words in text:
            return LedgerUnavailable(f"{where}: {what}", hint=hint, retry_after=again)
    return LedgerUnavailable(
        f"{where}: {_line(error)}", hint="check that PostgreSQL runs: pg_isready", retry_after=SOON
    )


def _known(state: str, error: psycopg.Error, where: str) -> OmniMindError:
    """Return the error for a SQLSTATE."""
    said = _line(error)
    if state == "53100":
        hint = "free space on the disk of PostgreSQL; work goes on by itself"
        return LedgerFull(f"no space is left for {where}", hint=hint, retry_after=LATER)
    if state in _DAMAGED:
        hint = "stop OmniMind; check the server's disk and log; restore a backup"
        return LedgerCorrupt(f"{where} is damaged: {said}", hint=hint)
    if state == "42501":
        hint = (
            "GRANT CREATE ON DATABASE name TO role, or give the schema to that role: ALTER SCHEMA … OWNER TO"
        )
        return LedgerUnavailable(f"{where}: this user may not do that: {said}", hint=hint, retry_after=LATER)
    if state in {"42P01", "3F000"}:
        hint = "it is made when a coordinator starts: omnimind up"
        return LedgerError(f"{where}: there is no ledger yet", hint=hint)
    if state == "25006":
        hint = "promote it, or name the primary in ledger.url (host=a,b: the one that takes writes is chosen)"
        return LedgerUnavailable(f"{where} takes no writes: it is a standby", hint=hint, retry_after=SOON)
    if state == "57014":
        hint = "look at what PostgreSQL is doing (pg_stat_activity), or raise ledger.statement_timeout"
        return LedgerUnavailable(f"{where}: a statement took too long: {said}", hint=hint, retry_after=SOON)
    if state == "55P03":
        hint = "end the session that holds the lock (pg_stat_activity, pg_locks)"
        return LedgerUnavailable(f"{where}: another session holds a lock", hint=hint, retry_after=SOON)
    if state in _GOING:
        return LedgerUnavailable(
            f"{where} {_GOING[state]}", hint="it is tried again by itself", retry_after=SOON
        )
    if state[:2] in {"08", "40", "53", "57"}:
        hint = "it is tried again by itself; look into PostgreSQL's log if this repeats"
        return LedgerUnavailable(f"{where}: {said}", hint=hint, retry_after=SOON)
    if state == "23505":
        return LedgerError(f"{where}: UNIQUE: {said}", hint="")
    return LedgerError(f"{where}: {said} (SQLSTATE {state})", hint="")


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
