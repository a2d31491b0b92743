"""The algorithms of Stable-Baselines3 and SBX, made as a recipe says.

* :func:`make_algorithm` -- PPO or SAC over environments in this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation

from gato_gym.seeds import TRAINING_SEEDS_START
from policies.expert_training.recipe import Recipe
from policies.expert_training.sb3.initial_states import RisenStarts
from policies.expert_training.sb3.replay_buffer import narrow
from policies.expert_training.sb3.warm_start import entropy_state

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv


def make_algorithm(
    recipe: Recipe,
    make_env: Callable[[], gym.Env[Any, Any]],
    *,
    seed: int,
    offset: int = 0,
    tensorboard: Path | None = None,
) -> BaseAlgorithm:
    """The algorithm, untrained, on one thread of a CPU.

    Args:
        recipe: Its hyperparameters.
        make_env: Makes one environment.
        seed: Seed of weights, actions and episodes.
        offset: Steps done before, so that a resumed run meets other episodes.
        tensorboard: Folder of TensorBoard's events.
    """
    torch.set_num_threads(1)
    vector, seen = _environments(recipe, make_env)
    common: dict[str, Any] = {
        "gamma": recipe.gamma,
        "batch_size": recipe.batch_size,
        "device": "cpu",
        "seed": seed + offset,
        "tensorboard_log": None if tensorboard is None else str(tensorboard),
    }
    algorithm = {"ppo": _ppo, "sac": _sac}[recipe.algorithm](recipe, seen, common, offset)
    # after the algorithm, which seeds its environments with its own seed
    vector.seed(TRAINING_SEEDS_START + (seed * 1_009 + offset * 31) % 2**30)
    return algorithm


def _environments(
    recipe: Recipe, make_env: Callable[[], gym.Env[Any, Any]]
) -> tuple[VecEnv, VecEnv]:
    """Environments, and what the algorithm is to see of them."""
    from stable_baselines3.common.vec_env import VecNormalize

    from policies.expert_training.sb3.vec_env import LeanVecEnv

    one = make_env()
    limit = None if one.spec is None else one.spec.max_episode_steps
    maker = _changed(make_env, recipe)
    vector = LeanVecEnv([maker] * recipe.num_envs, limit=limit, repeat=recipe.action_repeat)
    return vector, VecNormalize(vector, norm_reward=recipe.normalize_reward, gamma=recipe.gamma)


def _changed(
    make_env: Callable[[], gym.Env[Any, Any]], recipe: Recipe
) -> Callable[[], gym.Env[Any, Any]]:
    """Makes environments that begin, and show of their observations, what the recipe says."""

    def make() -> gym.Env[Any, Any]:
        env = make_env()
        if recipe.risen:
            env = RisenStarts(env, recipe.risen)
        if (inputs := recipe.inputs) is not None:
            space = env.observation_space
            assert isinstance(space, spaces.Box)
            first = spaces.Box(space.low[:inputs], space.high[:inputs], dtype=space.dtype.type)
            env = TransformObservation(env, lambda observation: observation[:inputs], first)
        return env

    return make


def _ppo(recipe: Recipe, envs: VecEnv, common: dict[str, Any], _: int) -> BaseAlgorithm:
    from stable_baselines3 import PPO

    network: dict[str, Any] = {
        "optimizer_kwargs": {"fused": True},
        "net_arch": [recipe.width] * 2,
        "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[recipe.activation],
        "log_std_init": recipe.log_std_init,
    }
    algorithm = PPO(
        "MlpPolicy",
        envs,
        learning_rate=recipe.learning_rate,
        n_steps=recipe.n_steps,
        n_epochs=recipe.n_epochs,
        gae_lambda=recipe.gae_lambda,
        ent_coef=recipe.ent_coef,
        clip_range=recipe.clip_range,
        policy_kwargs=network,
        **common,
    )

    def falling(_: float) -> float:
        """To zero over the recipe's steps: SB3 counts those up to where this run of it stops."""
        return recipe.learning_rate * max(0.0, 1 - algorithm.num_timesteps / recipe.steps)

    algorithm.lr_schedule = falling
    return algorithm


def _sac(recipe: Recipe, envs: Any, common: dict[str, Any], offset: int) -> Any:
    """SAC of SBX: Stable-Baselines3's in JAX, several times as many updates a second on a core."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    from flax import linen
    from sbx import SAC

    class PatientSAC(SAC):
        """Learns once there is enough to learn from, after a resume without its memory too.

        From its latest steps alone finger-turn fell from 970 to 570.
        """

        least_memory: int
        critic_alone = 0
        """Steps until which the critic learns to value an actor that stays as it is."""

        def train(self, gradient_steps: int, batch_size: int) -> None:
            assert self.replay_buffer is not None
            if self.replay_buffer.size() * self.n_envs < self.least_memory:
                return
            alone = self.num_timesteps < self.critic_alone
            if alone and self._n_updates == 0:
                self.ent_coef_state = entropy_state(self)
            before = self.policy.actor_state, self.ent_coef_state
            super().train(gradient_steps, batch_size)
            if alone:
                self.policy.actor_state, self.ent_coef_state = before

    activation = {"tanh": linen.tanh, "relu": linen.relu}[recipe.activation]
    network = {
        "net_arch": [recipe.width] * 2,
        "activation_fn": activation,
        "layer_norm": recipe.critic_norm,
    }
    algorithm = PatientSAC(
        "MlpPolicy",
        envs,
        learning_rate=recipe.learning_rate,
        buffer_size=recipe.buffer_size,
        learning_starts=recipe.learning_starts,
        train_freq=1,
        gradient_steps=recipe.gradient_steps,
        policy_delay=recipe.policy_delay,
        n_steps=recipe.return_steps,
        ent_coef=f"auto_{recipe.ent_coef or 1.0}",
        policy_kwargs=network,
        **common,
    )
    narrow(algorithm.replay_buffer)
    algorithm.least_memory = max(recipe.learning_starts, min(offset, recipe.buffer_size // 10))
    return algorithm
