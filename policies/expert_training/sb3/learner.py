"""Stable-Baselines3's PPO and SBX's SAC as learners of a training.

* :class:`BaselinesLearner` -- a :class:`policies.expert_training.learner.Learner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from torch import Tensor

from policies.expert_training.recipe import Recipe
from policies.expert_training.sb3.algorithm_state import restore, tensors_of
from policies.expert_training.sb3.algorithms import make_algorithm
from policies.expert_training.sb3.convert import network_of
from policies.expert_training.sb3.replay_buffer import restore_memory, save_memory
from policies.expert_training.sb3.warm_start import CRITIC_ALONE, start_from
from policies.experts.store import Network
from policies.registry import find_factory

MEMORY_FILE = "memory.safetensors"


def _make_callback(name: str) -> Any:
    """The callback that ``module:function`` makes."""
    from stable_baselines3.common.callbacks import BaseCallback

    form = "returns a Stable-Baselines3 callback"
    callback = find_factory(name, of="callback", form=form)()
    if not isinstance(callback, BaseCallback):
        raise ValueError(
            f"{name} returned a {type(callback).__name__}, expected a Stable-Baselines3 callback: "
            "derive it from BaseCallback"
        )
    return callback


class BaselinesLearner:
    """PPO or SAC over vectors of numbers.

    Args:
        recipe: Hyperparameters.
        make_env: Makes one environment.
        seed: Decides weights, actions and episodes.
        steps: Actions done before.
        updates: Gradient steps done before.
        tensorboard: Folder of TensorBoard's events; None writes none.
        callback: ``module:function`` that returns a Stable-Baselines3 callback; where that stops
            the training, it can be resumed.

    Raises:
        ValueError: There is no such function.

    Attributes:
        steps: Actions so far, over all runs.
        updates: Gradient steps so far, likewise.
        algorithm: Stable-Baselines3's or SBX's object.
    """

    def __init__(
        self,
        recipe: Recipe,
        make_env: Callable[[], gym.Env[Any, Any]],
        *,
        seed: int,
        steps: int = 0,
        updates: int = 0,
        tensorboard: Path | None = None,
        callback: str | None = None,
    ) -> None:
        from gato_gym.tasks.task import need

        need("stable_baselines3", "sb3")
        if recipe.algorithm == "sac":
            need("sbx", "sbx")
        self.recipe = recipe
        self._callbacks = [] if callback is None else [_make_callback(callback)]
        shape = make_env().observation_space.shape
        self._inputs = shape[0] if shape and recipe.inputs else None
        self.algorithm: Any = make_algorithm(
            recipe, make_env, seed=seed, offset=steps, tensorboard=tensorboard
        )
        self.algorithm.num_timesteps, self.algorithm._n_updates = steps, updates

    @property
    def steps(self) -> int:
        """Actions so far, over all runs."""
        return int(self.algorithm.num_timesteps)

    @property
    def updates(self) -> int:
        """Gradient steps so far, over all runs."""
        return int(self.algorithm._n_updates)

    def learn(self, until: int, after_rollout: Callable[[], bool]) -> None:
        """As :meth:`policies.expert_training.learner.Learner.learn`."""
        from stable_baselines3.common.callbacks import BaseCallback

        class AfterRollout(BaseCallback):
            """Asks between rollouts whether to continue."""

            goes_on = True

            def _on_rollout_end(self) -> None:
                self.goes_on = after_rollout()

            def _on_step(self) -> bool:
                return self.goes_on

        self.algorithm.learn(
            until - self.steps,
            callback=[AfterRollout(), *self._callbacks],
            log_interval=1,
            reset_num_timesteps=False,
        )

    def take_returns(self, least: int) -> list[float] | None:
        """None: training's episodes are cut short, normalised or begin elsewhere."""
        return None

    def network(self) -> Network:
        """The expert as it is."""
        return network_of(self.algorithm, size=self._inputs)

    def start_from(self, task: str, trainings: Path | None) -> str:
        """As :meth:`policies.expert_training.learner.Learner.start_from`."""
        return start_from(self.algorithm, task, trainings)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimisers and normalisation."""
        return tensors_of(self.algorithm)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the tensors of :meth:`tensors` back.

        Where the actor was an expert's it stays as it is up to the first :data:`CRITIC_ALONE` steps
        of all runs.
        """
        restore(self.algorithm, tensors)
        if self.recipe.start is not None:
            self.algorithm.critic_alone = CRITIC_ALONE

    def save_memory(self, folder: Path, *, finished: bool) -> None:
        """Write SAC's replay buffer, or remove it once all is finished."""
        if finished:
            (folder / MEMORY_FILE).unlink(missing_ok=True)
        elif (memory := getattr(self.algorithm, "replay_buffer", None)) is not None:
            save_memory(folder / MEMORY_FILE, memory)

    def restore_memory(self, folder: Path) -> None:
        """Put back what :meth:`save_memory` wrote, if it wrote something."""
        if (folder / MEMORY_FILE).exists():
            restore_memory(folder / MEMORY_FILE, self.algorithm.replay_buffer)

    def close(self) -> None:
        """Close the environments."""
        self.algorithm.get_env().close()
