"""A provider for Ray's autoscaler, loaded by Ray's own process: its machines are raylets here.

Ray's own one gives ids that differ only in their last digits; real ones differ from the first on.
"""

from __future__ import annotations

import secrets

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Provider(FakeMultiNodeProvider):
    """Starts raylets with ids like those of real nodes."""

    def _next_hex_node_id(self) -> str:
        return secrets.token_hex(28)
