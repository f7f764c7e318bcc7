"""Fill `.venv` from the lock files: `python3 scripts/bootstrap.py runtime|dev|bench`.

Says in one line what it does and how far it is, and nothing when there is nothing to do. What was installed
is remembered in `.venv/omnimind-stamp.json`; a changed lock, project table or folder is brought up to date at
the next call. Needs a Python with `venv` and nothing else.

This file must also be readable by the old Pythons that it refuses (3.6 and later): hence the quoted
annotations.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "omnimind-stamp.json"
LOG = VENV / "bootstrap.log"

OLDEST, NEWEST = (3, 11), (3, 14)  # Ray 2.60 has wheels for these
COVERS = {"runtime": ["runtime"], "dev": ["dev", "runtime"], "bench": ["bench", "runtime"]}

# What a person can do about it -> what pip says then. The first that fits is told.
MENDS = {
    (
        "the disk is full. Make room (.venv needs about 1 GB, the temporary folder as much while it is "
        "filled) and run the same command again."
    ): ("No space left on device", "Disk quota exceeded"),
    (
        "the package index gave a file that is not the one in requirements/. If you use a mirror, ask who "
        "keeps it; do not go around this check."
    ): ("DO NOT MATCH THE HASHES", "do not match the hashes"),
    (
        "the package index cannot be reached. Check the network, or the index that `pip config list` shows, "
        "and run the same command again; what has been downloaded is kept."
    ): (
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeout",
        "ReadTimeout",
        "ProxyError",
        "SSLError",
    ),
    (
        "the package index that `pip config list` shows lacks that package for this Python and processor. "
        "OmniMind is for Linux on x86_64 or aarch64 with CPython 3.11 or later."
    ): ("No matching distribution found",),
}


class BootstrapError(Exception):
    """Something only a person can mend; the message says how."""


class Line:
    """One line of progress on stderr: rewritten in place on a terminal, seldom repeated in a log file."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, text: str) -> None:
        self.text = text
        self.tty = sys.stderr.isatty()
        self.begun = time.monotonic()
        self.next_line = 0.0
        self.show("")

    def show(self, progress: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if self.tty:
            sys.stderr.write(f"\r\x1b[K{self.text} … {progress}" + ("\n" if last else ""))
        elif last or now >= self.next_line:
            self.next_line = now + self.SECONDS_BETWEEN_LINES
            sys.stderr.write(f"{self.text} … {progress}\n")
        sys.stderr.flush()

    def done(self) -> None:
        self.show(f"done in {time.monotonic() - self.begun:.0f} s", last=True)


def use_a_fitting_python() -> None:
    """Go on under a Python of a supported version: this one, or another that the machine has."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        # Tried first: a shim of pyenv may stand for a Python that is not chosen.
        if other and subprocess.call([other, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            os.execv(other, [other, *sys.argv])
    raise BootstrapError(
        "this is Python {}.{}, and OmniMind needs 3.{} to 3.{}. Install one of these (on Debian and Ubuntu: "
        "apt-get install python3.11 python3.11-venv), or name it: make PYTHON=/path/to/python3.11 …".format(
            *sys.version_info[:2], OLDEST[1], NEWEST[1]
        )
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wanted(group: str) -> "dict[str, str]":
    """Return what the stamp must say for `group` to be complete."""
    import tomllib  # noqa: PLC0415  # not in the Pythons that are refused above

    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = [table.get("build-system"), table["project"], table.get("tool", {}).get("hatch")]
    stamp = {"root": str(ROOT), "project": digest(json.dumps(project, sort_keys=True))}
    for name in COVERS[group]:
        stamp[name] = digest((ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8"))
    return stamp


def stamped() -> "dict[str, str]":
    try:
        found = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and PYTHON.exists() else {}


def make_venv() -> None:
    try:
        import ensurepip  # noqa: F401, PLC0415  # Debian's Python comes without it
        import venv  # noqa: F401, PLC0415
    except ImportError as error:
        raise BootstrapError(
            f"{sys.executable} cannot make virtual environments ({error}). On Debian and Ubuntu: "
            f"apt-get install python3.{sys.version_info[1]}-venv"
        ) from error
    shutil.rmtree(VENV, ignore_errors=True)
    # The base interpreter: `sys.executable` may lie in the very folder that was just removed.
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([base, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode:
        raise BootstrapError("`python -m venv .venv` failed: " + (made.stdout + made.stderr).strip()[-500:])


def count_locked(lock: Path) -> int:
    """Return how many packages the lock holds for this Python (a package may be pinned once per version)."""
    pins = [line.split("==")[0] for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line]
    return len({pin for pin in pins if not pin.startswith(("#", " "))})


def installed() -> int:
    return sum(1 for _ in VENV.glob("lib/python3*/site-packages/*.dist-info"))


def progress(said: "list[str]", total: int, new: int) -> str:
    """Read from pip's output how far it is; `new` packages have appeared in `.venv` since it began."""
    if not total:
        return "the project itself"
    ready = sum(text.startswith("Requirement already satisfied") for text in said)
    if any(text.startswith("Installing collected packages") for text in said):
        return f"installed {min(total, ready + max(0, new))}/{total}"
    fetched = ready + sum(text.startswith("Collecting ") for text in said)
    return f"downloaded {min(total, fetched)}/{total}"


def pip(arguments: "list[str]", line: Line, total: int) -> None:
    """Run pip and show how far it is (of `total` packages; 0 means the project itself)."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    said = []  # type: list[str]
    before = installed()
    with subprocess.Popen(
        [*command, "--progress-bar=off", *arguments],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        listener = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
        listener.start()
        while listener.is_alive():
            listener.join(0.2)
            line.show(progress(said, total, installed() - before))
    if process.returncode:
        text = "".join(said)
        with contextlib.suppress(OSError):  # the disk may be full
            LOG.write_text(text, encoding="utf-8")
        mend = next(
            (mend for mend, signs in MENDS.items() if any(sign in text for sign in signs)), "pip failed."
        )
        words = [words.strip() for words in said if words.strip()]
        shown = [line for line in words if line.lower().startswith("error")] or words
        raise BootstrapError("\n  ".join([mend, *shown[-3:], f"All that pip said: {LOG}"]))


def install(group: str, want: "dict[str, str]") -> None:
    """Install what is not stamped yet, and stamp it."""
    have = stamped()
    first = have.get("root") != want["root"]
    if first:
        make_venv()
        have = {"root": want["root"]}
    requirements = ROOT / "requirements" / f"{group}.txt"
    total = count_locked(requirements)
    packages = have.get(group) != want[group]
    what = f"{total} packages" if packages else "the project"
    line = Line(f"omnimind: installing {what} into .venv ({'first time only' if first else 'changed'})")
    try:
        if packages:
            # The lock is complete, so pip need not look for dependencies, and nothing is ever built.
            options = [
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
                f"--requirement={requirements}",
            ]
            pip(options, line, total)
            have.update({name: want[name] for name in COVERS[group]})
            stamp(have)
        if have.get("project") != want["project"]:
            pip(["--no-deps", "--no-build-isolation", "--editable", "."], line, 0)
            stamp({**have, "project": want["project"]})
    except BootstrapError:
        line.show("failed", last=True)
        raise
    line.done()


def stamp(have: "dict[str, str]") -> None:
    STAMP.write_text(json.dumps(have, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def fill(group: str) -> None:
    """Bring `.venv` to what `group` needs; does nothing when it is there already."""
    want = wanted(group)
    if complete(want):
        return
    with (ROOT / "pyproject.toml").open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("omnimind: another command is filling .venv, waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete(want):
            install(group, want)


def complete(want: "dict[str, str]") -> bool:
    have = stamped()
    return all(have.get(key) == value for key, value in want.items())


def main(arguments: "list[str]") -> int:
    if len(arguments) != 1 or arguments[0] not in COVERS:
        sys.stderr.write("usage: bootstrap.py {}\n".format("|".join(COVERS)))
        return 2
    try:
        use_a_fitting_python()
        fill(arguments[0])
    except BootstrapError as error:
        sys.stderr.write(f"omnimind: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"omnimind: .venv cannot be filled: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nomnimind: stopped; the same command goes on from here\n")
        return 130
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
