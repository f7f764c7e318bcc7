"""`omnimind submit`: one task, or one for each line of a file."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omnimind.cli import complete, resolve, task_view, tasks
from omnimind.cli.changes import Change, Effect
from omnimind.cli.errors import outcome_code
from omnimind.cli.options import write
from omnimind.cli.output import View, next_steps
from omnimind.cli.session import Session, actor
from omnimind.cli.table import Column
from omnimind.cli.times import Duration, Moment
from omnimind.errors import InvalidInput, UnknownQueue, UnknownTaskType

if TYPE_CHECKING:
    from omnimind.client.protocol import SubmitRequest

COLUMNS = (Column("TASK", "task_id"), Column("TYPE", "task_type"), Column("EXISTED", "existed"))


def task_options(function: Any) -> Any:
    """Add the options that say how a task is run; schedules take them too."""
    for option in (
        click.option(
            "--at-most-once", is_flag=True, default=None, help="Never start it twice, come what may."
        ),
        click.option("--retries", type=click.IntRange(min=0), help="Further attempts after an exception."),
        click.option("--timeout", type=Duration(), help="Longest time of one attempt, e.g. 30s."),
        click.option("--needs", multiple=True, metavar="NAME", help="What the node must have; repeatable."),
        click.option("--priority", metavar="CLASS|1-10", help="critical, high, medium, low or background."),
        click.option("--queue", shell_complete=complete.queues, help="Queue to stand in."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("task_type", metavar="TYPE", shell_complete=complete.types)
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@task_options
@click.option("--key", default=None, help="Idempotency key: the same key and payload is the same task.")
@click.option(
    "--delay", type=Moment(), default=None, help="Start after this long (10m), or not before this time."
)
@click.option(
    "--deadline", type=Moment(), default=None, help="End within this long, or by this time; then it expires."
)
@click.option(
    "--after", multiple=True, metavar="ID", shell_complete=complete.tasks,
    help="Start when this task has completed; repeatable.",
)  # fmt: skip
@click.option("--each", is_flag=True, help="One task for each line of JSON in the payload.")
@click.option(
    "--wait", is_flag=True, help="Wait for the end; print the result, exit 5 or 6 when there is none."
)
@click.option(
    "--wait-timeout", type=Duration(), default=None, help="With --wait: give up after this long; exit 7."
)
@write()
def submit(
    session: Session, task_type: str, payload: str | None, each: bool, wait: bool,
    wait_timeout: float | None, **options: Any,
) -> Change:  # fmt: skip
    """Give a task to the runtime, and print its id.

    The payload is a JSON object of the handler's keywords, or a JSON array of its positions; @FILE reads
    it from a file, - from standard input.

    \b
        omnimind submit shop.resize '{"path": "a.png", "width": 200}' --wait
        omnimind submit shop.resize @rows.jsonl --each --queue mail
    """  # noqa: D301 - click wants the backspace itself
    if wait_timeout is not None and not wait:
        raise click.UsageError("--wait-timeout needs --wait")
    text = read_payload(payload)
    payloads = (
        [call_payload(line) for line in text.splitlines() if line.strip()] if each else [call_payload(text)]
    )
    request = make_request(session, task_type, payloads, options)

    def plan() -> list[Effect]:
        check(session, request)
        queue = request.queue or "the handler's queue"
        return [
            Effect(
                f"{task_type}[{i}]" if each else task_type,
                "submit",
                "",
                f"pending in {queue}",
                f"{len(p):,} bytes",
            )
            for i, p in enumerate(payloads)
        ]

    def apply() -> View:
        rows = _send(session, request)
        if wait:
            return _ends(session, [row["task_id"] for row in rows], wait_timeout)
        if each:
            return View(data=rows, columns=COLUMNS, key="task_id", notes=next_steps("omnimind task list"))
        name = rows[0]["task_id"]
        said = ["it stood there already, under the same key"] if rows[0]["existed"] else []
        return View(
            data=rows[0], text=name, key="task_id", notes=[*said, *next_steps(f"omnimind task wait {name}")]
        )

    return Change(plan, apply)


def _send(session: Session, request: SubmitRequest) -> list[dict[str, Any]]:
    from omnimind.client.handlers import queue_of  # noqa: PLC0415
    from omnimind.cluster.sharding import bucket_of  # noqa: PLC0415
    from omnimind.ids import SLAB_MAX, new_slab, task_id  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    payloads = request.payloads
    queue = request.queue
    if queue is None and session.hello().get("shards", 1) > 1:
        queue = queue_of(session.call("handlers"), request.task_type)
    bucket = None if queue is None else bucket_of(queue)
    for start in range(0, len(payloads), SLAB_MAX):
        request.slab, request.payloads = new_slab(bucket), payloads[start : start + SLAB_MAX]
        try:
            answer = session.call("submit", request)
        except UnknownTaskType as error:
            error.hint = _types_like(session, request.task_type) or error.hint
            raise
        except UnknownQueue as error:
            names = [q["name"] for q in session.call("queues")]
            error.hint = resolve.did_you_mean(request.queue or "", names) or error.hint
            raise
        existing = {int(i): task for i, task in answer["existing"].items()}
        rows += [
            {
                "task_id": existing.get(i) or task_id(request.slab, i),
                "task_type": request.task_type,
                "existed": i in existing,
            }
            for i in range(len(request.payloads))
        ]
    return rows


def _ends(session: Session, ids: list[str], timeout: float | None) -> View:
    tasks.wait(session, ids, timeout)
    ended = tasks.fetch(session, ids)
    code = outcome_code([t["status"] for t in ended])
    if len(ended) == 1:
        return task_view.outcome(ended[0], code)
    return View(data=ended, columns=task_view.COLUMNS, key="task_id", code=code)


def read_payload(text: str | None) -> str:
    """Return the payload's text: as given, from a file (@), from standard input (-), or ``{}``."""
    if text is None:
        return "{}"
    if text == "-":
        return sys.stdin.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{text[1:]} cannot be read: {error}", field="payload") from error
    return text


