"""Stable-Baselines3's algorithms, made as a recipe says.

* :func:`make_algorithm` -- PPO or SAC over normalised environments in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch

from policies.experts.training.recipes import Recipe

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

TRAINING_SEEDS_START = 1_000_000
"""Benchmarks play seeds below, held-out evaluations seeds from 2**31."""


def make_algorithm(
    recipe: Recipe,
    make_env: Callable[[], gym.Env[Any, Any]],
    *,
    seed: int,
    offset: int = 0,
    tensorboard: Path | None = None,
) -> BaseAlgorithm:
    """The algorithm, untrained, on one CPU thread.

    Args:
        recipe: Its hyperparameters.
        make_env: Makes one environment.
        seed: Of weights, actions and episodes.
        offset: Steps done before, so that a run that goes on meets other episodes.
        tensorboard: Folder of TensorBoard's events.
    """
    from stable_baselines3.common.vec_env import VecNormalize

    from policies.experts.training.vector import LeanVecEnv

    torch.set_num_threads(1)
    spec = make_env().spec
    limit = None if spec is None else spec.max_episode_steps
    vector = LeanVecEnv([make_env] * recipe.num_envs, limit=limit)
    vector.seed(TRAINING_SEEDS_START + (seed * 1_009 + offset * 31) % 2**30)
    normalized = VecNormalize(vector, norm_reward=recipe.normalize_reward, gamma=recipe.gamma)
    network = {
        "net_arch": [recipe.width] * 2,
        "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[recipe.activation],
        "optimizer_kwargs": {"fused": True},
    }
    common: dict[str, Any] = {
        "gamma": recipe.gamma,
        "batch_size": recipe.batch_size,
        "device": "cpu",
        "seed": None,  # seeding here would seed the environments as well
        "tensorboard_log": None if tensorboard is None else str(tensorboard),
    }
    torch.manual_seed(seed + offset)
    if recipe.algorithm == "ppo":
        from stable_baselines3 import PPO

        return PPO(
            "MlpPolicy",
            normalized,
            learning_rate=_falling(recipe.learning_rate),
            n_steps=recipe.n_steps,
            n_epochs=recipe.n_epochs,
            gae_lambda=recipe.gae_lambda,
            ent_coef=recipe.ent_coef,
            clip_range=recipe.clip_range,
            policy_kwargs={**network, "log_std_init": recipe.log_std_init},
            **common,
        )
    return _sac(recipe, normalized, network, common)


def _falling(start: float) -> Callable[[float], float]:
    return lambda remaining: start * remaining


def _sac(recipe: Recipe, envs: Any, network: dict[str, Any], common: dict[str, Any]) -> Any:
    from stable_baselines3 import SAC

    class PatientSAC(SAC):
        """Learns once there is enough to learn from, after a resume too: its memory is not kept."""

        def train(self, gradient_steps: int, batch_size: int = 64) -> None:
            assert self.replay_buffer is not None
            if self.replay_buffer.size() * self.n_envs >= self.learning_starts:
                super().train(gradient_steps, batch_size)

    return PatientSAC(
        "MlpPolicy",
        envs,
        learning_rate=recipe.learning_rate,
        buffer_size=recipe.buffer_size,
        learning_starts=recipe.learning_starts,
        train_freq=1,
        gradient_steps=recipe.gradient_steps,
        policy_kwargs=network,
        **common,
    )
