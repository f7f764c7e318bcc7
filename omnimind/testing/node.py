"""`SimNode`: a machine. The real `NodeAgent`, simulated workers around it, and all that can befall it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omnimind.cluster.agent import (
    Command,
    KillBatch,
    NodeAgent,
    SendHeartbeat,
    SendJoin,
    SendReport,
    StartBatch,
)
from omnimind.cluster.node import NodeInfo
from omnimind.cluster.sends import AskRegister, Dispatch, FenceNode, ReleaseNode, StopAttempts
from omnimind.testing.worker import SimWorker
from omnimind.testing.workload import FAST, GPU

if TYPE_CHECKING:
    from omnimind.testing.cluster import SimCluster
    from omnimind.testing.machine import SimMachine

TICK = 0.5
COORDINATOR = "co"

ToNode = Dispatch | StopAttempts | AskRegister | FenceNode | ReleaseNode


_CPUS = 8
"""More than any simulated task takes: one that is wider than the slots gets its node whole."""


class SimNode:
    """One machine: up or down, perhaps paused (SIGSTOP: nothing happens, messages wait), slow, or skewed."""

    def __init__(self, sim: SimCluster, number: int, machine: SimMachine | None = None) -> None:
        self.sim = sim
        self.machine = machine
        """Where its slots come from when it is one shard's side of a node; None: they are its own."""
        if machine is not None:
            machine.sides.append(self)
        self.number = number
        self.name = f"n{number}"
        draws, options = sim.draws, sim.options
        self.slots = options.slots
        rich = number == 0 or draws.value("gpu", self.name, 0) < 0.3  # noqa: PLR2004
        self.capabilities = {GPU, FAST, "t0"} if rich else {FAST}
        self.slowness = 4.0 if draws.fires("sluggish", self.name, 0, options.sluggish * 0.5) else 1.0
        skewed = draws.fires("skew", self.name, 0, 0.5 if options.skew else 0.0)
        self.skew = options.skew * (draws.value("skewed", self.name, 0) * 2 - 1) if skewed else 0.0
        self.lives = 0
        self.agent: NodeAgent | None = None
        self.paused_until = 0.0
        self.workers: dict[int, SimWorker] = {}
        self.queue: list[SimWorker] = []
        self.busy = 0
        self.names = 0
        self.reported = 0

    @property
    def now(self) -> float:
        """Return the time by this machine's clock."""
        return self.sim.clock.now + self.skew

    def start(self) -> None:
        """Boot: a new agent, holding nothing, under a new incarnation."""
        self.lives += 1
        self.reported = 0
        self.agent = NodeAgent(self._incarnation(), resend=self.sim.resend)
        self._tick(self.lives)

    def _incarnation(self) -> str:
        self.names += 1
        return f"{self.name}.{self.lives}.{self.names}"

    def crash(self) -> None:
        """Lose everything, at once."""
        if self.agent is None:
            return
        self.sim.coverage.add("node_crash_with_work", bool(self.workers))
        self.agent = None
        self.paused_until = 0.0
        workers, self.workers = list(self.workers.values()), {}
        self.queue.clear()
        self.busy = 0
        for worker in workers:
            worker.vanish()
        if self.machine is not None:
            for worker in workers:
                self.machine.leave(worker.batch.fence)

    def pause(self, seconds: float) -> None:
        """Stop every process of the machine for a while, in the middle of whatever it does."""
        if self.agent is not None:
            self.sim.coverage.add("pause_with_work", bool(self.workers))
            self.paused_until = max(self.paused_until, self.sim.clock.now + seconds)

    def frozen(self, call: Callable[..., None], *args: Any) -> bool:
        """Return whether the machine stands still; then the call is made when it goes on."""
        if self.paused_until > self.sim.clock.now:
            self.sim.clock.at(self.paused_until, call, *args)
            return True
        return False

    # ----------------------------------------------------------------------- what the agent is told

    def _tick(self, life: int) -> None:
        if self.agent is None or life != self.lives or self.frozen(self._tick, life):
            return
        self.sim.clock.after(TICK, self._tick, life)
        self.obey(self.agent.tick(self.now))

    def receive(self, message: ToNode) -> None:
        """Take a message of the coordinator."""
        agent = self.agent
        if agent is None or self.frozen(self.receive, message):
            return
        match message:
            case Dispatch(incarnation=incarnation, batch=batch):
                self.obey(agent.run(batch, incarnation, self.now))
            case StopAttempts():
                if message.incarnation == agent.incarnation:
                    commands = agent.stop(
                        message.batch, message.indexes, hard=message.hard, cause=message.cause
                    )
                    self.obey(commands)
            case AskRegister(incarnation=incarnation):
                if incarnation == agent.incarnation:
                    self.obey(agent.asked_to_register(self.now))
            case FenceNode(incarnation=incarnation):
                if incarnation == agent.incarnation:
                    self.sim.coverage.add("node_fenced")
                    self.obey(agent.fenced(self._incarnation(), self.now))
            case ReleaseNode():
                pass

    def answered(self, life: int, number: int, *, good: bool) -> None:
        """Take the answer to a report."""
        if self.agent is None or life != self.lives or self.frozen(self._answered, life, number, good):
            return
        self._answered(life, number, good)

    def _answered(self, life: int, number: int, good: bool) -> None:
        if self.agent is None or life != self.lives:
            return
        if good:
            self.agent.acknowledged(number)
        else:
            self.agent.failed(number, self.now)

    def registered(self, life: int, incarnation: str, epoch: int) -> None:
        """Take the answer to a join."""
        agent = self.agent
        if agent is None or life != self.lives or self.frozen(self.registered, life, incarnation, epoch):
            return
        if agent.incarnation == incarnation:
            self.obey(agent.registered(epoch, self.now))

    # ------------------------------------------------------------------------ what the agent orders

    def obey(self, commands: list[Command]) -> None:
        """Carry out the agent's commands."""
        agent = self.agent
        for command in commands:
            match command:
                case StartBatch(batch=batch):
                    worker = self.workers[batch.fence] = SimWorker(self, batch)
                    self.queue.append(worker)
                    if self.machine is not None:
                        self.machine.offer(self, batch)
                case KillBatch(fence=fence):
                    killed = self.workers.get(fence)
                    if self.machine is not None and killed is not None and not killed.running:
                        self._give_back(killed)
                    elif killed is not None:
                        # The signal takes its time, and a result may slip out before it.
                        self.sim.clock.after(0.001, killed.die, "killed on request")
                case SendReport(number=number):
                    self.sim.coverage.add("outcome_resent", number <= self.reported)
                    self.reported = max(self.reported, number)
                    self._tell("report", self.lives, command)
                case SendJoin():
                    assert agent is not None
                    self._tell("join", self.lives, self.info(command.incarnation), command.running)
                case SendHeartbeat(incarnation=incarnation, batches=batches, slots=slots):
                    self._tell("heartbeat", incarnation, batches, slots)
        self._next()

    def _tell(self, what: str, *args: Any) -> None:
        self.sim.net.send(self.name, COORDINATOR, self.sim.to_coordinator, what, self, *args)

    def info(self, incarnation: str) -> NodeInfo:
        """Return what the node says about itself."""
        return NodeInfo(
            self.name,
            hostname=self.name,
            cpu_cores=_CPUS,
            max_concurrent_tasks=self.slots if self.machine is None else self.machine.may_use(self),
            capabilities=set(self.capabilities),
            incarnation=incarnation,
        )

    # ------------------------------------------------------------------------------------- workers

    def _next(self) -> None:
        """Give free slots to batches that wait, as Ray does."""
        if self.machine is not None:
            return
        while self.queue and (self.busy == 0 or self.busy + self.queue[0].slots <= self.slots):
            worker = self.queue.pop(0)
            self.busy += worker.slots
            worker.begin()

    def begin(self, fence: int) -> None:
        """Start a batch that has got its slots of the machine."""
        worker = self.workers.get(fence)
        if worker is not None:
            self.queue.remove(worker)
            worker.begin()

    def _give_back(self, worker: SimWorker) -> None:
        """Say that a batch is over which has not begun, as the Node actor does."""
        fence = worker.batch.fence
        worker.gone = True
        self.finished(worker)
        if self.agent is not None:
            self.obey(self.agent.ended(fence, [], None, self.now))

    def finished(self, worker: SimWorker) -> None:
        """Take a worker's slots back."""
        if self.workers.pop(worker.batch.fence, None) is None:
            return
        if self.machine is not None:
            if worker in self.queue:
                self.queue.remove(worker)
            self.machine.leave(worker.batch.fence)
            return
        if worker.running:
            self.busy -= worker.slots
        else:
            self.queue.remove(worker)
