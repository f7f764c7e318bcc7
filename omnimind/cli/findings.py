"""What a check of `omnimind doctor` returns, and what the checks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omnimind.cli.nodes import listed
from omnimind.cli.session import Session
from omnimind.errors import OmniMindError, Unavailable

if TYPE_CHECKING:
    from omnimind.instance import Paths, Record

OK, WARNING, ERROR, SKIPPED = "ok", "warning", "error", "skipped"


@dataclass(frozen=True, slots=True)
class Fix:
    """What would mend a finding: its sentence, and the deed."""

    says: str
    do: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `what` always; `why` it matters and how to `mend` it where something is wrong."""

    check: str
    state: str
    what: str
    why: str = ""
    mend: str = ""
    fix: Fix | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the public form."""
        return {
            "check": self.check,
            "state": self.state,
            "what": self.what,
            "why": self.why,
            "mend": self.mend,
            "fixable": self.fix is not None,
        }


class Facts:
    """What the checks share, asked for once and only when needed."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @cached_property
    def paths(self) -> Paths:
        """Return the files of the home."""
        from omnimind.instance import Paths  # noqa: PLC0415

        return Paths(self.session.home)

    @cached_property
    def record(self) -> Record | None:
        """Return who runs here, or None."""
        from omnimind.instance import running  # noqa: PLC0415

        return running(self.paths)

    @cached_property
    def status(self) -> Mapping[str, Any] | OmniMindError:
        """Return the coordinator's answer, or why there is none."""
        try:
            found: Mapping[str, Any] = self.session.call("status", None, 5.0)
        except OmniMindError as error:
            return error
        return found

    @property
    def answers(self) -> bool:
        """Return whether a coordinator answers at all, be it with a refusal."""
        return not isinstance(self.status, Unavailable)

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes, as far as somebody answers."""
        return [] if isinstance(self.status, OmniMindError) else listed(self.status["nodes"])
