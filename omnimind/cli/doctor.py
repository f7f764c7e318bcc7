"""`omnimind doctor`: what a person would check, and how to mend what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from omnimind.cli import checks, checks_machine
from omnimind.cli.changes import Effect, plan_view
from omnimind.cli.errors import Exit, debugging
from omnimind.cli.findings import ERROR, WARNING, Facts, Finding
from omnimind.cli.options import read
from omnimind.cli.output import View, say
from omnimind.cli.session import Session
from omnimind.cli.table import STYLES, clean

CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    checks.coordinator,
    checks.ledger,
    checks.ray,
    checks.nodes,
    checks.versions,
    checks.clocks,
    checks.permission,
    checks_machine.socket_file,
    checks_machine.leftovers,
    checks_machine.disk,
    checks_machine.shared_memory,
    checks_machine.open_files,
    checks_machine.packages,
    checks_machine.settings,
)
MARKS = {"ok": "✔", "warning": "!", "error": "✘", "skipped": "·"}


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended without losing work, then check again.")
@click.option("--plan", is_flag=True, help="With --fix: say what it would mend; exit 10 if it would.")
@read()
def doctor(session: Session, fix: bool, plan: bool) -> View:
    """Check everything that a person would check, and say how to mend it; exit 1 when something is wrong."""
    if plan and not fix:
        raise click.UsageError("--plan needs --fix")
    found = examine(Facts(session), CHECKS)
    fixable = [f for f in found if f.fix is not None]
    if plan:
        return plan_view([Effect(f.check, "fix", f.what, f.fix.says) for f in fixable if f.fix])
    if fix and fixable:
        for finding in fixable:
            assert finding.fix is not None
            finding.fix.do()
            say(f"fixed: {finding.fix.says}")
        session.close()
        found = examine(Facts(session), CHECKS)
    return _view(found)


def examine(facts: Facts, tried: Sequence[Callable[[Facts], Finding]]) -> list[Finding]:
    """Return what each check finds. One that breaks is a finding too, and stops no other."""
    found = []
    for check in tried:
        try:
            found.append(check(facts))
        except Exception as error:
            if debugging():
                raise
            name = check.__name__.replace("_", " ")
            what = f"the check itself failed: {type(error).__name__}: {error}"
            mend = "this is a bug in OmniMind; OMNIMIND_DEBUG=1 prints where it happened"
            found.append(Finding(name, ERROR, what, "what it looks at is unknown", mend))
    return found


def _view(found: Sequence[Finding]) -> View:
    bad = [f for f in found if f.state in {WARNING, ERROR}]
    notes = [f"{len(bad)} of {len(found)} checks found something"] if bad else ["all is well"]
    if any(f.fix for f in bad):
        notes.append("next: omnimind doctor --fix")
    return View(
        data=[f.to_dict() for f in found],
        text="\n".join(_lines(f) for f in found),
        key="check",
        notes=notes,
        code=Exit.ERROR if bad else Exit.OK,
    )


def _lines(finding: Finding) -> str:
    look = STYLES.get(finding.state, {"dim": True})
    mark = click.style(MARKS[finding.state], **look)
    lines = [f"{mark} {finding.check:<14} {clean(finding.what)}"]
    if finding.state in {WARNING, ERROR}:
        lines += [f"    why:  {clean(finding.why)}", f"    mend: {clean(finding.mend)}"]
    return "\n".join(lines)
