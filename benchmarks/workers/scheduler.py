"""Which episodes are played where: given out during the run, a few at a time.

* :func:`longest_first` -- the order in which tasks are begun.
* :class:`EpisodeScheduler` -- what is left to play, and who plays what.

A worker asks for as many episodes as it has free rows. It stays with its task while there are
episodes of it, then takes up one that nobody plays, the first in order, and only then helps with
another's. It gets no more than its share of all that is left, so that the last episodes are spread
over all workers. Who plays an episode changes nothing in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.protocol import ALL
from benchmarks.references import measured
from policies.rollout.outcomes import EpisodeKey

if TYPE_CHECKING:
    from gato_gym.tasks import Task


def longest_first(tasks: Sequence[Task]) -> list[Task]:
    """Tasks by how long an episode may take, so that no long one is begun when all others are done.

    That is the length of a random player's episodes, which time limits mostly end, or the task's
    own limit where no random player was measured.
    """
    references = measured(ALL)

    def length(task: Task) -> float:
        random = references[task.id].random if task.id in references else None
        return (random.length if random else None) or task.max_episode_steps or 0

    return sorted(tasks, key=length, reverse=True)


class EpisodeScheduler:
    """The episodes of a run, each given to one worker at a time.

    Args:
        pending: Episodes to play, by task id; tasks in the order in which they are begun.
        workers: How many ask for them.

    Example:
        >>> keys = [EpisodeKey("a", index, seed=index) for index in range(4)]
        >>> scheduler = EpisodeScheduler({"a": keys}, workers=2)
        >>> [key.index for key in scheduler.take(0, rows=32)]
        [0, 1]
        >>> [key.index for key in scheduler.take(1, rows=32)]
        [2]
    """

    def __init__(self, pending: Mapping[str, Sequence[EpisodeKey]], *, workers: int) -> None:
        self._pending = {task: deque(keys) for task, keys in pending.items() if keys}
        self._order = list(self._pending)
        self._workers = workers
        self._tasks: dict[int, str] = {}
        self._held: dict[int, set[EpisodeKey]] = {}
        self._losses: dict[EpisodeKey, int] = {}

    @property
    def left(self) -> int:
        """Episodes that nobody has."""
        return sum(map(len, self._pending.values()))

    def losses(self) -> int:
        """How often the episode that was lost most often was lost with its worker."""
        return max(self._losses.values(), default=0)

    def take(self, worker: int, rows: int, task: str | None = None) -> tuple[EpisodeKey, ...]:
        """Episodes of one task for a worker.

        Args:
            worker: Who asks.
            rows: How many it can begin.
            task: Only of this task; None for any.

        Returns:
            Up to ``rows``; none when nothing is left.
        """
        if not self.left or (task is not None and task not in self._pending):
            return ()
        task = task or self._next_task(worker)
        share = -(-self.left // self._workers)
        queue = self._pending[task]
        taken = tuple(queue.popleft() for _ in range(min(rows, share, len(queue))))
        if not queue:
            del self._pending[task]
        self._tasks[worker] = task
        self._held.setdefault(worker, set()).update(taken)
        return taken

    def holds(self, worker: int) -> bool:
        """Whether a worker has episodes whose end it has not reported."""
        return bool(self._held.get(worker))

    def ended(self, worker: int, key: EpisodeKey) -> bool:
        """A worker has played an episode.

        Returns:
            Whether it had it to play; what it reports of another episode does not count.
        """
        held = self._held.get(worker, set())
        if key not in held:
            return False
        held.remove(key)
        return True

    def lost(self, worker: int) -> tuple[EpisodeKey, ...]:
        """A worker is gone: what it had is left to play again, before all else.

        Returns:
            What it had.
        """
        held = sorted(self._held.pop(worker, ()), key=lambda key: (key.task, key.index))
        self._tasks.pop(worker, None)
        for key in held:
            self._losses[key] = self._losses.get(key, 0) + 1
        for key in reversed(held):
            self._pending.setdefault(key.task, deque()).appendleft(key)
        return tuple(held)

    def _next_task(self, worker: int) -> str:
        task_in_hand = self._tasks.get(worker)
        if task_in_hand in self._pending:
            return task_in_hand
        played = set(self._tasks.values())
        ordered = [task for task in self._order if task in self._pending]
        free = [task for task in ordered if task not in played]
        return free[0] if free else max(ordered, key=lambda task: len(self._pending[task]))
