"""Hosts on which `ray up cluster.yaml` of this repository can run: with OmniMind's environment in place.

What is missing of real machines is the package index: the environment of the test is taken for the one that
the file's setup command would have filled from there.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.hosts.harness import HOME, Host, Hosts

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = HOME / "omnimind"
UP_TIMEOUT = 400.0


class RayUp:
    """`ray` on a host of its own, the launcher, for a cluster of others."""

    def __init__(self, hosts: Hosts, launcher: str, head: str, workers: list[str], folder: Path) -> None:
        self.hosts = hosts
        self.launcher = hosts[launcher]
        self.head = hosts[head]
        self.file = folder / "cluster.yaml"
        self.workers = workers
        self.write(workers)
        for host in hosts:
            install(host)

    def write(self, workers: list[str]) -> None:
        """Write the repository's file with its two lines edited, and the key of these hosts."""
        self.workers = workers
        text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
        lines = {
            "  head_ip:": f"  head_ip: {self.head.ip}",
            "  worker_ips:": f"  worker_ips: [{', '.join(self.hosts[w].ip for w in workers)}]",
            "  ssh_private_key:": f"  ssh_private_key: {self.hosts.key}",
        }
        edited = [
            next((new for start, new in lines.items() if line.startswith(start)), line)
            for line in text.splitlines()
        ]
        assert sum(a != b for a, b in zip(edited, text.splitlines(), strict=True)) == len(lines)
        self.file.write_text("\n".join(edited) + "\n", encoding="utf-8")

    def ray(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ray`, as a person does in the repository's folder."""
        script = 'cd "$0" && exec ray "$@"'
        argv = ["sh", "-c", script, ROOT, words[0], *words[1:]]
        return self.launcher.run(argv, timeout=UP_TIMEOUT, check=check)

    def up(self) -> str:
        return self.ray("up", "-y", "--no-config-cache", str(self.file)).stdout

    def down(self) -> str:
        done = self.ray("down", "-y", str(self.file))
        return done.stdout + done.stderr

    def on_head(self, line: str, *, timeout: float = 120.0) -> str:
        """Return what a line says in a login shell of the head."""
        return shell(self.head, line, timeout=timeout)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes as the coordinator sees them."""
        found: list[dict[str, Any]] = json.loads(self.on_head("omnimind node list --json"))["items"]
        return found

    def active(self) -> dict[str, str]:
        """Return the ids of the nodes that take work, by their addresses."""
        return {n["ip_address"]: n["node_id"] for n in self.nodes() if n["status"] in {"active", "busy"}}


def shell(host: Host, line: str, *, timeout: float = 120.0) -> str:
    return host.run(["bash", "-c", f". ~/omnimind/deploy/ray/env.sh; {line}"], timeout=timeout).stdout


def install(host: Host) -> None:
    """Put the test's environment where `scripts/bootstrap.py` would have made one, and its stamp there."""
    folder = host.home / INSTALLED.relative_to(HOME) / ".venv"
    folder.mkdir(parents=True)
    for entry in Path(sys.prefix).iterdir():
        if entry.name != "omnimind-stamp.json":
            (folder / entry.name).symlink_to(entry)
    (folder / "omnimind-stamp.json").write_text(json.dumps(_stamp()), encoding="utf-8")


def _stamp() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    bootstrap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootstrap)
    return {**bootstrap.wanted("runtime"), "root": str(INSTALLED)}


def sections(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
