from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from omnimind.survey.live import (
    FAILURES_SHOWN,
    INTERVAL,
    LineLive,
    NodeView,
    TerminalLive,
    Update,
    open_live,
    summary,
)

NODES = (NodeView(name="host-1", status="active", slots=2, busy=1),)


def update(done: int, failed: int = 0, nodes: tuple[NodeView, ...] | None = NODES) -> Update:
    return Update(done=done, failed=failed, total=2000, rate=123.4, nodes=nodes)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_summary_is_one_line() -> None:
    assert summary(update(1000, 3)) == (
        "1,000 of 2,000 files (50 %), 3 failed, 123 tasks/s, 1 node, 1 of 2 slots busy"
    )
    assert summary(update(0, nodes=None)).endswith("waiting for the coordinator")
    gone = NodeView(name="host-2", status="offline", slots=2, busy=2)
    assert summary(update(0, nodes=(*NODES, gone))).endswith("1 node, 1 of 2 slots busy")


def test_lines_come_by_the_interval() -> None:
    stream, now = io.StringIO(), [0.0]
    live = LineLive(stream, clock=lambda: now[0])
    live.begin(2000)
    for second in range(1, 13):
        now[0] = second * INTERVAL / 5
        live.update(update(second * 100))
    live.end()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "survey of 2,000 files"
    assert [line.partition(" of ")[0] for line in lines[1:]] == ["500", "1,000", "1,200"]


def test_failures_come_at_once_and_not_without_end() -> None:
    stream = io.StringIO()
    live = LineLive(stream, clock=lambda: 0.0)
    live.begin(2000)
    for number in range(FAILURES_SHOWN + 30):
        live.failure(f"/x/{number}.py", "SyntaxError: no")
    lines = stream.getvalue().splitlines()
    assert lines[1] == "failed: /x/0.py: SyntaxError: no"
    assert lines[-1] == "more files failed; all are listed in the report"
    assert len(lines) == 1 + FAILURES_SHOWN + 1


def test_no_name_can_steer_the_terminal() -> None:
    for live, stream in displays():
        live.begin(1)
        live.failure("/x/\x1b[2J\r\n[red]a[/red]\u202e.py", "Error: \x07")
        live.end()
        said = stream.getvalue()
        assert "/x/\\x1b[2J\\r\\n[red]a[/red]\\u202e.py: Error: \\x07" in said
        assert "\x07" not in said
        assert "\u202e" not in said


def displays() -> list[tuple[LineLive | TerminalLive, io.StringIO]]:
    plain, terminal = io.StringIO(), Terminal()
    console = Console(file=terminal, width=100, height=30, force_terminal=True, highlight=False)
    return [(LineLive(plain), plain), (TerminalLive(console), terminal)]


def test_the_terminal_shows_the_last_update_and_keeps_it() -> None:
    (_, _), (live, stream) = displays()
    live.begin(2000)
    live.note("going on")
    live.update(update(1500, 2))
    live.end()
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    for words in (
        "going on",
        "75 %",
        "1,500 of 2,000 files",
        "123 tasks/s",
        "2 failed",
        "host-1",
        "1 of 2 slots",
    ):
        assert words in said
    assert "0:04 left" in said


def test_the_terminal_says_when_nobody_answers() -> None:
    (_, _), (live, stream) = displays()
    live.begin(2000)
    live.update(update(1500, nodes=None))
    live.end()
    assert "waiting for the coordinator" in stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "environ", "kind"),
    [
        (Terminal(), {"TERM": "xterm"}, TerminalLive),
        (Terminal(), {"TERM": "dumb"}, LineLive),
        (Terminal(), {}, LineLive),
        (io.StringIO(), {"TERM": "xterm"}, LineLive),
    ],
)
def test_the_display_fits_the_stream(stream: io.StringIO, environ: dict[str, str], kind: type) -> None:
    assert isinstance(open_live(stream, environ), kind)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for environ, coloured in (({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
        stream = Terminal()
        live = open_live(stream, {"TERM": "xterm-256color", **environ})
        live.begin(2000)
        live.failure("/x.py", "no")
        live.update(update(1000))
        live.end()
        assert bool(re.search(r"\x1b\[3[0-9]|\x1b\[38", stream.getvalue())) is coloured
