"""Limits of cgroups count as the machine: read from trees of files as the kernel shows them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from omnimind.homeostasis import limits
from omnimind.homeostasis.pressure import MemorySample
from omnimind.homeostasis.reader import MachineReader, Reading, measure

GIB = 1 << 30


class Tree:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path, own: str) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self" / "cgroup").write_text(own)

    def put(self, folder: str, **files: str) -> None:
        place = self.cgroups / folder.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name.replace("__", ".")).write_text(text + "\n")

    def read(self) -> Reading:
        return MachineReader("/", proc=self.proc, cgroups=self.cgroups).read()


def v2(root: Path) -> Tree:
    tree = Tree(root, "0::/kubepods/pod1/box\n")
    tree.put("/kubepods", memory__max="max", memory__current=str(50 * GIB), cpu__max="max 100000")
    tree.put(
        "/kubepods/pod1",
        memory__max=str(1 * GIB),
        memory__current=str(GIB * 9 // 10),
        memory__stat=f"anon 5\ninactive_file {GIB // 4}\nactive_file {GIB // 4}\nfile_dirty {GIB // 10}",
        cpu__max="50000 100000",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
    )
    tree.put("/kubepods/pod1/box", memory__max="max", memory__current="5", cpu__max="max 100000")
    return tree


def test_v2_the_limit_of_a_parent_counts_as_the_machine(tmp_path: Path) -> None:
    reading = v2(tmp_path).read()
    assert reading.cores == 0.5
    assert reading.cpu_used == 2.5
    assert reading.memory.limit == GIB
    # 0.9 in use, of which 0.5 is cache, of which 0.1 must be written first.
    assert reading.memory.percent == pytest.approx(50.0, abs=0.1)


def test_v1_with_its_own_names_and_units(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n0::/\n")
    tree.put(
        "/memory/docker/a",
        memory__limit_in_bytes=str(2 * GIB),
        memory__usage_in_bytes=str(GIB),
        memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB // 2}\ntotal_dirty 0",
    )
    tree.put("/memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="77")
    tree.put(
        "/cpu/docker/a", cpu__cfs_quota_us="75000", cpu__cfs_period_us="100000", cpuacct__usage="1500000000"
    )
    reading = tree.read()
    assert (reading.cores, reading.cpu_used) == (0.75, 1.5)
    assert reading.memory == MemorySample(2 * GIB, GIB, GIB // 2)


def test_v1_with_the_controllers_mounted_apart(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "3:cpu:/box\n2:cpuacct:/box\n0::/\n")
    tree.put("/cpu/box", cpu__cfs_quota_us="25000", cpu__cfs_period_us="100000")
    tree.put("/cpuacct/box", cpuacct__usage="4000000000")
    reading = tree.read()
    assert (reading.cores, reading.cpu_used) == (0.25, 4.0)
    (tree.proc / "self" / "cgroup").write_text("3:cpu:/box\n2:cpuacct:/other\n0::/\n")
    assert tree.read().cores == len(os.sched_getaffinity(0))


def test_a_container_sees_its_own_group_where_the_host_has_its_root(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "0::/not/visible/here\n")
    tree.put("/", memory__max=str(GIB), memory__current=str(GIB // 2))
    assert tree.read().memory == MemorySample(GIB, GIB // 2)


def test_without_limits_it_is_the_machine(tmp_path: Path) -> None:
    reading = Tree(tmp_path, "0::/\n").read()
    machine = psutil.virtual_memory()
    assert reading.memory.limit == machine.total
    assert reading.cores == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("text", ["", "max", "-1", "12 oranges"])
def test_what_is_no_limit(text: str) -> None:
    assert limits.memory(limits.Group(2, {"memory.max": text, "memory.current": "5"})) is None
    assert limits.cores(limits.Group(2, {"cpu.max": f"{text} 100000"})) is None


def test_lineage_and_hierarchies() -> None:
    assert limits.lineage("/a/b") == ["/a/b", "/a", "/"]
    assert limits.lineage("/") == ["/"]
    assert limits.hierarchies("0::/x\n4:memory:/y:z\nrubbish\n2:cpu,cpuacct:/w\n") == {
        "": "/x", "memory": "/y:z", "cpu": "/w", "cpuacct": "/w",
    }  # fmt: skip


def test_stall_is_read_from_its_total() -> None:
    text = "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=7\n"
    assert limits.psi_total(text) == 2.5
    assert limits.psi_total("full total=7") is None
    assert limits.psi_total("some total=x") is None


def test_a_busy_loop_is_seen_on_this_machine() -> None:
    """The witness is this process's own CPU clock: what it burns, the reading must hold at least."""
    reader = MachineReader()
    before, mine = reader.read(), time.process_time()
    while time.process_time() - mine < 0.5:
        pass
    after = reader.read()
    # The kernel counts in hundredths of a second on each core.
    assert after.cpu_used - before.cpu_used >= 0.4
    metrics = measure(before, after)
    assert 0 < metrics.cpu_percent <= 100
    assert 0 < metrics.memory_percent <= 100
    assert 0 < metrics.disk_percent <= 100


def test_no_time_between_two_readings_is_no_load() -> None:
    reading = MachineReader().read()
    assert measure(reading, reading).cpu_percent == 0.0
