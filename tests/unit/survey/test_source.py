"""Files that nobody should have written: each is refused with a reason, and none takes the process along."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from omnimind.survey import source
from omnimind.survey.analysis import analyse_file
from omnimind.survey.source import UNREADABLE


def refusal(path: Path) -> Exception:
    with pytest.raises(UNREADABLE) as caught:
        analyse_file(path=str(path), root=str(path.parent))
    assert isinstance(caught.value, Exception)
    return caught.value


def refused(tmp_path: Path, data: bytes | str, name: str = "module.py") -> Exception:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return refusal(path)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"x = 1\ndef f(:\n", SyntaxError, ["invalid syntax", "module.py", "line 2"]),
        (b"if 1:\n  x = 1\n\ty = 2\n", SyntaxError, ["inconsistent use of tabs", "line 3"]),
        (b"x = 1\nreturn 2\n", SyntaxError, ["'return' outside function", "line 2"]),
        (b"x = 1\ny = '\0'\n", SyntaxError, ["null bytes", "line 2"]),
        (b"x = 1\ny = '\xff'\n", UnicodeError, ["line 2", "0xff", "offset 11", "utf-8"]),
        (b"# coding: no-such-thing\n", SyntaxError, ["unknown encoding", "no-such-thing"]),
        (b"# coding: hex\n41\n", SyntaxError, ["encoding", "'hex'"]),
        (b"\xef\xbb\xbf# coding: latin-1\n", SyntaxError, ["byte order mark"]),
        (b"# coding: ascii\nx = '\xe9'\n", UnicodeError, ["line 2", "ascii"]),
        (b"# coding: unicode_escape\nx = '\\ud800'\n", SyntaxError, ["surrogate", "line 2"]),
        (b"(" * 300, SyntaxError, ["too many nested parentheses"]),
        (b"-" * 100_000 + b"1", (RecursionError, MemoryError), ["nested too deeply"]),
        (b"a" + b".a" * 100_000, (RecursionError, MemoryError), ["nested too deeply"]),
        (b"x = 1" + b" + 1" * 100_000, (RecursionError, MemoryError), ["nested too deeply"]),
        (b"if 1: pass\n" + b"elif 1: pass\n" * 20_000, (RecursionError, MemoryError), ["nested too deeply"]),
        (b"[1 " + b"for a in b " * 100_000 + b"]", (RecursionError, MemoryError), ["nested too deeply"]),
        (b"f(" + b",".join(b"a%d=1" % i for i in range(20_000)) + b")", ValueError, ["keyword arguments"]),
        (b"1" * 5000, SyntaxError, ["digits"]),
    ],
)
def test_each_fault_has_its_reason(
    tmp_path: Path, data: bytes, kind: type[Exception] | tuple[type[Exception], ...], words: list[str]
) -> None:
    error = refused(tmp_path, data)
    assert isinstance(error, kind)
    for word in words:
        assert word in str(error)


def test_the_reason_is_small_and_travels(tmp_path: Path) -> None:
    for data in (b"x = '" + b"a" * 1_000_000 + b"' '\xff'", b"x = (" + b"a, " * 100_000 + b"b c)"):
        error = refused(tmp_path, data)
        packed = pickle.dumps(error)
        assert len(packed) < 2000
        assert str(pickle.loads(packed)) == str(error)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "huge.py"
    with path.open("wb") as file:
        file.truncate(source.MAX_BYTES + 1)
    assert "larger than 8 MiB" in str(refusal(path))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    error = refusal(tmp_path / "gone.py")
    assert isinstance(error, FileNotFoundError)
    assert "gone.py" in str(error)


def test_a_folder_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    assert "not a regular file" in str(refusal(tmp_path / "folder.py"))


def test_a_pipe_without_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    assert "not a regular file" in str(refusal(tmp_path / "pipe.py"))


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: str, _flags: int) -> int:  # root may read everything, so the kernel is not asked
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", deny)
    assert "Permission denied" in str(refusal(tmp_path / "locked.py"))


@pytest.mark.parametrize(
    "data",
    [
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '\x80'\n",
        b"\xef\xbb\xbfx = 1\n# bom\n",
        "x = 'ü'\n# utf-8\n".encode(),
        b"# coding: utf-7\nx = '+AOk-'\n",
    ],
)
def test_declared_encodings_are_honoured(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.py").write_bytes(data)
    result = analyse_file(path=str(tmp_path / "m.py"), root=str(tmp_path))
    assert result["code"] == 1
    assert result["bytes"] == len(data)


def test_nothing_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "m.py").write_text(f"open({str(trace)!r}, 'w')\n", encoding="utf-8")
    analyse_file(path=str(tmp_path / "m.py"), root=str(tmp_path))
    assert not trace.exists()


def test_an_import_from_the_future_here_does_not_leak_into_the_file(tmp_path: Path) -> None:
    # The survey's own modules have `from __future__ import annotations`; under it this would compile.
    (tmp_path / "m.py").write_text("def f():\n    x: (yield) = 1\n", encoding="utf-8")
    analyse_file(path=str(tmp_path / "m.py"), root=str(tmp_path))


def test_the_warning_state_of_the_process_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("x = '\\d'\n", encoding="utf-8")
    before = warnings.showwarning, list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert analyse_file(path=str(tmp_path / "m.py"), root=str(tmp_path))["warnings"] == 1
        assert not caught
        warnings.warn("still heard", UserWarning, stacklevel=1)
        assert len(caught) == 1
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_what_another_thread_warns_of_is_not_lost_and_not_ours() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with source._captured_warnings() as own:
            thread = threading.Thread(target=warnings.warn, args=("from elsewhere", UserWarning))
            thread.start()
            thread.join()
        assert own == []
        assert [str(w.message) for w in heard] == ["from elsewhere"]


def test_threads_do_not_mix_their_warnings(tmp_path: Path) -> None:
    found: dict[int, set[int]] = {}

    def work(number: int) -> None:
        path = tmp_path / f"m{number}.py"
        path.write_text("x = '\\d'\n" * number, encoding="utf-8")
        found[number] = {analyse_file(path=str(path), root=str(tmp_path))["warnings"] for _ in range(10)}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {number} for number in range(1, 7)}


def test_deep_nesting_in_a_thread_does_not_end_the_process(tmp_path: Path) -> None:
    shapes = [
        "'(' * 150 + ')' * 150",
        "'lambda:' * 50000 + '1'",
        "'not ' * 50000 + '1'",
        "'1 if 1 else ' * 50000 + '1'",
    ]
    shapes += ["'{1:' * 150 + '1' + '}' * 150", "'[1 ' + 'for a in b ' * 200000 + ']'", "'a' + '()' * 200000"]
    shapes += ["'import a' + '.a' * 200000", "'x: a' + '[a]' * 100000", "'a=' * 100000 + '1'"]
    script = f"""
import sys, threading
from pathlib import Path
from omnimind.survey.analysis import analyse_file
from omnimind.survey.source import UNREADABLE
def work():
    for number, text in enumerate([{", ".join(shapes)}]):
        path = Path({str(tmp_path)!r}, f"m{{number}}.py")
        path.write_text(text)
        try:
            analyse_file(path=str(path), root={str(tmp_path)!r})
        except UNREADABLE:
            pass
    print("alive")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
