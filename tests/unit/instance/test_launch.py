from __future__ import annotations

import os
from pathlib import Path

from omnimind import launch


def test_the_tail_of_a_log_is_its_last_lines_without_colours(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert launch.tail(log) == ""
    log.write_text("".join(f"\x1b[36mline {n}\x1b[0m\n" for n in range(20)), encoding="utf-8")
    assert launch.tail(log).splitlines() == [f"  line {n}" for n in range(12, 20)]
    mark = log.stat().st_size
    with log.open("ab") as file:
        file.write(b"new \xff\n")
    assert launch.tail(log, mark) == "  new \N{REPLACEMENT CHARACTER}"


def test_messages_are_read_whole_however_they_come() -> None:
    read, write = os.pipe()
    status = launch._Status(read)
    os.write(write, b'{"progress": "one"}\n{"prog')
    assert list(status.read(10.0)) == [{"progress": "one"}]
    os.write(write, b'ress": "two"}\n')
    assert list(status.read(10.0)) == [{"progress": "two"}]
    assert list(status.read(0.0)) == []
    os.close(write)
    assert list(status.read(10.0)) == []
    assert status.ended
    status.close()
    status.close()
