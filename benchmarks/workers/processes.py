"""The processes that play a run.

* :func:`play_episodes` -- plays all and yields each episode as it ends.
* :data:`Workers` -- how many there are, or "ray"; :func:`available_cores` -- how many make sense.
* :class:`WorkerError` -- a worker failed, or was lost too often.

Processes ask for episodes as they have rows free (:mod:`benchmarks.workers.scheduler`). What a
process had under way when it was killed is played again by the one that takes its place.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.policies import PolicyChoice
from benchmarks.workers.common import (
    Workers,
    check_loss,
    raise_failure,
)
from benchmarks.workers.scheduler import EpisodeScheduler
from benchmarks.workers.worker import EpisodeWorker, Report, WorkerFailure, tell
from policies.rollout.outcomes import EpisodeKey
from policies.rollout.timing import TimeSpent
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
    pool = _WorkerPool(choice, num_envs)
    try:
        for _ in range(count):
            pool.start()
        yield from _collect(pool, scheduler)
    finally:
        pool.stop()


@dataclass(frozen=True)
class _Ask:
    """A process has rows free."""

    rows: int
    task: str | None


class _WorkerPool:
    """Processes, by number, and the connections to them."""

    def __init__(self, choice: PolicyChoice, num_envs: int | None) -> None:
        self._choice, self._num_envs = choice, num_envs
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, Any] = {}
        self._connections: dict[int, Connection] = {}
        self._started = 0

    @property
    def working(self) -> bool:
        """Whether any process has not said that it is done."""
        return bool(self._connections)

    def start(self) -> None:
        """One more."""
        ours, theirs = self._context.Pipe()
        number, self._started = self._started, self._started + 1
        process = self._context.Process(
            target=_work, args=(self._choice, self._num_envs, theirs), daemon=True
        )
        with one_thread():  # what a child's environment variables say, its libraries read at import
            process.start()
        theirs.close()
        self._processes[number], self._connections[number] = process, ours

    def messages(self) -> Generator[tuple[int, Any]]:
        """What processes say now, by their number; None is the end of what one says."""
        numbers = {connection: number for number, connection in self._connections.items()}
        for ready in wait(list(numbers)):
            assert isinstance(ready, Connection)
            try:
                message = ready.recv()
            except (EOFError, OSError):  # cut short, where it was killed while it spoke
                message = None
            yield numbers[ready], message

    def answer(self, number: int, keys: tuple[EpisodeKey, ...]) -> None:
        """Give a process episodes."""
        with suppress(OSError):  # it is gone, which its connection will tell
            self._connections[number].send(keys)

    def leave(self, number: int) -> int | None:
        """Let a process go; its exit code."""
        self._connections.pop(number).close()
        process = self._processes.pop(number)
        process.join()
        code: int | None = process.exitcode
        return code

    def stop(self) -> None:
        """End all: a closed connection tells a process to stop."""
        for connection in self._connections.values():
            connection.close()
        for process in self._processes.values():
            process.join(timeout=10.0)
            if process.is_alive():
                process.terminate()


def _work(choice: PolicyChoice, num_envs: int | None, connection: Connection) -> None:
    """The main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop

    def take(rows: int, task: str | None = None) -> tuple[EpisodeKey, ...]:
        connection.send(_Ask(rows, task))
        keys: tuple[EpisodeKey, ...] = connection.recv()
        return keys

    with suppress(EOFError, ConnectionError):  # the parent is gone, or wants no more
        for report in tell(EpisodeWorker(choice, num_envs), take, connection.poll):
            connection.send(report)


def _collect(pool: _WorkerPool, scheduler: EpisodeScheduler) -> Generator[Report]:
    while pool.working:
        for number, message in pool.messages():
            if isinstance(message, _Ask):
                pool.answer(number, scheduler.take(number, message.rows, message.task))
            elif isinstance(message, TimeSpent):
                yield message
            elif message is None:
                code = pool.leave(number)
                if code != 0:
                    had = scheduler.lost(number)
                    check_loss(had, scheduler.losses(), f"exit code {code}, expected 0")
                    pool.start()
            elif isinstance(message, WorkerFailure):
                raise_failure(message)
            elif scheduler.ended(number, message.key):
                yield message
