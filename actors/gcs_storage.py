"""What Ray's GCS keeps over a restart of the head, and whether the next start takes it up again.

::

    HOME/gcs/
      kept.json     `Kept`: what the storage belongs to
      db/           RocksDB, where `ray.gcs_storage` is rocksdb

The GCS knows the nodes and the actors. With it in memory, every raylet of the cluster ends with the
head's Ray. With a storage, the other hosts' raylets wait for the head, connect again, and what runs there
never stops. It is taken up after everything but `omnimind down`: that begins anew, as an operator would
expect, and so does a start whose versions or address are others. The ledger needs none of it.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket

import msgspec

from actors import preflight
from actors.ray_instance import is_loopback
from omnimind import instance
from omnimind.config import Settings
from omnimind.errors import HomeUnusable
from omnimind.instance import Paths


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """To which head a storage belongs. Another Ray cannot read it, and nodes look for it at its address."""

    kind: str
    where: str
    node_ip: str
    versions: dict[str, str]
    port: int
    namespace: str


class GcsStorage:
    """The storage of one home's head. Making one reads the disk, `prepare` and `reset` write it.

    kept: whether it holds what an earlier start has left. port: the GCS's, which must stay the same.
    """

    def __init__(self, paths: Paths, settings: Settings) -> None:
        ray = settings.ray
        self._folder = paths.home / "gcs"
        self._note = self._folder / "kept.json"
        self._ray = ray
        self.kind = kind_of(settings)
        self.port = ray.port
        self.kept = False
        found = self._read()
        if found is not None and self.kind != "memory" and found == self._wanted(found):
            self.kept = True
            self.port = found.port
            self._namespace = found.namespace
        else:
            self._namespace = secrets.token_hex(8)

    def prepare(self) -> None:
        """Make the storage ready for a start. Raises HomeUnusable when the disk does not let it."""
        if self.kept:
            return
        self._remove()
        if self.kind == "memory":
            return
        if not self.port:
            self.port = _free_port(self._ray.node_ip)
        try:
            (self._folder / "db").mkdir(mode=0o700, parents=True)
            instance.write_atomically(self._note, msgspec.json.encode(self._wanted(None)))
        except OSError as error:
            msg = f"cannot use {self._folder}: {error.strerror}"
            raise HomeUnusable(msg, field="ray.gcs_storage") from error

    def reset(self) -> None:
        """Forget what is kept: the next start begins a new cluster."""
        self._remove()
        self.kept = False
        self._namespace = secrets.token_hex(8)

    def taken(self) -> None:
        """Note that a start has succeeded: from now on there is something to take up again."""
        self.kept = self.kind != "memory"

    def environment(self) -> dict[str, str]:
        """Return what Ray's head must be told."""
        match self.kind:
            case "rocksdb":
                return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self._folder / "db")}
            case "redis":
                return {
                    "RAY_REDIS_ADDRESS": self._ray.gcs_redis,
                    "RAY_external_storage_namespace": f"omnimind-{self._namespace}",
                }
            case _:
                return {}

    def _wanted(self, found: Kept | None) -> Kept:
        port = self._ray.port or (found.port if found is not None else self.port)
        return Kept(
            kind=self.kind,
            where=self._ray.gcs_redis,
            node_ip=self._ray.node_ip,
            versions=preflight.versions(),
            port=port,
            namespace=found.namespace if found is not None else self._namespace,
        )

    def _read(self) -> Kept | None:
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return None

    def _remove(self) -> None:
        # The note first: a storage without one is never taken up, however far this gets.
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def kind_of(settings: Settings) -> str:
    """Return which storage is used: memory, rocksdb or redis."""
    chosen = settings.ray.gcs_storage
    if chosen != "auto":
        return chosen
    # On loopback there is no other host that could outlive the head's Ray.
    return "memory" if is_loopback(settings.ray.node_ip) else "rocksdb"


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
