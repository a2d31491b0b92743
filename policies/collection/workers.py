"""The processes that do the jobs of a collection.

* :class:`Workers` -- gives them jobs, and replaces those that die or hang.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from typing import Any

from gato_gym.tasks import get_task
from policies.collection.env_faults import place
from policies.collection.jobs import CollectSettings, Job, JobRunner
from policies.processes import Ended, JobPool, WorkerFailure
from policies.rollout.faults import EnvironmentFault


class Workers(JobPool[Job]):
    """Processes that do jobs, each with its own environments.

    One that dies, or whose environment takes longer for a step than the time limit, is replaced.

    Args:
        settings: The collection.
        count: Number of processes.

    Attributes:
        places: By process, shared float64 ``[3]``: the seed and the step in hand, and when it was
            begun.
    """

    def __init__(self, settings: CollectSettings, count: int) -> None:
        super().__init__(_prepare, settings, count=count)
        self._settings = settings
        self.places: dict[int, Any] = {}

    def start(self, job: Job) -> None:
        """Give a job to an idle worker."""
        number = self._idle_process()
        self.places[number][:] = (-1, 0, time.monotonic())
        self._give(number, job)

    def finished(self, timeout: float | None = None) -> list[tuple[Job, Any]]:
        """Wait until a job is done, or the timeout is over.

        Returns:
            Jobs with their results; a :class:`WorkerFailure` where there is none.
        """
        done = super().finished(timeout)
        limit = self._settings.time_limit
        for number, job in list(self.in_hand.items()):
            seed, step, began = self.places[number]
            if job.kind != "dataset" and time.monotonic() - began > limit:
                where = f"{job.task}: " if seed < 0 else place(job.task, int(seed), int(step))
                self.lost(number, self.in_hand.pop(number), self.pool.kill(number))
                failure = WorkerFailure(f"{where}no answer within {limit:g} s (--time-limit)")
                done.append((job, failure))
        return done

    def new_process(self) -> int:
        """One more worker, with the place that it shares with this process."""
        shared = multiprocessing.get_context("spawn").RawArray("d", 3)
        number = self.pool.start(shared)
        self.places[number] = shared
        return number

    def lost(self, number: int, job: Job | None, ended: Ended) -> WorkerFailure:
        """A worker died: its unit in hand is lost, and the half-written files go."""
        del self.places[number]
        if job is None:
            return super().lost(number, job, ended)
        for partial in self._settings.folder(get_task(job.task)).glob(f".*.{ended.pid}.partial"):
            partial.unlink(missing_ok=True)
        return WorkerFailure(
            f"{job.task}: its worker died; the unit in hand is lost, all others are kept "
            "(with fewer --workers if memory ran out)"
        )


def _prepare(settings: CollectSettings, shared: Any) -> Callable[[Job], Any]:
    def beat(seed: int, step: int) -> None:
        shared[:] = (seed, step, time.monotonic())

    runner = JobRunner(settings, beat=beat)

    def do(job: Job) -> Any:
        try:
            return runner.run(job)
        except EnvironmentFault as fault:
            return WorkerFailure(str(fault))
        except Exception:  # reported by the parent, whatever it is
            return WorkerFailure(f"{job.task}: {job.kind} failed:\n{traceback.format_exc()}")

    return do
