"""The processes that play a run.

* :func:`play_episodes` -- plays all and yields each episode as it ends.

Processes ask for episodes as they have rows free (:mod:`benchmarks.workers.scheduler`). What a
process had under way when it was killed is played again by the one that takes its place.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.policies import PolicyChoice
from benchmarks.workers.common import Workers, collect
from benchmarks.workers.scheduler import EpisodeScheduler
from benchmarks.workers.worker import EpisodeWorker, Report, reports
from policies.processes import Ended, WorkerPool
from policies.rollout.outcomes import EpisodeKey
from policies.threads import one_thread


def play_episodes(
    pending: Mapping[str, Sequence[EpisodeKey]],
    choice: PolicyChoice,
    *,
    workers: Workers,
    num_envs: int | None = None,
) -> Generator[Report]:
    """Play all episodes, in this process, in several, or on a Ray cluster.

    Closing the iterator, or an exception in its consumer, stops the processes.

    Args:
        pending: What to play, by task id, the first tasks first.
        choice: The policy; every process makes its own.
        workers: Number of processes; 1 plays in this one; "ray" see
            :mod:`benchmarks.workers.ray_cluster`.
        num_envs: Environments that a process plays at a time; None chooses.

    Yields:
        Results and failures as episodes end, and the time spent; their order depends on
        ``workers``.

    Raises:
        BenchmarkError: A task or the policy cannot be made.
        WorkerError: A worker process failed, or was killed again and again.
    """
    if workers == "ray":
        from benchmarks.workers.ray_cluster import play_on_cluster

        yield from play_on_cluster(pending, choice, num_envs=num_envs)
        return
    count = min(workers, sum(map(len, pending.values())))
    scheduler = EpisodeScheduler(pending, workers=max(1, count))
    if count <= 1:
        with one_thread():
            player = EpisodeWorker(choice, num_envs)
            yield from player.play(
                lambda rows, task=None: scheduler.take(0, rows, task), lambda: False
            )
        return
    pool = _Processes(scheduler, choice, num_envs)
    try:
        yield from collect(pool, count)
    finally:
        pool.stop()


@dataclass(frozen=True)
class _Ask:
    """A process has rows free."""

    rows: int
    task: str | None


class _Processes(WorkerPool):
    """Processes that ask the scheduler of this one for episodes."""

    def __init__(
        self, scheduler: EpisodeScheduler, choice: PolicyChoice, num_envs: int | None
    ) -> None:
        super().__init__(_work, choice, num_envs)
        self._scheduler, self.ended = scheduler, scheduler.ended

    def messages(self, timeout: float | None = None) -> list[tuple[int, Any]]:
        """What processes say that is no question."""
        heard: list[tuple[int, Any]] = []
        for number, message in super().messages(timeout):
            if isinstance(message, _Ask):
                self.send(number, self._scheduler.take(number, message.rows, message.task))
            elif isinstance(message, Ended) and not message.how and self._scheduler.holds(number):
                # A policy or an environment may end its process, with episodes under way, by 0 too.
                heard.append((number, Ended("exit code 0 with episodes under way", message.pid)))
            else:
                heard.append((number, message))
        return heard

    def lost(self, number: int) -> tuple[Sequence[EpisodeKey], int]:
        """As :class:`benchmarks.workers.common.EpisodePool` says."""
        return self._scheduler.lost(number), self._scheduler.losses()


def _work(connection: Connection, choice: PolicyChoice, num_envs: int | None) -> None:
    def take(rows: int, task: str | None = None) -> tuple[EpisodeKey, ...]:
        connection.send(_Ask(rows, task))
        keys: tuple[EpisodeKey, ...] = connection.recv()
        return keys

    for report in reports(EpisodeWorker(choice, num_envs), take, connection.poll):
        connection.send(report)
