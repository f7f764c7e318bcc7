"""`Coordinator`: the Ray actor around a core. Detached, restarted by Ray, the ledger's only writer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from actors.admin import Admin
from actors.dispatch import Dispatcher
from actors.elastic import Scaling
from actors.engine import Engine
from actors.membership import Membership
from actors.peers import Peers
from actors.service import Service
from actors.settings import CoordinatorSettings
from actors.sharded import Sharded
from actors.socket_server import Push, SocketServer
from actors.tokens import Tokens
from actors.watching import Watchers
from actors.wire import UP, Beat, Fence, Fetch, Join, Report, Store, Up, decode, encode
from omnimind.client import protocol
from omnimind.clock import SkewMeter, SystemClock
from omnimind.cluster import events as ev
from omnimind.cluster.core import CoordinatorCore
from omnimind.cluster.records import LogSaved
from omnimind.cluster.states import NodeStatus
from omnimind.errors import InstanceError, InvalidInput, OmniMindError, StartFailed
from omnimind.ids import epoch_of
from omnimind.instance import Paths, shard_socket
from omnimind.ledger.interface import Layout
from omnimind.ledger.opening import open_ledger
from omnimind.ledger.rebalance import read_layout

log = logging.getLogger("omnimind.coordinator")

_TRY_AGAIN = 1.0
_PRUNE_EVERY = 30.0
_FAREWELL = 0.2
"""Seconds in which the last words to other hosts leave."""
_PRUNE_STEP = 2_000
_PROGRESS_KEPT = 10_000


class Coordinator:
    """The actor. `up` is for Node actors, `call` is for clients."""

    def __init__(self, settings: bytes) -> None:
        self._settings = msgspec.json.decode(settings, type=CoordinatorSettings)
        self._ready: asyncio.Task[None] | None = None
        self._progress: dict[str, dict[str, Any]] = {}
        self._skews = SkewMeter()
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None
        self._sharded: Sharded | None = None
        self._server: SocketServer | None = None
        self._refusal: OmniMindError | None = None
        self._refused_at = 0.0
        self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        """Start by itself: after a restart by Ray, nobody may call for a while."""
        while self._engine is None:
            try:
                await self.ready()
            except OmniMindError as error:
                log.warning("the coordinator cannot start yet: %s", error)
                await asyncio.sleep(_TRY_AGAIN)

    async def ready(self) -> dict[str, Any]:
        """Start, unless that has been done; return who this is."""
        came = time.monotonic()
        async with self._starting:
            if self._engine is None:
                # Who waited while a start failed is told of that one, instead of waiting for one of its own.
                if self._refusal is not None and self._refused_at >= came:
                    raise self._refusal
                try:
                    await self._start()
                except OmniMindError as error:
                    self._refusal, self._refused_at = error, time.monotonic()
                    raise
        assert self._engine is not None
        return {**self._admin.hello(), "node_id": self._engine.core.node_id}

    async def takes_work(self, timeout: float) -> bool:
        """Wait until a node has joined and its workers are warm; False when that takes too long."""
        await self.ready()
        assert self._engine is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._engine.core.joined:  # noqa: ASYNC110 (a few looks at the start)
                    await asyncio.sleep(0.02)
                await self._membership.warmed()
                return True
        return False

    async def _start(self) -> None:
        settings = self._settings
        home = Path(settings.home)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        clock = SystemClock()
        node_id = _own_node_id()
        self._membership = Membership(settings)
        self._dispatcher = Dispatcher(self._membership.post)
        self._watchers = Watchers()
        engine = Engine(
            lambda: CoordinatorCore(
                node_id,
                settings.limits,
                seed=os.getpid(),
                strategy=settings.strategy,
                shard=settings.shard,
                shards=settings.shards,
            ),
            open_ledger(settings.ledger, home, settings.shard),
            clock,
            outside=self._dispatcher,
            ended=self._watchers.ended,
            fenced=_die,
        )
        self._service = Service(engine, self._watchers)
        self._service.progress_of = self._progress.get
        self._admin = Admin(
            engine, self._service, started_at=clock.now(), stop=self._stop, api_url=settings.api_url
        )
        scaling = self._admin.scaling = self._service.scaling = Scaling(settings, self._membership)
        self._methods = self._service.methods() | self._admin.methods() | Tokens(engine).methods()
        if settings.shards > 1:
            self._sharded = Sharded(engine, settings.shard, settings.shards, Peers(settings))
            self._service.sharded = self._sharded
            self._methods |= self._sharded.methods()
        self._service.code.learned = self._dispatcher.know
        token = _token(Path(settings.token_file))
        socket = shard_socket(Path(settings.socket), settings.shard)
        self._server = None
        if token is not None:
            self._server = SocketServer(socket, token, self._on_socket, self._membership.detach)
        await engine.start()
        try:
            self._check_layout(engine)
        except OmniMindError:
            await engine.stop()
            raise
        self._engine = engine
        await self._listen(engine)
        self._loops = [
            asyncio.create_task(self._membership.watch(engine)),
            asyncio.create_task(scaling.watch(engine)),
            asyncio.create_task(self._prune()),
        ]
        if self._sharded is not None:
            self._loops.append(asyncio.create_task(self._sharded.foreign.watch()))
        log.info("coordinator %d is up, epoch %d", os.getpid(), engine.core.epoch)

    async def _listen(self, engine: Engine) -> None:
        """Be there for the clients and the node of this host, on the socket."""
        if self._server is None:
            return
        try:
            await self._server.start()
        except OSError as error:
            if self._settings.nodes:
                # It may be on any host, so nobody relies on the socket of this one.
                log.warning("this host's socket cannot be had: %s", error.strerror)
                self._server = None
                return
            # Ray's way is still open, but who is told of the socket would wait for it in vain.
            self._engine = None
            await engine.stop()
            msg = f"cannot listen on {self._settings.socket}: {error.strerror}"
            raise InstanceError(msg, hint="make its folder writable for this user") from error

    def _check_layout(self, engine: Engine) -> None:
        """Refuse to run beside ledgers that are laid out for another number of shards."""
        settings = self._settings
        home = Path(settings.home)
        found = engine.ledger.layout() if settings.shard == 0 else read_layout(settings.ledger, home)
        if found != Layout(settings.shards):
            msg = f"the ledgers are laid out for {found}, this coordinator is for {settings.shards} shards"
            raise StartFailed(msg, hint="start the instance again: queues are moved at its start")

    # --- clients ----------------------------------------------------------------------------------

    async def call(self, method: str, body: bytes) -> bytes:
        """Carry out a method of the protocol."""
        if self._engine is None:
            await self.ready()
        kind = protocol.METHODS.get(method)
        if kind is None:
            raise InvalidInput(f"there is no method {method!r}", field="method")
        if method == "hello":
            return protocol.encode(self._admin.hello())
        try:
            request = msgspec.msgpack.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"{method}: {error}", field="body") from None
        try:
            return protocol.encode(await self._methods[method](request))
        except OmniMindError:
            raise
        except Exception as error:
            log.exception("method %s failed", method)
            raise OmniMindError(
                f"{method} failed: {type(error).__name__}: {error}", hint="see the coordinator's log"
            ) from None

    async def call_ray(self, method: str, body: bytes) -> tuple[bool, bytes]:
        """Do as `call`, with errors as problem documents: Ray wraps and prints those that are raised."""
        try:
            return True, await self.call(method, body)
        except OmniMindError as error:
            return False, protocol.encode(error.to_problem())

    async def _on_socket(self, method: str, body: bytes, push: Push) -> bytes:
        if method in UP:
            return encode(await self.up(method, body))
        if method == "attach":
            self._membership.attach(msgspec.msgpack.decode(body, type=str), push)
            return encode(None)
        return await self.call(method, body)

    # --- nodes ------------------------------------------------------------------------------------

    async def up(self, kind: str, data: bytes) -> Any:
        """Take in a message of a Node actor; see `wire`."""
        if self._engine is None:
            await self.ready()
        engine = self._engine
        assert engine is not None
        message: Up = decode(kind, data)
        match message:
            case Report(node_id, incarnation, batch, outcomes, final):
                self._take_along(message)
                await engine.ask(lambda n: ev.Outcomes(n, node_id, incarnation, batch, list(outcomes), final))
                return None
            case Beat():
                self._take_along(message)
                known = engine.core.nodes.get(message.node_id)
                if known is not None and message.sent_at is not None:
                    known.clock_skew = self._skews.note(message.node_id, message.sent_at, time.time())
                engine.feed(
                    ev.Heartbeat(
                        message.node_id, message.incarnation, message.batches, message.pids, message.slots
                    )
                )
                return engine.core.epoch
            case Join(node, running, sent_at):
                self._skews.forget(node.node_id)
                node.clock_skew = self._skews.note(node.node_id, sent_at, time.time())
                self._membership.refresh(node.node_id)

                ids = [i for batch in running for i in batch.task_ids]
                await engine.ask_about(ids, lambda n, held: ev.NodeJoined(node, running, held, n))
                return engine.core.epoch
            case Store(task_id, fence, checkpoint):
                await engine.ask(lambda n: ev.Checkpoint(n, task_id, fence, checkpoint))
                return None
            case Fetch("spec", digest):
                return await engine.read(engine.ledger.handler, digest)
            case Fetch(_, digest):
                return await self._service.code.blob_get(protocol.BlobRequest(digest))

    def _take_along(self, beat: Beat | Report) -> None:
        assert self._engine is not None
        for task_id, value in beat.progress.items():
            self._progress.pop(task_id, None)
            self._progress[task_id] = value
        while len(self._progress) > _PROGRESS_KEPT:
            del self._progress[next(iter(self._progress))]
        for task_id, fence, lines in beat.logs:
            if epoch_of(fence) <= self._engine.core.epoch:
                self._engine.feed(ev.Note(0, LogSaved(task_id, fence, tuple(lines))))

    # --- housekeeping -----------------------------------------------------------------------------

    async def _prune(self) -> None:
        assert self._engine is not None
        engine, settings = self._engine, self._settings
        while True:
            await asyncio.sleep(_PRUNE_EVERY)
            if engine.trouble is not None:
                continue
            try:
                before = engine.clock.now() - settings.keep_seconds
                more = True
                while more:
                    more = await engine.on_writer(
                        engine.ledger.prune, before, settings.keep_tasks, _PRUNE_STEP
                    )
                    await asyncio.sleep(0.05)  # commits go first
                if self._sharded is not None:
                    await self._sharded.keys.tidy(before)
            except OmniMindError as error:
                log.warning("pruning failed: %s", error)

    def _stop(self) -> None:
        self._ready = asyncio.create_task(self._end())

    async def _end(self) -> None:
        assert self._engine is not None
        await asyncio.sleep(0.05)  # the answer to `shutdown` leaves first
        for loop in self._loops:
            loop.cancel()
        if self._sharded is not None:
            await self._sharded.part()
        if self._server is not None:
            await self._server.stop()
        await self._engine.stop()
        if Paths(self._settings.home).ended.exists():
            await self._let_go(self._engine.core)
        _die()

    async def _let_go(self, core: CoordinatorCore) -> None:
        """End what runs on other hosts: a person has stopped this cluster, and nobody would adopt it.

        Their raylets wait for a head that is away; without this, attempts would go on there for minutes.
        """
        for node in core.nodes.values():
            if node.status is not NodeStatus.OFFLINE and node.incarnation:
                with contextlib.suppress(Exception):  # the line of a node on this host is closed by now
                    self._membership.post(node.node_id, "fence", encode(Fence(node.incarnation)))
        await asyncio.sleep(_FAREWELL)


def _token(path: Path) -> str | None:
    """Return this host's token, None where it has no home of OmniMind: then Ray is the only way in."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    return None


def _own_node_id() -> str:
    import ray  # noqa: PLC0415

    node_id: str = ray.get_runtime_context().get_node_id()
    return node_id


def _die() -> None:
    """End this process; Ray restarts the actor unless the instance is being stopped."""
    log.info("coordinator %d ends", os.getpid())
    logging.shutdown()
    time.sleep(0.05)
    os._exit(0)
