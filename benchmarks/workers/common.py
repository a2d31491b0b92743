"""What workers of every kind share: how many there are, and how they fail.

* :data:`Workers` -- how many, or "ray"; :func:`available_cores` -- how many make sense.
* :class:`WorkerError` -- a worker failed, or was lost too often.
* :func:`check_loss`, :func:`raise_failure` -- whether a run goes on without one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from benchmarks.protocol import BenchmarkError
from benchmarks.workers.worker import WorkerFailure
from policies.rollout.outcomes import EpisodeKey

MOST_LOSSES = 2
"""How often an episode may be under way in a worker that is lost, before the run is given up."""


Workers = int | Literal["ray"]
"""Number of processes, or the actors of a Ray cluster."""


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerError(RuntimeError):
    """A worker cannot go on; the message says why."""


def check_loss(had: Sequence[EpisodeKey], times: int, how: str) -> None:
    """Whether a run goes on that has lost a worker.

    Args:
        had: What the worker had to play.
        times: How often the episode was lost that was lost most often.
        how: What is known of its end.

    Raises:
        WorkerError: It had nothing, or some episode was lost too often.
    """
    if not had or times > MOST_LOSSES:
        what = f"with {had[0].task}, seed {had[0].seed} under way" if had else "before it played"
        raise WorkerError(
            f"a worker ended {what}: {how}; it may have run out of memory; try fewer --workers or "
            "--num-envs"
        )


def raise_failure(failure: WorkerFailure) -> None:
    """Raise what a worker said.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: Otherwise.
    """
    raise (BenchmarkError if failure.asked_wrongly else WorkerError)(failure.message)
