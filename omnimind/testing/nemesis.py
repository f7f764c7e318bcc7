"""The plan of what goes wrong and when, written down before a run begins; each fault has its id."""

from __future__ import annotations

from omnimind.cluster import events as ev
from omnimind.testing.clock import START
from omnimind.testing.cluster import SimCluster
from omnimind.testing.node import SimNode

_SLOT = 4.0


class Nemesis:
    """Faults of machines, links, disk and clocks. Those per message and per flush are drawn on the spot."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.draws = sim.draws

    def plan(self) -> None:
        """Put all faults of the first phase on the clock."""
        options = self.sim.options
        slots = int(options.seconds / _SLOT)
        places = [node.name for node in self.sim.nodes] + [client.name for client in self.sim.clients]
        for place in places:
            for n in range(slots):
                if self.draws.fires("cut", place, n, options.cut):
                    self._at("cut at", place, n, self._cut, place, n)
        self._swizzle()
        self._plan_disk(slots)
        for n in range(int(options.seconds)):
            if self.draws.fires("disk_unknown", "disk", n, options.disk_unknown):
                self.sim.clock.at(START + n, self._unknown, n)
            if self.draws.fires("stall", "co", n, options.stall):
                self.sim.clock.at(START + n + 0.83, self._stall, n)
            for node in self.sim.nodes:
                if self.draws.fires("crash", node.name, n, options.crash):
                    self.sim.clock.at(START + n + 0.37, self._crash, node, n)
                if self.draws.fires("pause", node.name, n, options.pause):
                    self.sim.clock.at(START + n + 0.61, self._pause, node, n)

    def _plan_disk(self, slots: int) -> None:
        options = self.sim.options
        for n in range(slots):
            if self.draws.fires("disk_tight", "disk", n, options.disk_tight):
                self._at("disk_tight", "disk at", n, self._tight, n)
            for kind in ("disk_full", "disk_error"):
                if self.draws.fires(kind, "disk", n, getattr(options, kind)):
                    self._at(
                        kind, "disk at", n, self._disk, "full" if kind == "disk_full" else "unavailable", n
                    )

    def _at(self, kind: str, place: str, n: int, call: object, *args: object) -> None:
        assert callable(call)
        self.sim.clock.at(START + (n + self.draws.value(kind, place, n)) * _SLOT, call, *args)

    # ---------------------------------------------------------------------------------------- links

    def _cut(self, place: str, n: int) -> None:
        """Cut a link one way, the other way, or both ways."""
        net = self.sim.net
        until = self.sim.clock.now + 0.5 + 8 * self.draws.value("cut for", place, n)
        way = int(self.draws.value("cut way", place, n) * 4)
        self.sim.tell("cut", place=place, way=way, until=until - START)
        if way != 1:
            net.cut(place, "co", until)
        if way != 0:
            net.cut("co", place, until)

    def _swizzle(self) -> None:
        """Stop the links of some nodes one after the other, and free them in another order."""
        options = self.sim.options
        if not options.cut or not self.draws.fires("swizzle", "net", 0, 0.2):
            return
        begin = START + options.seconds * 0.5 * self.draws.value("swizzle at", "net", 0)
        for node in self.sim.nodes:
            if self.draws.fires("swizzled", node.name, 0, 0.6):
                stop = begin + 3 * self.draws.value("swizzle stop", node.name, 0)
                free = begin + 4 + 4 * self.draws.value("swizzle free", node.name, 0)
                self.sim.clock.at(stop, self._both, node, free)

    def _both(self, node: SimNode, until: float) -> None:
        self.sim.net.cut(node.name, "co", until)
        self.sim.net.cut("co", node.name, until)

    # ------------------------------------------------------------------------------------- machines

    def _crash(self, node: SimNode, n: int) -> None:
        """Kill a machine; perhaps Ray notices, and perhaps it never comes back by itself."""
        if node.agent is None:
            return
        self.sim.tell("crash", node=node.name)
        node.crash()
        if self.draws.value("noticed", node.name, n) < 0.7:  # noqa: PLR2004
            wait = 3 * self.draws.value("noticed after", node.name, n) ** 2
            self.sim.clock.after(wait, self._gone, node)
        if self.draws.value("returns", node.name, n) < 0.7:  # noqa: PLR2004
            wait = 0.5 + 9 * self.draws.value("returns after", node.name, n)
            self.sim.clock.after(wait, self._boot, node, node.lives)

    def _gone(self, node: SimNode) -> None:
        event = ev.NodeGone(node.name, "the raylet died")
        self.sim.net.send("ray", "co", self.sim.to_life, lambda life: life.feed(event))

    def _boot(self, node: SimNode, lives: int) -> None:
        if node.agent is None and node.lives == lives:
            self.sim.tell("boot", node=node.name)
            node.start()

    def _stall(self, n: int) -> None:
        """Let the coordinator stand still; perhaps somebody takes it for dead and starts another one."""
        life = self.sim.life
        if life is not None:
            self.sim.tell("stall")
            life.stalled_until = self.sim.clock.now + 3 + 6 * self.draws.value("stall for", "co", n)

    def _pause(self, node: SimNode, n: int) -> None:
        self.sim.tell("pause", node=node.name)
        node.pause(3 + 4 * self.draws.value("pause for", node.name, n))

    # ----------------------------------------------------------------------------------------- disk

    def _disk(self, fault: str, n: int) -> None:
        disk = self.sim.disk
        if self.sim.faulty and disk.fault is None:
            self.sim.tell("disk", fault=fault)
            disk.fault = fault
            self.sim.clock.after(0.5 + 5.5 * self.draws.value("disk for", fault, n), self._disk_heals, fault)

    def _tight(self, n: int) -> None:
        disk = self.sim.disk
        if self.sim.faulty:
            disk.tight = True
            self.sim.clock.after(0.5 + 7 * self.draws.value("tight for", "disk", n), self._roomy)

    def _roomy(self) -> None:
        self.sim.disk.tight = False

    def _disk_heals(self, fault: str) -> None:
        if self.sim.disk.fault == fault:
            self.sim.disk.fault = None

    def _unknown(self, n: int) -> None:
        """Let the next write end without an answer: it may have been written, or not."""
        disk = self.sim.disk
        if disk.fault is None:
            disk.fault = "unknown"
            disk.unknown_commits = self.draws.value("unknown", "disk", n) < 0.5  # noqa: PLR2004

    # -------------------------------------------------------------------------------------- healing

    def heal(self) -> None:
        """End the faults. Not all machines come back: the rest must do."""
        sim = self.sim
        sim.faulty = False
        sim.net.heal()
        sim.disk.fault = None
        sim.disk.tight = False
        for node in sim.nodes:
            node.paused_until = min(node.paused_until, sim.clock.now)
            if node.agent is None and (node.number == 0 or self.draws.value("heals", node.name, 0) < 0.5):  # noqa: PLR2004
                node.start()
        if sim.life is None:
            sim.start_coordinator()
        elif sim.life.offset < sim.furthest:
            sim.crash_coordinator(sim.life, 0.1)
