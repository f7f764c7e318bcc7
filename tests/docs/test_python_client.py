"""The examples of docs/python-client.md run as they stand there, on a coordinator in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omnimind import Client
from omnimind.client.options import OPTION_NAMES
from omnimind.testing.fake import FakeCoordinator
from omnimind.testing.transport import FakeTransport

PAGE = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text()


def test_every_example_runs() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) >= 6
    fake = FakeCoordinator()
    with Client(transport=FakeTransport(fake)) as om:
        space: dict[str, Any] = {"om": om, "__name__": "__main__"}
        for example in examples:
            exec(compile(example, "docs/python-client.md", "exec"), space)
    fake.close()


def test_every_option_is_told() -> None:
    table = PAGE.partition("| option |")[2].partition("\n\n")[0]
    assert {name for name in OPTION_NAMES if f"`{name}`" not in table} == set()
