"""What workers of every kind share: how many there are, and how they fail.

* :data:`Workers` -- how many, or "ray".
* :class:`EpisodePool` -- workers of a kind; :func:`collect` -- what they play.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Literal, Protocol

from benchmarks.protocol import BenchmarkError
from benchmarks.workers.worker import Report
from policies.processes import Ended, WorkerError, WorkerFailure
from policies.rollout.outcomes import EpisodeKey
from policies.rollout.timing import TimeSpent

MOST_LOSSES = 2
"""How often an episode may be under way in a worker that is lost, before the run is given up."""


Workers = int | Literal["ray"]
"""Number of processes, or the actors of a Ray cluster."""


def check_loss(keys: Sequence[EpisodeKey], times: int, how: str) -> None:
    """Check that a run that has lost a worker can continue.

    Args:
        keys: What the worker had to play.
        times: How often the episode was lost that was lost most often.
        how: What is known of its end.

    Raises:
        WorkerError: It had nothing, or some episode was lost too often.
    """
    if not keys or times > MOST_LOSSES:
        what = f"with {keys[0].task}, seed {keys[0].seed} under way" if keys else "before it played"
        raise WorkerError(
            f"a worker ended {what}: {how}; it may have run out of memory; try fewer --workers or "
            "--num-envs"
        )


class EpisodePool(Protocol):
    """Workers by number: processes, or the actors of a cluster."""

    def start(self) -> int:
        """One more."""

    def messages(self) -> Iterable[tuple[int, Report | WorkerFailure | Ended]]:
        """What workers say now, and their ends; waits for the first."""

    def lost(self, number: int) -> tuple[Sequence[EpisodeKey], int]:
        """Take back what a worker had to play; how often the most unlucky episode was lost."""

    def ended(self, number: int, key: EpisodeKey) -> bool:
        """Whether a worker had this episode, of which it reports the end, to play."""

    def __len__(self) -> int:
        """How many work."""


def collect(pool: EpisodePool, workers: int) -> Generator[Report]:
    """Let so many workers play, replacing those that are lost.

    Yields:
        Results, failures and the time spent, as workers report them.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: A worker failed, or was lost again and again.
    """
    for _ in range(workers):
        pool.start()
    while len(pool):
        for number, message in pool.messages():
            if isinstance(message, Ended):
                if message.how:
                    check_loss(*pool.lost(number), message.how)
                    pool.start()
            elif isinstance(message, WorkerFailure):
                raise (BenchmarkError if message.asked_wrongly else WorkerError)(message.message)
            elif isinstance(message, TimeSpent) or pool.ended(number, message.key):
                yield message
