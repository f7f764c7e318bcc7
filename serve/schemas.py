"""The shapes of requests and answers, as the OpenAPI document shows them.

Requests are validated by these; answers are made by `views` and only documented here, since a second
validation of our own words would cost more than the rest of a request (tests compare the two).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from omnimind.client.options import MAX_AFTER, MAX_KEY
from omnimind.registry import MAX_NAME

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
TaskId = Annotated[
    str, Field(pattern="^tsk_[0-9a-f]{32}$", examples=["tsk_0199a1b2c3d47e5f8a6b7c8d9e0f1a2b"])
]
Seconds = Annotated[float, Field(ge=0, le=3.2e9, allow_inf_nan=False)]
Status = Literal["pending", "running", "completed", "failed", "cancelled", "expired", "dead"]
PriorityClass = Literal["critical", "high", "medium", "low", "background"]


class Request(BaseModel):
    """A body: what is not known is an error, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """An answer: later versions may add fields."""


class Problem(Answer):
    """An error, by RFC 9457."""

    type: str = Field(description="Names the kind of error; stable.")
    title: str
    status: int
    detail: str
    code: str = Field(description="The last part of `type`, for programs.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    instance: str | None = None
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[FieldError] | None = None
    retry_after: float | None = Field(None, description="Seconds to wait before trying again.")


class FieldError(Answer):
    """What is wrong with one field."""

    field: str
    detail: str


class Submission(Request):
    """A task to run: a registered task type and the keywords for its handler."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"type": "shop.resize", "payload": {"path": "a.png", "width": 200}, "priority": "high"}
            ]
        },
    )

    type: Name = Field(description="A registered task type.")
    payload: dict[str, Any] = Field(default_factory=dict, description="Keywords of the handler.")
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY)] | None = Field(
        None, description="Idempotency key; also as the header Idempotency-Key."
    )
    priority: PriorityClass | Annotated[int, Field(ge=1, le=10)] | None = None
    queue: Name | None = None
    needs: Annotated[list[Name], Field(max_length=100)] | None = None
    retries: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    timeout: Annotated[float, Field(gt=0, le=3.2e9, allow_inf_nan=False)] | None = Field(
        None, description="Seconds for one attempt."
    )
    delay: Seconds | None = Field(None, description="Seconds before it may start.")
    not_before: datetime | None = None
    deadline: datetime | None = Field(None, description="What has not ended then, expires.")
    after: Annotated[list[TaskId], Field(max_length=MAX_AFTER)] = Field(
        default_factory=list, description="Tasks that must complete first."
    )
    at_most_once: bool | None = None


class Error(Answer):
    """Why a task or an attempt did not succeed."""

    model_config = ConfigDict(extra="allow")

    type: str | None = None
    message: str | None = None
    traceback: str | None = None


class TaskSummary(Answer):
    """A task without its payload and result, as lists have it."""

    task_id: TaskId
    task_type: str
    status: Status
    priority: int
    priority_class: PriorityClass
    queue: str
    needs: list[str]
    assigned_node: str | None
    retry_count: int
    max_retries: int
    worker_deaths: int
    timeout: float | None
    deadline: datetime | None
    not_before: datetime | None
    key: str | None
    after: list[str]
    at_most_once: bool
    origin: str | None = Field(description="`retry_of:ID` or `schedule:NAME`.")
    error: dict[str, Any] | None
    cause: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class Task(TaskSummary):
    """A task. A payload or result that is a Python pickle is null here: Python clients read it."""

    payload: Any = None
    payload_encoding: Literal["json", "pickle"]
    result: Any = None
    result_encoding: Literal["json", "pickle"]


class TaskPage(Answer):
    """Tasks, newest first."""

    items: list[TaskSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page.")
    truncated_before: datetime | None = Field(description="Older tasks than this have been pruned.")


class TaskEnd(Answer):
    """How a task ended."""

    task_id: TaskId
    status: Status
    result: Any = None
    result_encoding: Literal["json", "pickle"]
    error: dict[str, Any] | None
    cause: str


class Reason(Request):
    """Why a change is made; it goes to the audit."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class TaskChange(Answer):
    """What was done, or would be done with `?plan=true`."""

    task_id: TaskId
    outcome: str = Field(examples=["cancelling"])
    plan: bool


class NewTask(Answer):
    """A task that runs again, as a new one. With `?plan=true` there is no new id."""

    task_id: TaskId
    new_task_id: TaskId | None
    plan: bool


class Attempt(Answer):
    """An attempt that did not succeed."""

    model_config = ConfigDict(extra="allow")


class LogEntry(Answer):
    """A line that a handler logged."""

    number: int
    at: datetime
    level: str
    text: str


class Progress(Answer):
    """The handler's last word on its progress."""

    status: Status
    progress: Any = None
    at: datetime | None


class Explanation(Answer):
    """Why a task or a node is where it is."""

    kind: Literal["task", "node"]
    id: str
    status: str
    verdict: str
    facts: dict[str, Any]
    checks: list[dict[str, Any]]
    story: list[dict[str, Any]]


class Node(Answer):
    """A machine."""

    node_id: str
    hostname: str
    ip_address: str
    port: int
    status: str
    cpu_cores: int
    memory_gb: float
    max_concurrent_tasks: int
    current_tasks: int
    total_tasks_completed: int
    last_heartbeat: datetime | None
    load_factor: float
    capabilities: list[str]
    ordered_by: str
    order_reason: str
    drain_deadline: datetime | None
    drain_started: datetime | None
    drained_at: datetime | None
    resources: dict[str, float]
    versions: dict[str, str]
    clock_skew: float | None


class RunningAttempt(Answer):
    """A task that runs on a node."""

    task_id: TaskId
    task_type: str
    started_at: datetime | None


class NodeDetail(Node):
    """A machine with what runs on it."""

    attempts: list[RunningAttempt]


class Drain(Reason):
    """How long running attempts get; then they are moved."""

    deadline: Annotated[float, Field(ge=0, le=31_536_000)] | None = Field(
        None, description="Seconds from now."
    )


class NodeChange(Answer):
    """What was done to a node, or would be."""

    node: Node
    attempts: list[RunningAttempt] = Field(description="Running attempts that are affected.")
    status: str
    plan: bool


class QueuePolicy(Request):
    """Limits of a queue; what is left out stays, null takes a limit away."""

    weight: Annotated[float, Field(gt=0, le=1e6)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=10**9)] | None = None
    rate: Annotated[float, Field(gt=0, le=1e9)] | None = Field(None, description="Most starts a second.")
    max_pending: Annotated[int, Field(ge=1, le=10**12)] | None = None
    paused: bool | None = None


