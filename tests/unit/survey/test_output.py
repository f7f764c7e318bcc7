from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from omnimind.errors import InvalidInput, OmniMindError
from omnimind.survey.output import prepare_folder, write_files


def test_writes_all_and_leaves_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    prepare_folder(out)
    paths = write_files(out, {"r.json": "{}\n", "r.html": "ü\udce9"})
    assert paths == [out / "r.json", out / "r.html"]
    assert sorted(path.name for path in out.iterdir()) == ["r.html", "r.json"]
    assert (out / "r.html").read_text(encoding="utf-8") == "ü\\udce9"
    assert (out / "r.json").stat().st_mode & 0o777 == 0o644


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InvalidInput, match="cannot write into") as caught:
        prepare_folder(tmp_path / "out")
    assert caught.value.field == "out"
    assert "--out" in caught.value.hint


def test_out_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="Not a directory"):
        prepare_folder(tmp_path / "file" / "out")


def test_out_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(**_: object) -> None:  # root may write everywhere, so the kernel is not asked
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", deny)
    with pytest.raises(InvalidInput, match="Permission denied"):
        prepare_folder(tmp_path)


def test_no_room_keeps_the_old_files(tmp_path: Path) -> None:
    """The kernel refuses to write beyond the limit on a file's size, in the middle of the second file."""
    write_files(tmp_path, {"a": "old a", "b": "old b"})
    script = f"""
import resource, signal
from pathlib import Path
from omnimind.errors import OmniMindError
from omnimind.survey.output import write_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_files(Path({str(tmp_path)!r}), {{"a": "new a", "b": "x" * 1_000_000}})
except OmniMindError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "no room to write into" in done.stdout
    assert "free some space" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "a").read_text(encoding="utf-8") == "old a"
    assert (tmp_path / "b").read_text(encoding="utf-8") == "old b"


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OmniMindError, match="No space left on device") as caught:
        write_files(tmp_path, {"a": "new"})
    assert not isinstance(caught.value, InvalidInput)
    assert list(tmp_path.iterdir()) == []
