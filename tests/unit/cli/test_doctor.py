"""`doctor`: each check finds what it looks for, and nothing on a machine in order."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from omnimind import launch, ownership, processes
from omnimind.cli import checks, checks_machine, doctor
from omnimind.cli.findings import Facts, Finding, Fix
from omnimind.cli.session import Session
from omnimind.cluster.states import NodeStatus
from omnimind.errors import Unavailable
from omnimind.instance import Paths, Record, prepare, write_record

Run = Callable[..., Result]


@pytest.fixture
def facts(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setenv("OMNIMIND_HOME", str(tmp_path / "h"))
    return Facts(Session(connect=lambda _: fake))


@pytest.fixture
def paths(facts: Facts) -> Paths:
    prepare(facts.paths)
    return facts.paths


@pytest.fixture
def record(paths: Paths) -> Iterator[Record]:
    """Make this process pass for the supervisor of a running instance."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        me = processes.identify(os.getpid())
        assert me is not None
        made = Record(
            home=str(paths.home),
            versions={},
            supervisor=me,
            started_at=1.0,
            state="ready",
            children={"ray": me},
            ray_address=f"127.0.0.1:{server.getsockname()[1]}",
        )
        write_record(paths, made)
        yield made


def gone(fake: Any) -> None:
    fake.unreachable = True


def test_a_coordinator_that_answers(facts: Facts) -> None:
    assert checks.coordinator(facts) == Finding("coordinator", "ok", "answers: pid 42, epoch 3")


def test_no_instance_is_nothing_wrong(facts: Facts, fake: Any) -> None:
    gone(fake)
    for check in (
        checks.coordinator,
        checks.ledger,
        checks.ray,
        checks.nodes,
        checks.versions,
        checks.clocks,
    ):
        assert check(facts).state == "skipped"


def test_a_coordinator_that_does_not_answer_though_its_instance_lives(
    facts: Facts, fake: Any, record: Record
) -> None:
    gone(fake)
    found = checks.coordinator(facts)
    assert found.state == "error"
    assert found.why
    assert str(facts.paths.logs) in found.mend


def test_a_coordinator_in_trouble_says_why(facts: Facts, fake: Any) -> None:
    status = fake.on_status(None) | {"trouble": {"detail": "the disk is full", "hint": "free space"}}
    fake.on_status = lambda _: status
    found = checks.coordinator(facts)
    assert (found.state, found.mend) == ("error", "free space")
    assert "the disk is full" in found.what


def test_a_damaged_ledger_as_its_coordinator_sees_it(facts: Facts, fake: Any) -> None:
    assert checks.ledger(facts).state == "ok"
    fake.on_check = lambda _: ["page 7 is broken"]
    found = checks.ledger(facts)
    assert (found.state, found.what) == ("error", "page 7 is broken")


def test_a_ledger_at_rest_is_read_and_left_as_it_is(facts: Facts, fake: Any, paths: Paths) -> None:
    gone(fake)
    connection = sqlite3.connect(paths.ledger)
    connection.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000));")
    connection.close()
    before = paths.ledger.read_bytes()
    assert checks.ledger(facts).state == "ok"
    assert paths.ledger.read_bytes() == before
    paths.ledger.write_bytes(before[:8192] + b"\xff" * 8192 + before[16384:])
    assert checks.ledger(facts).state == "error"
    paths.ledger.write_bytes(b"no database at all" * 100)
    assert checks.ledger(facts).state == "error"


def test_ray_that_answers_and_ray_that_does_not(facts: Facts, paths: Paths, record: Record) -> None:
    assert checks.ray(facts).state == "ok"
    dead = processes.Process(record.supervisor.pid, 1, "")
    write_record(paths, msgspec.structs.replace(record, children={"gcs_server": dead}))
    found = checks.ray(Facts(facts.session))
    assert (found.state, found.what) == ("error", "gone: gcs_server")
    write_record(paths, msgspec.structs.replace(record, ray_address="127.0.0.1:1"))
    assert checks.ray(Facts(facts.session)).state == "error"


def test_nodes(facts: Facts, fake: Any) -> None:
    assert checks.nodes(facts).state == "ok", "a cordoned node was meant to be one"
    fake.nodes["nod_b"].status = NodeStatus.OFFLINE
    found = checks.nodes(Facts(facts.session))
    assert (found.state, found.what) == ("warning", "beta is offline")
    fake.nodes["nod_b"].hostname, fake.nodes["nod_b"].ip_address = "alpha", "10.0.0.1"
    assert checks.nodes(Facts(facts.session)).state == "ok", "that machine came back as another node"
    fake.nodes.clear()
    assert checks.nodes(Facts(facts.session)).state == "error"


