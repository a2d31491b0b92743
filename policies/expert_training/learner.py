"""What learns in a training: the one contract that every algorithm keeps.

* :class:`Learner` -- the contract.
* :func:`make_learner` -- the learner of a task, as its recipe says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
from torch import Tensor

from policies.expert_training.recipe import Recipe
from policies.experts.store import Network


class Learner(Protocol):
    """An algorithm with its environments."""

    @property
    def steps(self) -> int:
        """Actions so far, over all environments and all runs."""

    @property
    def updates(self) -> int:
        """Gradient steps so far, over all runs."""

    def learn(self, until: int, after_rollout: Callable[[], bool]) -> None:
        """Play and learn up to ``until`` actions, or until ``after_rollout`` answers False."""

    def take_returns(self, least: int) -> list[float] | None:
        """Returns of whole episodes, as the task counts them, that learning itself has played.

        Args:
            least: Fewer are kept for the next call.

        Returns:
            Those since the last ones that were taken, which may be none; None where training's
            episodes are not the task's own, so that evaluations have to play some.
        """

    def network(self) -> Network:
        """The expert as it is."""

    def start_from(self, task: str, trainings: Path | None) -> str:
        """Begin with the weights of a task's training or expert; returns what it is, in words.

        Args:
            task: The task.
            trainings: Folder of trainings, by task; None takes the package's expert alone.

        Raises:
            TrainingStateError: It does not fit, or there is none.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimisers and statistics, by names with "/" between parts."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the tensors of :meth:`tensors` back.

        Raises:
            TrainingStateError: They are of another network.
        """

    def save_memory(self, folder: Path, *, finished: bool) -> None:
        """Write what it remembers beside its weights, or remove it once all is finished."""

    def restore_memory(self, folder: Path) -> None:
        """Put back what :meth:`save_memory` wrote, if it wrote something.

        Raises:
            TrainingStateError: It is damaged, or of another task or recipe.
        """

    def close(self) -> None:
        """End what runs beside it."""


def make_learner(
    recipe: Recipe,
    make_env: Callable[[], gym.Env[Any, Any]],
    *,
    seed: int,
    steps: int = 0,
    updates: int = 0,
    device: str = "cpu",
    threads: int = 1,
    tensorboard: Path | None = None,
    callback: str | None = None,
) -> Learner:
    """The learner of a task: for a game, our own PPO; otherwise Stable-Baselines3's or SBX's.

    Args:
        recipe: Its hyperparameters.
        make_env: Makes one environment.
        seed: Decides weights, actions and episodes.
        steps: Actions done before, so that a run that is resumed meets other episodes.
        updates: Gradient steps done before.
        device: "cpu" or "cuda"; for games alone.
        threads: Threads that play; for games alone.
        tensorboard: Folder of TensorBoard's events; None writes none.
        callback: ``module:function`` that returns a Stable-Baselines3 callback; not for games.

    Raises:
        ValueError: A GPU was asked for, and the task is not a game; or a callback, and it is one;
            or there is no such function.
        MissingPackageError: A library that the recipe needs is not installed.
    """
    from gato_gym.tasks.atari import AtariEnv

    game = make_env().unwrapped
    if isinstance(game, AtariEnv):
        from policies.expert_training.atari.ppo import AtariPPO

        if callback is not None:
            raise ValueError(
                f"--callback {callback} for a game, which Stable-Baselines3 does not train: leave "
                "it out"
            )
        return AtariPPO(
            game.game,
            recipe,
            seed=seed,
            steps=steps,
            updates=updates,
            device=device,
            threads=threads,
            tensorboard=tensorboard,
        )
    if device != "cpu":
        raise ValueError(
            f"--device {device}: expected cpu for a task that is not an Atari game, whose networks "
            "are too small for a GPU"
        )
    from policies.expert_training.sb3.learner import BaselinesLearner

    return BaselinesLearner(
        recipe,
        make_env,
        seed=seed,
        steps=steps,
        updates=updates,
        tensorboard=tensorboard,
        callback=callback,
    )
