"""The processes that do the jobs of a collection.

* :class:`Workers` -- gives them jobs, and replaces those that die or hang.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from gato_gym.tasks import get_task
from policies.collection.env_faults import place
from policies.collection.jobs import CollectSettings, Job, JobRunner
from policies.processes import Ended, WorkerFailure, WorkerPool
from policies.rollout.faults import EnvironmentFault


class Workers:
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
        self._settings, self.pool = settings, WorkerPool(_work, settings)
        self.places: dict[int, Any] = {}
        self._jobs: dict[int, Job] = {}
        for _ in range(count):
            self._start()

    @property
    def has_idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self._jobs) < len(self.places)

    def start(self, job: Job) -> None:
        """Give a job to an idle worker."""
        number = next(number for number in self.places if number not in self._jobs)
        self._jobs[number] = job
        self.places[number][:] = (-1, 0, time.monotonic())
        self.pool.send(number, job)

    def finished(self, timeout: float | None = None) -> list[tuple[Job, Any]]:
        """Wait until a job is done, or the timeout is over.

        Returns:
            Jobs with their results; a :class:`WorkerFailure` where there is none.
        """
        done: list[tuple[Job, Any]] = []
        for number, message in self.pool.messages(timeout):
            job = self._jobs.pop(number, None)
            if isinstance(message, Ended):
                self._replace(number, job, message)
                message = WorkerFailure(
                    f"{job.task if job else 'no task'}: its worker died; the unit in hand is lost, "
                    "all others are kept (with fewer --workers if memory ran out)"
                )
            if job is not None:
                done.append((job, message))
        limit = self._settings.time_limit
        for number, job in list(self._jobs.items()):
            seed, step, began = self.places[number]
            if job.kind != "dataset" and time.monotonic() - began > limit:
                where = f"{job.task}: " if seed < 0 else place(job.task, int(seed), int(step))
                self._replace(number, self._jobs.pop(number), self.pool.kill(number))
                failure = WorkerFailure(f"{where}no answer within {limit:g} s (--time-limit)")
                done.append((job, failure))
        return done

    def _replace(self, number: int, job: Job | None, ended: Ended) -> None:
        del self.places[number]
        if job is not None:
            folder = self._settings.folder(get_task(job.task))
            for partial in folder.glob(f".*.{ended.pid}.partial"):
                partial.unlink(missing_ok=True)
        self._start()

    def _start(self) -> None:
        shared = multiprocessing.get_context("spawn").RawArray("d", 3)
        self.places[self.pool.start(shared)] = shared

    def stop(self) -> None:
        """End the processes; the units in hand are lost."""
        self.pool.stop()


def _work(connection: Connection, settings: CollectSettings, shared: Any) -> None:
    def beat(seed: int, step: int) -> None:
        shared[:] = (seed, step, time.monotonic())

    runner = JobRunner(settings, beat=beat)
    while True:
        job = connection.recv()
        try:
            result = runner.run(job)
        except EnvironmentFault as fault:
            result = WorkerFailure(str(fault))
        except Exception:  # reported by the parent, whatever it is
            result = WorkerFailure(f"{job.task}: {job.kind} failed:\n{traceback.format_exc()}")
        connection.send(result)
