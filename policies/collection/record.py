"""Episodes of any policy in any environment: recorded as a dataset, or only scored.

* :func:`record_episodes` -- to a Minari dataset.
* :func:`play_returns` -- their returns.
* :func:`likeliest` -- whether a policy plays its most likely actions.

A policy is any object with Stable-Baselines3's ``predict``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from gato_gym.episodes import hdf5
from gato_gym.episodes.episode import Episode
from gato_gym.episodes.minari_writing import new_minari
from gato_gym.seeds import TRAINING_SEEDS_START
from policies.collection.noise import HeldNoise, Noise, SampledNoise
from policies.collection.recording import Recording
from policies.rollout.env_batch import PolicyLike
from policies.rollout.episode import name_of
from policies.rollout.vector_rollout import play_one


def record_episodes(
    env: gym.Env[Any, Any],
    policy: PolicyLike,
    episodes: int,
    dataset_id: str,
    *,
    root: Path | None = None,
    seed: int = 0,
    deterministic: bool = True,
    noise: float = 0.0,
    replace: bool = False,
    environment: str | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[float]:
    """Play a policy and keep its episodes as a Minari dataset, which appears when it is complete.

    Whatever ends the recording early, such as Ctrl-C or a full disk, the episodes that were
    recorded are kept, see :func:`~gato_gym.episodes.minari_writing.new_minari`.

    The dataset's metadata holds the mean return of episodes without noise as ``expert_return``.

    Args:
        env: The environment, with a time limit if its episodes would not end by themselves.
        policy: Who acts.
        episodes: How many, 1 or more.
        dataset_id: Such as ``my/cartpole-v0``.
        root: Folder of datasets; None is Minari's own.
        seed: Episode i starts from ``reset(seed=1_000_000 + seed + i)``.
        deterministic: Passed to ``predict``.
        noise: What is executed differs from the policy's choice, which is recorded all the same: a
            network learns the way back from states that the policy alone never meets. In [0, 1]:
            of a Box, the largest deviation in units of half its range; otherwise the probability
            of a random action. Every fifth episode is without.
        replace: Whether a dataset of this id gives way.
        environment: What :func:`gato_gym.make` took to make ``env``, kept with the dataset: such
            as ``module:Mine-v0``, of which ``env`` knows the id alone.
        on_episode: Called after each.

    Returns:
        The return of each episode.

    Raises:
        FolderInUseError: Another process records a dataset of this id.
        ValueError: The dataset exists, its id is not in form, or the policy gave what is no action
            of the environment.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}: expected 1 or more")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is {noise}: expected 0 (none) to 1")
    returns: list[float] = []
    clean: list[float] = []
    metadata: dict[str, Any] = {
        "algorithm_name": type(policy).__name__,
        "description": f"Episodes of {type(policy).__name__} in {name_of(env)}",
        **({} if environment is None else {"environment": environment}),
    }
    with new_minari(
        dataset_id, env=env, root=root, metadata=metadata, replace=replace, keep=True
    ) as file:
        for index in range(episodes):
            episode = _record_one(
                env,
                policy,
                TRAINING_SEEDS_START + seed + index,
                deterministic=deterministic,
                noise=noise if index % 5 else 0.0,
            )
            hdf5.append_episode(file, index, episode)
            returns.append(episode.total_return)
            if not episode.info.get("noise"):
                clean.append(episode.total_return)
                metadata["expert_return"] = float(np.mean(clean))
            if on_episode is not None:
                on_episode(episode)
    return returns


def _record_one(
    env: gym.Env[Any, Any], policy: PolicyLike, seed: int, *, deterministic: bool, noise: float
) -> Episode:
    perturbed = _noise(noise, env.action_space, seed)
    recording = Recording(env, perturbed)
    play_one(env, policy, seed, deterministic=deterministic, record=lambda _: recording)
    success, level = recording.success, perturbed.level
    info = ({} if success is None else {"success": success}) | ({"noise": level} if level else {})
    return recording.episode(name_of(env), seed, info)


def _noise(strength: float, space: gym.Space[Any], seed: int) -> Noise:
    generator = np.random.default_rng([seed, 1])
    if isinstance(space, gym.spaces.Box) and space.is_bounded():
        return HeldNoise(strength, space, generator)
    return SampledNoise(strength, space, generator)


def play_returns(
    env: gym.Env[Any, Any], policy: PolicyLike, episodes: int, *, seed: int = 0,
    deterministic: bool = True,
) -> list[float]:  # fmt: skip
    """Returns of a policy's episodes; seeds from 0 on are never recorded ones.

    Raises:
        ValueError: ``episodes`` is below 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}: expected 1 or more")
    return [
        play_one(env, policy, seed + index, deterministic=deterministic)
        for index in range(episodes)
    ]


def likeliest(policy: Any, *, stochastic: bool = False) -> bool:
    """Whether a policy plays its most likely actions: not where sampling is asked for, or its own
    way."""
    return not (stochastic or getattr(policy, "samples", False))