class Queue(Answer):
    """A queue with its limits and what stands in it."""

    name: str
    weight: float
    concurrency: int | None
    rate: float | None
    max_pending: int | None
    paused: bool
    ready: int | None = None
    delayed: int | None = None
    waiting: int | None = None
    running: int | None = None
    oldest: datetime | None = None


class Schedule(Answer):
    """A submission that recurs."""

    name: str
    task_type: str
    queue: str
    cron: str | None
    interval: float | None
    timezone: str
    paused: bool
    next_run: datetime | None
    last_run: datetime | None
    runs: int


class ScheduleIn(Request):
    """When to submit what: a cron expression or an interval, one of them."""

    task: Submission
    cron: Annotated[str, Field(max_length=200)] | None = None
    interval: Annotated[float, Field(ge=1, le=3.2e8)] | None = None
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    paused: bool = False


class Coordinator(Answer):
    """Which coordinator answers."""

    pid: int
    node_id: str
    epoch: int
    started_at: datetime | None = None


class ClusterStatus(Answer):
    """The cluster at a glance."""

    coordinator_node_id: str
    total_nodes: int
    active_nodes: int
    offline_nodes: int
    total_capacity: int
    current_load: int
    load_percentage: float
    pending_tasks: int
    running_tasks: int
    nodes: list[Node]
    coordinator: Coordinator
    tasks: dict[str, int]


class AuditEntry(Answer):
    """Who changed what."""

    at: datetime
    actor: str
    verb: str
    subject: str
    detail: str


class Handler(Answer):
    """A registered task type."""

    model_config = ConfigDict(extra="allow")

    task_type: str
    digest: str


class TokenIn(Request):
    """A token to make."""

    name: Name
    role: Literal["viewer", "submitter", "operator", "admin"]
    expires_in: Annotated[float, Field(gt=0, le=315_360_000)] | None = Field(
        None, description="Seconds from now; never when it is left out."
    )


class Token(Answer):
    """A token, without what opens the door."""

    token_id: str
    name: str
    role: Literal["viewer", "submitter", "operator", "admin"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewToken(Token):
    """A token that was just made."""

    secret: str = Field(description="What opens the door; shown this once.")


class Session(Answer):
    """Who is signed in to the console."""

    name: str
    role: Literal["viewer", "submitter", "operator", "admin"]
    csrf: str = Field(description="Value of the header X-Omnimind-Csrf for changes.")


Problem.model_rebuild()
