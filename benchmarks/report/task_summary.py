"""One task's line of a summary.

* :class:`TaskSummary` -- its figures.
* :data:`EXPERT_NOT_ABOVE_RANDOM`, :data:`NO_REFERENCE` -- why it can be in no normalised average.
"""

from __future__ import annotations

from dataclasses import dataclass

EXPERT_NOT_ABOVE_RANDOM = "expert not above random"
NO_REFERENCE = "no measured reference"


@dataclass(frozen=True)
class TaskSummary:
    """One task's figures. Returns are undiscounted sums of rewards.

    Attributes:
        task: Task id.
        episodes: Episodes played.
        mean: The policy's mean return.
        std: Its standard deviation over episodes.
        length: Mean number of timesteps.
        success: Share of episodes that solved the task; None where success is not defined.
        random: Mean return of random actions; None when not measured.
        expert: Mean return of the expert; None when not measured.
        normalised: ``(mean - random) / (expert - random)``; None for a flagged task.
        low: Lower end of the 95 % bootstrap interval of ``normalised``; None with it, and with
            fewer than :data:`benchmarks.statistics.bootstrap.FEWEST` episodes.
        high: Upper end.
        flag: Why the task is left out of the normalised averages, or None.
        failed: Episodes that failed; no figure contains them.
        distinct: Episodes whose first observation, actions or rewards differ; None
            where the record does not say.
    """

    task: str
    episodes: int
    mean: float
    std: float
    length: float
    success: float | None
    random: float | None
    expert: float | None
    normalised: float | None
    low: float | None
    high: float | None
    flag: str | None
    failed: int = 0
    distinct: int | None = None

    @property
    def rests_on(self) -> str:
        """The number of episodes, and how many are distinct where that is fewer.

        Example:
            >>> figures = dict.fromkeys(("mean", "std", "length"), 0.0)
            >>> none = dict.fromkeys(
            ...     ("success", "random", "expert", "normalised", "low", "high", "flag"), None
            ... )
            >>> TaskSummary("atari-pong", 50, **figures, **none, distinct=4).rests_on
            '50, 4 distinct'
        """
        repeated = self.distinct is not None and self.distinct < self.episodes
        return f"{self.episodes}, {self.distinct} distinct" if repeated else str(self.episodes)
