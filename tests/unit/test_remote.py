"""Commands on other hosts: what ssh is asked for, and what its failures are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnimind import remote
from omnimind.errors import HostUnreachable
from omnimind.remote import Remote

_SSH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > {folder}/asked
cat > {folder}/heard
echo said; echo "Permission denied (publickey)." >&2
{end}
"""


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(_SSH.format(folder=tmp_path, end=end), encoding="utf-8")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked").read_text(encoding="utf-8").splitlines()


def test_the_token_goes_by_standard_input_and_never_in_the_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "exit 0")
    done = Remote("w1", "me", "/k").run(["node", "run", "--token-file", "-"], text="secret")
    assert done.stdout == "said\n"
    assert (tmp_path / "heard").read_text(encoding="utf-8") == "secret"
    words = asked(tmp_path)
    assert "secret" not in "\n".join(words)
    assert words[-2] == "me@w1"
    assert words[words.index("-i") + 1] == "/k"
    assert "BatchMode=yes" in words
    assert "StrictHostKeyChecking=no" not in words


def test_hosts_of_a_file_of_ray_up_are_taken_as_ray_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "exit 3")
    assert Remote("w1", any_key=True).run(["down"]).returncode == 3
    words = asked(tmp_path)
    assert "StrictHostKeyChecking=no" in words
    assert words[-2] == "w1"
    assert "-i" not in words


def test_what_keeps_ssh_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "exit 255")
    with pytest.raises(HostUnreachable, match=r"w1: Permission denied \(publickey\)") as caught:
        Remote("w1", "me").run(["down"])
    assert caught.value.hint == "try: ssh me@w1 true"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostUnreachable, match="no ssh here"):
        Remote("w1").run(["down"])


def test_an_answer_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "exec sleep 30")
    with pytest.raises(HostUnreachable, match="does not answer within"):
        Remote("w1").run(["down"], timeout=0.5)


@pytest.mark.parametrize("word", ["plain", "two words", "it's", 'a"b', "$HOME", "x;y", "a=b,c=d"])
def test_words_arrive_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    own = tmp_path / "omnimind"
    own.write_text('#!/bin/sh\nfor word in "$@"; do printf "<%s>" "$word"; done\n', encoding="utf-8")
    own.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    line = remote.command(["node", word])
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f"<node><{word}>")


def test_this_machine_knows_its_own_addresses() -> None:
    assert remote.is_here("127.0.0.1")
    assert remote.is_here("localhost")
    assert not remote.is_here("192.0.2.10")
    assert not remote.is_here("no-such-host.invalid")
