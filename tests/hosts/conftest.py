"""Where hosts cannot be made, the tests say why and are skipped (with `CI=true` that is a failure)."""

from __future__ import annotations

import pytest

from tests.hosts.harness import missing


@pytest.fixture(autouse=True, scope="session")
def _hosts_can_be_made() -> None:
    if reason := missing(sshd=True):
        pytest.skip(reason)
