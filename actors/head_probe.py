"""Asks a head who it is: ``python -P -m actors.head_probe HOST:PORT``. Prints one JSON object.

That is its versions (``ray``, ``python``, ``omnimind``), or ``error`` with a problem document. It is a
process of its own, since it imports Ray, which a supervisor does not. Ray itself answers a wrong token by
trying again without a word, so this is asked first.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from omnimind.errors import Forbidden, HeadUnreachable, OmniMindError

VERSIONS = b"versions"
NAMESPACE = b"omnimind"
"""Where the head keeps OmniMind's own version, in Ray's key value store."""

_TIMEOUT = 10.0


def main() -> None:
    """Print who the head is."""
    try:
        answer = ask(sys.argv[1])
    except OmniMindError as error:
        answer = {"error": error.to_problem()}
    sys.stdout.write(json.dumps(answer) + "\n")


def ask(address: str) -> dict[str, Any]:
    """Return the versions of the head at an address. Raises Forbidden, HeadUnreachable."""
    import grpc  # noqa: PLC0415 (it takes a second with Ray)
    from ray._common.usage import usage_constants as usage  # noqa: PLC0415
    from ray._private import ray_constants  # noqa: PLC0415
    from ray._private.grpc_utils import init_grpc_channel  # noqa: PLC0415
    from ray.core.generated import gcs_service_pb2 as messages  # noqa: PLC0415
    from ray.core.generated.gcs_service_pb2_grpc import InternalKVGcsServiceStub  # noqa: PLC0415

    make: Any = InternalKVGcsServiceStub
    store = make(init_grpc_channel(address))

    def get(namespace: bytes, key: bytes) -> dict[str, Any]:
        request: Any = messages
        reply = store.InternalKVGet(
            request.InternalKVGetRequest(key=key, namespace=namespace), timeout=_TIMEOUT
        )
        return dict(json.loads(reply.value)) if reply.value else {}

    try:
        cluster = get(ray_constants.KV_NAMESPACE_CLUSTER, usage.CLUSTER_METADATA_KEY)
        own = get(NAMESPACE, VERSIONS)
    except grpc.RpcError as error:
        raise _meaning(error, address) from error
    found = {"ray": cluster.get("ray_version"), "python": cluster.get("python_version")}
    return {k: v for k, v in {**found, "omnimind": own.get("omnimind")}.items() if v}


def _meaning(error: Any, address: str) -> OmniMindError:
    code = error.code().name
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        hint = "copy the head's HOME/ray-token here, and name it with --token-file"
        return Forbidden(f"the head at {address} refuses this host's token", hint=hint)
    if code == "UNIMPLEMENTED":
        return HeadUnreachable(f"what answers at {address} is no head of Ray", hint="is it the right port?")
    return HeadUnreachable(f"the head at {address} does not answer: {error.details()}")


if __name__ == "__main__":
    main()