def test_versions_must_be_the_same_everywhere(
    facts: Facts, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_own_versions", lambda: {"omnimind": "0", "ray": "2.60.0"})
    fake.nodes["nod_a"].versions = {"omnimind": "0", "ray": "2.60.0"}
    assert checks.versions(facts).state == "ok"
    fake.nodes["nod_b"].versions = {"omnimind": "0", "ray": "2.60.1"}
    found = checks.versions(Facts(facts.session))
    assert found.state == "error"
    assert "ray: 2.60.0 (this command, alpha), 2.60.1 (beta)" in found.what


def test_clocks(facts: Facts, fake: Any) -> None:
    assert checks.clocks(facts).state == "ok"
    fake.nodes["nod_b"].clock_skew = -0.9
    assert "beta is 0.9 s away" in checks.clocks(Facts(facts.session)).what
    fake.on_ping = lambda _: {"now": 1.0}
    found = checks.clocks(Facts(facts.session))
    assert found.state == "error"
    assert found.what.startswith("this machine is")


def test_loose_permissions_are_closed(facts: Facts, paths: Paths) -> None:
    assert checks.permission(facts).state == "ok"
    paths.token.chmod(0o640)
    found = checks.permission(facts)
    assert found.state == "error"
    assert str(paths.token) in found.what
    assert found.fix is not None
    found.fix.do()
    assert checks.permission(facts).state == "ok"


def test_a_socket_that_is_left_over_is_removed_unless_somebody_answers(
    facts: Facts, fake: Any, paths: Paths
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(paths.socket))
    assert checks_machine.socket_file(facts).state == "ok"
    gone(fake)
    found = checks_machine.socket_file(Facts(facts.session))
    assert found.state == "warning"
    assert found.fix is not None
    found.fix.do()
    assert checks_machine.socket_file(Facts(facts.session)).state == "skipped"


def test_a_running_instance_without_its_socket(facts: Facts, record: Record) -> None:
    assert checks_machine.socket_file(facts).state == "error"


def test_processes_that_are_left_over(
    facts: Facts, fake: Any, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks_machine.leftovers(facts).state == "ok"
    me = processes.identify(os.getpid())
    monkeypatch.setattr(ownership, "leftovers", lambda _: [me])
    assert checks_machine.leftovers(facts).fix is None, "a coordinator that answers is not ended"
    gone(fake)
    found = checks_machine.leftovers(Facts(facts.session))
    assert found.state == "warning"
    assert str(os.getpid()) in found.what
    stopped: list[Path] = []
    monkeypatch.setattr(launch, "stop", stopped.append)
    assert found.fix is not None
    found.fix.do()
    assert stopped == [paths.home]


def test_a_full_disk(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(free: int, total: int) -> Any:
        return lambda _: type("Usage", (), {"free": free, "total": total})

    for free, state in ((50, "ok"), (9, "warning"), (3, "error")):
        monkeypatch.setattr(shutil, "disk_usage", usage(free << 30, 100 << 30))
        assert checks_machine.disk(facts).state == state
    monkeypatch.setattr(shutil, "disk_usage", usage(100 << 20, 1 << 30))
    assert checks_machine.disk(facts).state == "error"
    monkeypatch.setattr(shutil, "disk_usage", usage(100 << 20, 1 << 30))
    assert checks_machine.shared_memory(facts).state in {"warning", "skipped"}


def test_a_foreign_package_in_front_of_ours(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors import preflight
    from omnimind.errors import BadInstallation

    def foreign() -> None:
        raise BadInstallation("`import actors` finds /elsewhere", hint="take it off PYTHONPATH")

    monkeypatch.setattr(preflight, "check", foreign)
    found = checks_machine.packages(facts)
    assert (found.state, found.mend) == ("error", "take it off PYTHONPATH")


def test_settings_that_cannot_be_had(facts: Facts, paths: Paths) -> None:
    assert checks_machine.settings(facts).state == "ok"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        paths.config.write_text(f"[ray]\nport = {taken.getsockname()[1]}\n")
        found = checks_machine.settings(facts)
    assert found.state == "error"
    assert found.what.startswith("ray.port: ")
    paths.config.write_text("[ray]\nprot = 1\n")
    assert "did you mean ray.port?" in checks_machine.settings(facts).mend


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(facts: Facts) -> None:
    def broken(_: Facts) -> Finding:
        raise RuntimeError("oops")

    found = doctor.examine(facts, (broken, checks.coordinator))
    assert [f.state for f in found] == ["error", "ok"]
    assert "RuntimeError: oops" in found[0].what


class TestCommand:
    """The command itself, on checks of our own."""

    @pytest.fixture(autouse=True)
    def planted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mended = False

        def fixable(_: Facts) -> Finding:
            if self.mended:
                return Finding("mode", "ok", "private")
            return Finding("mode", "error", "open", "others read it", "--fix", Fix("close it", self.mend))

        monkeypatch.setattr(doctor, "CHECKS", (fixable,))

    def mend(self) -> None:
        self.mended = True

    def test_says_what_why_and_how_and_exits_one(self, run: Run) -> None:
        result = run("doctor")
        assert result.exit_code == 1
        for text in ("open", "why:  others read it", "mend: --fix"):
            assert text in result.stdout
        assert "doctor --fix" in result.stderr

    def test_json(self, run: Run) -> None:
        result = run("doctor", "--json")
        assert result.exit_code == 1
        assert result.stderr == ""
        assert json.loads(result.stdout)["items"] == [
            {
                "check": "mode",
                "state": "error",
                "what": "open",
                "why": "others read it",
                "mend": "--fix",
                "fixable": True,
            }
        ]

    def test_plan_mends_nothing(self, run: Run) -> None:
        assert run("doctor", "--fix", "--plan").exit_code == 10
        assert not self.mended
        assert run("doctor", "--plan").exit_code == 2

    def test_fix_mends_and_looks_again(self, run: Run) -> None:
        result = run("doctor", "--fix")
        assert result.exit_code == 0
        assert "fixed: close it" in result.stderr
        assert run("doctor", "--fix", "--plan").exit_code == 0


def test_an_error_is_not_taken_for_an_answer(facts: Facts, fake: Any) -> None:
    assert facts.answers
    gone(fake)
    assert not Facts(facts.session).answers
    assert isinstance(Facts(facts.session).status, Unavailable)
