"""What holds for every test: with `CI=true`, a skipped test fails the session.

On a developer's machine a test may be skipped, with its reason, where a tool (FUSE, strace, a database) is
missing. In CI these are installed, so that a skip there is a hole in the proof that nobody would see.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
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


def _server(folder: Path, **settings: Any) -> PostgresServer:
    from omnimind.testing.postgres import PostgresServer

    _let_pass(folder)
    try:
        return PostgresServer(folder / "server", **settings)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """Return a running PostgreSQL server that only this test has, to be killed and started again."""
    with _server(tmp_path).running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Return a PostgreSQL server that runs for the whole session; tests that kill one make their own."""
    # No test of this server's is about what a power cut leaves.
    with _server(tmp_path_factory.mktemp("postgres"), fsync="off").running() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(postgres: PostgresServer) -> Callable[[], str]:
    """Return a function that makes an empty database and returns its url."""
    made = itertools.count()
    return lambda: postgres.create(f"db{next(made)}")


def _let_pass(folder: Path) -> None:
    """Let the server's user pass through pytest's private folders."""
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.geteuid() and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