def call_payload(text: str) -> bytes:
    """Return the payload of one call as JSON. Raises InvalidInput saying where the text is no JSON."""
    from omnimind import encoding  # noqa: PLC0415

    try:
        value = json.loads(text)
    except ValueError as error:
        hint = 'quote it for the shell: \'{"name": "value"}\', or read it from a file with @FILE'
        raise InvalidInput(f"the payload is no JSON: {error}", field="payload", hint=hint) from None
    match value:
        case dict() | [list(), dict()]:
            call = value
        case list():
            call = encoding.call_value(value, {})
        case _:
            call = encoding.call_value([value], {})
    data, _ = encoding.encode(call, "payload")
    return data


def make_request(
    session: Session, task_type: str, payloads: list[bytes], options: dict[str, Any]
) -> SubmitRequest:
    """Return the submission, its options checked. Raises InvalidInput naming the option."""
    from omnimind.client.options import request_fields  # noqa: PLC0415
    from omnimind.client.protocol import PAYLOAD_MAX, SubmitRequest  # noqa: PLC0415
    from omnimind.errors import PayloadTooLarge  # noqa: PLC0415

    if not payloads:
        raise InvalidInput("there is no payload: the input is empty", field="payload")
    for index, data in enumerate(payloads):
        if len(data) > PAYLOAD_MAX:
            which = f"payload {index}" if len(payloads) > 1 else "the payload"
            raise PayloadTooLarge(
                f"{which} has {len(data):,} bytes, at most {PAYLOAD_MAX:,} go", field="payload"
            )
    given = {k: v for k, v in options.items() if v is not None and v != ()}
    key = given.pop("key", None)
    if key is not None and len(payloads) > 1:
        raise InvalidInput("one key cannot stand for several tasks", field="key")
    if "priority" in given:
        given["priority"] = int(given["priority"]) if given["priority"].isdigit() else given["priority"]
    if "after" in given:
        given["after"] = resolve.task_ids(session, given["after"])
    if "needs" in given:
        given["needs"] = [n for text in given["needs"] for n in text.split(",") if n]
    if "delay" in given:
        kind, seconds = given.pop("delay")
        given["delay" if kind == "in" else "not_before"] = seconds
    if "deadline" in given:
        kind, seconds = given["deadline"]
        given["deadline"] = timedelta(seconds=seconds) if kind == "in" else seconds
    return SubmitRequest(
        slab="", task_type=task_type, payloads=payloads, keys=None if key is None else [key],
        actor=actor(), **request_fields(given),
    )  # fmt: skip


def check(session: Session, request: SubmitRequest) -> None:
    """Refuse what the coordinator would refuse for its type or queue, without submitting."""
    known = [h["task_type"] for h in session.call("handlers")]
    if request.task_type not in known:
        hint = resolve.did_you_mean(request.task_type, known) or "see: omnimind handler list"
        raise UnknownTaskType(
            f"no handler is registered for {request.task_type!r}", field="task_type", hint=hint
        )
    if request.queue is not None:
        queues = [q["name"] for q in session.call("queues")]
        if request.queue not in queues:
            hint = resolve.did_you_mean(request.queue, queues) or UnknownQueue.default_hint
            raise UnknownQueue(f"there is no queue {request.queue!r}", field="queue", hint=hint)


def _types_like(session: Session, task_type: str) -> str:
    return resolve.did_you_mean(task_type, [h["task_type"] for h in session.call("handlers")])
