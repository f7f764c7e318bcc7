"""Write the lock files under `requirements/` from `pyproject.toml` (`make lock`).

Each lock pins every package, direct or not, with the hashes of all its files, and names no index: pip takes
packages from wherever the machine is set up to take them, and refuses any whose hash differs. What is locked
already stays as it is; `--upgrade` moves to the newest that `pyproject.toml` allows.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")

# name -> extras. Each is resolved within the ones before it, so that all can share one `.venv`.
LOCKS = {"runtime": [], "dev": ["dev", "postgres"], "bench": ["bench"]}

HEADER = """\
# Written by `make lock` from pyproject.toml: {what}.
# For Linux on x86_64 and aarch64, CPython 3.11 to 3.14. Names no index on purpose.
"""

# These hold wherever the locks are for, so they would only be noise on every line.
ALWAYS_TRUE = re.compile(
    r"(python_full_version < '3\.15'|(platform_python_)?implementation(_name)? [!=]= '\w+'"
    r"|sys_platform == 'linux')( and )?"
)


def without_noise(lock: str) -> str:
    """Return the lock's text with those markers left out that are true on every supported machine."""
    lines = []
    for line in lock.splitlines():
        pin, semicolon, marker = line.removesuffix(" \\").partition(" ; ")
        if semicolon:
            marker = ALWAYS_TRUE.sub("", marker).removesuffix(" and ")
            lines.append((f"{pin} ; {marker}" if marker else pin) + " \\")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def resolve(name: str, extras: list[str], within: list[Path], arguments: list[str]) -> Path:
    """Bring one lock up to date and return its path."""
    target = ROOT / "requirements" / f"{name}.txt"
    command = [str(UV), "pip", "compile", "pyproject.toml", "--quiet", "--universal", "--python-version=3.11"]
    command += [
        "--group=build",
        "--generate-hashes",
        "--no-annotate",
        "--no-header",
        f"--output-file={target}",
    ]
    command += [f"--extra={extra}" for extra in extras]
    command += [f"--constraints={path}" for path in within]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True)
    what = " + ".join(["the runtime", *(f"extra `{extra}`" for extra in extras)])
    target.write_text(HEADER.format(what=what) + without_noise(target.read_text()))
    return target


def main(arguments: list[str]) -> None:
    done: list[Path] = []
    for name, extras in LOCKS.items():
        print(f"omnimind: locking requirements/{name}.txt", file=sys.stderr, flush=True)
        done.append(resolve(name, extras, list(done), arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
