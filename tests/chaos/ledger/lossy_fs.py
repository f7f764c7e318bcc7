"""A file system in memory that knows what a power cut would leave of it.

``python lossy_fs.py MOUNT OUT [SEED]``: serves MOUNT until it is unmounted, then writes to OUT what the
disk holds after a power cut at that moment. A file's bytes count only since its last fsync or fdatasync,
its name only since the last fsync of its folder. With a SEED, a part of the sectors written since then
has got to the disk too, chosen at random: a disk may write in any order.

Needs the package mfusepy, and libfuse3 with fusermount3 (Debian: fuse3).
"""

from __future__ import annotations

import errno
import random
import stat
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy

SECTOR = 512


class Inode:
    """A file: the bytes that programs see, those that are safe, and the sectors in which they may differ."""

    def __init__(self, mode: int) -> None:
        self.mode = stat.S_IFREG | stat.S_IMODE(mode)
        self.data = bytearray()
        self.safe = b""
        self.dirty: dict[int, None] = {}

    def write(self, data: bytes, offset: int) -> None:
        if len(self.data) < offset:
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data
        self.dirty.update(dict.fromkeys(range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1)))

    def truncate(self, length: int) -> None:
        self.dirty.update(dict.fromkeys(range(length // SECTOR, len(self.data) // SECTOR + 1)))
        del self.data[length:]
        self.data.extend(bytes(length - len(self.data)))

    def sync(self) -> None:
        self.safe = bytes(self.data)
        self.dirty.clear()

    def after_power_cut(self, chance: random.Random | None) -> bytes:
        left = bytearray(self.safe)
        for sector in self.dirty if chance is not None else ():
            if chance is not None and chance.random() < 0.5:
                start = sector * SECTOR
                part = self.data[start : start + SECTOR]
                left.extend(bytes(max(0, start + len(part) - len(left))))
                left[start : start + len(part)] = part
        return bytes(left)


class LossyFiles(mfusepy.Operations):
    """One folder of files."""

    use_ns = True

    def __init__(self) -> None:
        self.files: dict[str, Inode] = {}
        self.safe_names: dict[str, Inode] = {}

    def _inode(self, path: str) -> Inode:
        if path not in self.files:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return self.files[path]

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        inode = self._inode(path)
        return {"st_mode": inode.mode, "st_nlink": 1, "st_size": len(inode.data), "st_ino": id(inode)}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(name[1:] for name in self.files)]

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self.files[path] = Inode(mode)
        return 0

    def open(self, path: str, flags: int) -> int:
        self._inode(path)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._inode(path).data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._inode(path).write(data, offset)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._inode(path).truncate(length)
        return 0

    def unlink(self, path: str) -> int:
        self._inode(path)
        del self.files[path]
        return 0

    def rename(self, old: str, new: str) -> int:
        self.files[new] = self._inode(old)
        del self.files[old]
        return 0

    def chmod(self, path: str, mode: int) -> int:
        inode = self._inode(path)
        inode.mode = stat.S_IFREG | stat.S_IMODE(mode)
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        return {
            "f_bsize": 4096,
            "f_frsize": 4096,
            "f_blocks": 1 << 20,
            "f_bfree": 1 << 20,
            "f_bavail": 1 << 20,
        }

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._inode(path).sync()
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self.safe_names = dict(self.files)
        return 0


def main(mount: str, out: str, seed: str | None) -> None:
    files = LossyFiles()
    kept = Path(out).resolve()  # libfuse changes to the root folder
    start = time.monotonic()
    mfusepy.FUSE(
        files, mount, foreground=True, nothreads=True, fsname="omnimind-lossy", default_permissions=True
    )
    chance = None if seed is None else random.Random(int(seed))
    for name, inode in files.safe_names.items():
        (kept / name[1:]).write_bytes(inode.after_power_cut(chance))
    print(f"served {time.monotonic() - start:.1f} s, kept {len(files.safe_names)} files", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
