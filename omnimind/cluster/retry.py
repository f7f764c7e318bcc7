"""Whether and when to try a task again after its handler raised."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from omnimind.cluster.task import DistributedTask


def backoff(task: DistributedTask, random: Random) -> float:
    """Return seconds until the next attempt: exponential with full jitter.

    Uniform in [0, min(cap, base * factor ** retries)]; see "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015.
    """
    options = task.options
    # The exponent is bounded so that a huge retry count cannot overflow a float.
    ceiling = min(options.retry_cap, options.retry_base * options.retry_factor ** min(task.retry_count, 64))
    return random.uniform(0.0, max(0.0, ceiling))


def retryable(task: DistributedTask, error_types: Sequence[str]) -> bool:
    """Return whether an error may be retried, by the task's list of those that may not.

    error_types: the exception's class and its bases, qualified (``builtins.ValueError``). A listed name
    matches a qualified name or its last part.
    """
    if not task.options.non_retryable:
        return True
    short = {name.rpartition(".")[2] for name in error_types}
    return not any(name in error_types or name in short for name in task.options.non_retryable)
