"""Scores of a network of your own while it trains.

* :class:`CheckpointScorer` -- plays some tasks with the run's newest checkpoint.
* :class:`PlayedTask` -- one of them.
* :func:`playable` -- a task as it can be played here, or why it cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import gato_gym
from policies.collection.scores import play_scores
from policies.gato.task_specs import signature
from policies.registry import make_policy
from policies.rollout.faults import close_env
from policies.training.data.datasets import DatasetTask
from policies.training.distributed import ProcessGroup

CHANCE_SHARE = 0.25
"""A score below this, between random's return and the recorded policy's, counts as failing."""


@dataclass(frozen=True)
class PlayedTask:
    """A task that is played.

    Attributes:
        id: Id of its environment.
        memory: What its later timesteps see; None where there is no choice.
        longest: Steps after which an episode is cut off: a policy may never end one.
        expert: Mean return of the recorded policy.
    """

    id: str
    memory: str | None
    longest: int
    expert: float

    def make(self) -> gym.Env[Any, Any]:
        """Its environment.

        Raises:
            ValueError: Its id names a module, which would run code because a dataset names it.
        """
        if ":" in self.id:
            raise ValueError(f"{self.id!r}: its module is not imported because a dataset names it")
        return gym.wrappers.TimeLimit(gato_gym.make(self.id), self.longest)

    def returns(self, policy: str, episodes: int, *, first_seed: int = 0) -> tuple[float, ...]:
        """Returns of a policy by name; episode i starts from ``reset(seed=first_seed + i)``."""
        envs = [self.make() for _ in range(episodes)]
        try:
            acting = make_policy(policy, env=envs[0])
            return play_scores(
                envs, acting, episodes, deterministic=True, first_seed=first_seed
            ).returns
        finally:
            for env in envs:
                close_env(env)


def playable(task: DatasetTask, *, memory: str | None, longest: int) -> PlayedTask:
    """The task as it can be played here; episodes end after twice the longest recorded one.

    Raises:
        ValueError: No environment has its id, or one of other spaces has.
    """
    played = PlayedTask(task.id, memory, 2 * longest, task.expert_return())
    try:
        env = played.make()
    except Exception as error:  # whatever an environment does that is not installed as recorded
        raise ValueError(
            f"task {task.id!r} cannot be played in training: its environment cannot be made here "
            f"({error})"
        ) from error
    there = signature(task.observation_space, task.action_space)
    here = signature(env.observation_space, env.action_space)
    env.close()
    if here != there:
        raise ValueError(
            f"task {task.id!r} cannot be played in training: its environment has {here} and the "
            f"dataset {there}, as if it was recorded in a wrapper"
        )
    return played


class CheckpointScorer:
    """Mean returns of the checkpoint that a run wrote last, with its averaged weights.

    Each of several processes plays its share of the tasks. The weights, and the random numbers
    that training draws, stay as they are.

    Args:
        checkpoint: Its folder.
        tasks: What is played.
        episodes: Episodes of each task, 1 or more; episode i starts from ``reset(seed=first_seed +
            i)``.
        ranks: The processes.
        first_seed: 0, or a seed of training where the scores decide what is learned.

    Raises:
        ValueError: There is no episode.
    """

    def __init__(
        self,
        checkpoint: Path,
        tasks: Sequence[PlayedTask],
        episodes: int,
        ranks: ProcessGroup,
        *,
        first_seed: int = 0,
    ) -> None:
        if episodes < 1:
            raise ValueError(f"score episodes is {episodes}: expected 1 or more")
        self.checkpoint, self.tasks = checkpoint, tuple(tasks)
        self.episodes, self.ranks, self.first_seed = episodes, ranks, first_seed
        self.chance: dict[str, float] = {}
        self._first_losses: dict[str, float] = {}

    def __call__(self) -> dict[str, float]:
        """Mean return of each task."""
        with torch.random.fork_rng():
            if not self.chance:
                self.chance = self._returns("random")
            return self._returns(str(self.checkpoint))

    def _returns(self, policy: str) -> dict[str, float]:
        means = np.zeros(len(self.tasks))
        for index in range(self.ranks.rank, len(self.tasks), self.ranks.world):
            means[index] = np.mean(
                self.tasks[index].returns(policy, self.episodes, first_seed=self.first_seed)
            )
        scores = self.ranks.sum(torch.from_numpy(means)).tolist()
        return dict(zip((task.id for task in self.tasks), scores, strict=True))

    def distances(self, scores: Mapping[str, float]) -> dict[str, float]:
        """How far each task is from the recorded policy: 1 at random play's return, 0 at its own.

        A task whose recorded policy is no better than random play has none.
        """
        far = {task.id: task.expert - self.chance[task.id] for task in self.tasks}
        return {
            task.id: min(1.0, max(0.0, (task.expert - scores[task.id]) / far[task.id]))
            for task in self.tasks
            if far[task.id] > 0
        }

    def describe(self, scores: Mapping[str, float]) -> str:
        """What the progress line says of scores."""
        count = f"{self.episodes} episode{'' if self.episodes == 1 else 's'}"
        return "".join(
            f"  {task.id} scores {scores[task.id]:.2f} in {count}, random "
            f"{self.chance[task.id]:.2f}, recorded {task.expert:.2f}"
            for task in self.tasks
        )

    def disagreements(self, scores: Mapping[str, float], losses: Mapping[str, float]) -> list[str]:
        """A sentence for each task whose loss has fallen while its play is still near random.

        Args:
            scores: What the call returned last.
            losses: Losses of the steps before it, by task id.
        """
        lines = []
        for task in self.tasks:
            if task.id not in losses:
                continue
            first = self._first_losses.setdefault(task.id, losses[task.id])
            low, mean = self.chance[task.id], scores[task.id]
            above = task.expert - low
            if losses[task.id] >= first or above <= 0 or (mean - low) / above >= CHANCE_SHARE:
                continue
            other = "observations" if task.memory == "none" else "none"
            advice = "" if task.memory is None else f"--memory {other}, "
            lines.append(
                f"play and loss disagree on {task.id!r}: the loss fell from {first:.3f} to "
                f"{losses[task.id]:.3f}, and the network returns {mean:.2f} where random play "
                f"returns {low:.2f} and the recorded policy {task.expert:.2f}. Try "
                f"{advice}episodes recorded with --noise, or more of them"
            )
        return lines
