"""A driver's working folder on a node: the stored zip as a file, and the URI by which Ray unpacks it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


def session_folder() -> Path:
    """Return the folder of the Ray session on this node."""
    import ray  # noqa: PLC0415

    node: Any = ray._private.worker._global_node  # noqa: SLF001 (no public name for it)
    return Path(node.get_session_dir_path())


def folder() -> Path:
    """Return where packages lie on this node: in the session's folder, so that they go with it."""
    path = session_folder() / "omnimind-packages"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


async def unpacked_uri(digest: str, blob: Callable[[str], Awaitable[bytes]]) -> str:
    """Return the URI of a package's zip on this node, fetching it the first time.

    The file is named by its digest, since Ray names what it has unpacked by the URI.
    """
    path = folder() / f"{digest}.zip"
    if not path.exists():
        data = await blob(digest)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)  # noqa: ASYNC240 (a rename)
    return path.as_uri()
