"""The processes that do the pieces of a collection.

* :class:`Workers` -- processes that do pieces, each with its own environments.
* :class:`WorkerError` -- a collection that did not come to its end.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from gato_gym.tasks import get_task
from policies.collection.env_faults import EnvironmentFault, Failure, place
from policies.collection.jobs import CollectSettings, Job, JobRunner
from policies.threads import one_thread


class WorkerError(RuntimeError):
    """A task could not be collected."""


@dataclass(eq=False)
class _Worker:
    """A process, and what is known of it.

    Attributes:
        process: The process.
        connection: Takes jobs, gives results.
        place: Shared float64 ``[3]``: the seed and the step in hand, and when it was begun.
        job: In hand, or None.
    """

    process: Any
    connection: Connection
    place: Any
    job: Job | None = None


class Workers:
    """Processes that do jobs of a collection; each has one thread of linear algebra.

    One that dies, or whose environment takes longer for a step than the time limit, is replaced.

    Args:
        settings: The collection.
        count: Number of processes.
    """

    def __init__(self, settings: CollectSettings, count: int) -> None:
        self._settings = settings
        self._workers = [self._new() for _ in range(count)]

    @property
    def has_idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(worker.job is None for worker in self._workers)

    @property
    def is_working(self) -> bool:
        """Whether a worker has something to do."""
        return any(worker.job is not None for worker in self._workers)

    def start(self, job: Job) -> None:
        """Give a job to an idle worker."""
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        worker.place[:] = (-1, 0, time.monotonic())
        with contextlib.suppress(ConnectionError):  # it died while idle; `finished` finds out
            worker.connection.send(job)

    def finished(self, timeout: float | None = None) -> list[tuple[Job, Any]]:
        """Wait until a job is done, or the timeout is over.

        Returns:
            Jobs with their results; a :class:`Failure` where there is none.
        """
        busy = {worker.connection: worker for worker in self._workers if worker.job}
        done: list[tuple[Job, Any]] = []
        for ready in wait(list(busy), timeout):
            assert isinstance(ready, Connection)
            worker = busy.pop(ready)
            job = worker.job
            assert job is not None
            try:
                result = ready.recv()
            except (EOFError, ConnectionError):
                result = Failure(
                    f"{job.task}: its worker died; the unit in hand is lost, all others are kept "
                    "(with fewer --workers if memory ran out)"
                )
                self._replace(worker)
            worker.job = None
            done.append((job, result))
        return done + [found for worker in busy.values() for found in self._hanging(worker)]

    def _hanging(self, worker: _Worker) -> list[tuple[Job, Any]]:
        """The job in hand as a failure, if its environment does not come back."""
        job, (seed, step, began) = worker.job, worker.place
        if job is None or job.kind == "dataset":
            return []
        limit = self._settings.time_limit
        if time.monotonic() - began <= limit:
            return []
        where = f"{job.task}: " if seed < 0 else place(job.task, int(seed), int(step))
        self._replace(worker)
        worker.job = None
        return [(job, Failure(f"{where}no answer within {limit:g} s (--time-limit)"))]

    def _new(self) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        shared = context.RawArray("d", 3)
        with one_thread():
            process = context.Process(
                target=_work, args=(theirs, self._settings, shared), daemon=True
            )
            process.start()
        theirs.close()
        return _Worker(process, ours, shared)

    def _replace(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        if worker.job is not None:
            folder = self._settings.folder(get_task(worker.job.task))
            for partial in folder.glob(f"*.{worker.process.pid}.partial"):
                partial.unlink(missing_ok=True)
        self._workers[self._workers.index(worker)] = self._new()

    def stop(self) -> None:
        """End the processes; the units in hand are lost."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=10)
            worker.process.kill()
            worker.process.join()


def _work(connection: Connection, settings: CollectSettings, shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and terminates
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # cleanly: no half-written files stay

    def beat(seed: int, step: int) -> None:
        shared[:] = (seed, step, time.monotonic())

    runner = JobRunner(settings, beat=beat)
    while True:
        try:
            job = connection.recv()
        except EOFError:  # the parent is gone
            return
        try:
            result = runner.run(job)
        except EnvironmentFault as fault:
            result = Failure(str(fault))
        except Exception:  # reported by the parent, whatever it is
            result = Failure(f"{job.task}: {job.kind} failed:\n{traceback.format_exc()}")
        try:
            connection.send(result)
        except ConnectionError:  # the parent is gone
            return
