"""Scores of a network of your own while it trains.

* :class:`CheckpointScorer` -- plays some tasks with the run's newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import gato_gym
from policies.collection.record import play_returns
from policies.registry import make_policy
from policies.training.distributed import ProcessGroup


class CheckpointScorer:
    """Mean returns of the checkpoint that a run wrote last, with its averaged weights.

    Each of several processes plays its share of the tasks. The weights, and the random numbers
    that training draws, stay as they are.

    Args:
        checkpoint: Its folder.
        tasks: Ids of environments.
        episodes: Episodes of each task, 1 or more; episode i starts from ``reset(seed=i)``.
        ranks: The processes.

    Raises:
        ValueError: There is no such environment, or no episode.
    """

    def __init__(
        self, checkpoint: Path, tasks: Sequence[str], episodes: int, ranks: ProcessGroup
    ) -> None:
        if episodes < 1:
            raise ValueError(f"score episodes is {episodes}: expected 1 or more")
        self.checkpoint, self.tasks = checkpoint, tuple(tasks)
        self.episodes, self.ranks = episodes, ranks
        for task in self.tasks:
            _make(task).close()

    def __call__(self) -> dict[str, float]:
        """Mean return of each task."""
        means = np.zeros(len(self.tasks))
        with torch.random.fork_rng():
            for index in range(self.ranks.rank, len(self.tasks), self.ranks.world):
                means[index] = self._play(self.tasks[index])
        scores = self.ranks.sum(torch.from_numpy(means)).tolist()
        return dict(zip(self.tasks, scores, strict=True))

    def _play(self, task: str) -> float:
        env = _make(task)
        try:
            policy = make_policy(str(self.checkpoint), env=env)
            return float(np.mean(play_returns(env, policy, self.episodes)))
        finally:
            env.close()


def _make(task: str) -> gym.Env[Any, Any]:
    if ":" in task:  # a dataset named it, and code runs where a module is imported
        raise ValueError(
            f"task {task!r} cannot be scored, as its module is not imported because a dataset "
            "names it: leave it out of --score-tasks"
        )
    try:
        return gato_gym.make(task)
    except gym.error.Error as error:
        raise ValueError(
            f"task {task!r} cannot be scored, as no environment has this id ({error}): leave it "
            "out of --score-tasks"
        ) from error
