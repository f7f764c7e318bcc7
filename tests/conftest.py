"""What holds for every test: with `CI=true`, a skipped test fails the session.

On a developer's machine a test may be skipped, with its reason, where a tool (FUSE, strace, a database) is
missing. In CI these are installed, so that a skip there is a hole in the proof that nobody would see.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from omnimind.testing.postgres import PostgresServer

SKIPPED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SKIPPED] = []


def skips_are_failures() -> bool:
    return os.environ.get("CI", "").lower() == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        item.config.stash[SKIPPED].append(f"{item.nodeid}: {reason(report)}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        collector.config.stash[SKIPPED].append(f"{collector.nodeid}: {reason(report)}")
    return report


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the skip's reason; pytest keeps it as (path, line, reason)."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if skips_are_failures() and session.config.stash[SKIPPED] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = config.stash[SKIPPED]
    if skips_are_failures() and skipped:
        terminalreporter.section("skipped, which is a failure with CI=true", red=True)
        for line in skipped:
            terminalreporter.write_line(line)


@contextlib.contextmanager
def _server(**settings: Any) -> Iterator[PostgresServer]:
    from omnimind.testing.postgres import PostgresServer, find

    if find("postgres") is None:
        pytest.skip("PostgreSQL is not there (Debian package: postgresql)")
    # Not in pytest's folders, which are closed to the server's user whenever another session starts.
    with PostgresServer.made(**settings) as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[Callable[..., PostgresServer]]:
    """Return a function that makes a PostgreSQL server, not running yet, with these settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(_server(**settings))


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """Return a running PostgreSQL server that only this test has, to be killed and started again."""
    with _server() as server, server.running():
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a PostgreSQL server that runs for the whole session; tests that kill one make their own."""
    # No test of this server's is about what a power cut leaves.
    with _server(fsync="off") as server, server.running():
        yield server


@pytest.fixture(scope="session")
def new_database(postgres: PostgresServer) -> Callable[[], str]:
    """Return a function that makes an empty database and returns its url."""
    made = itertools.count()
    return lambda: postgres.create(f"db{next(made)}")
