"""Episodes of any policy in any environment: recorded as a dataset, or only scored.

* :func:`record_episodes` -- to a Minari dataset.
* :func:`play_returns` -- their returns.
* :func:`load_player` -- what ``--policy`` names.

A policy is any object with Stable-Baselines3's ``predict``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from gato_gym.episodes import hdf5
from gato_gym.episodes.episode import Episode
from gato_gym.episodes.frames import ObservationList
from gato_gym.episodes.minari_datasets import new_minari
from policies.chance import seed_episodes
from policies.collection.noise import HeldNoise
from policies.collection.recorder import FIRST_SEED, make_episode
from policies.registry import make_policy
from policies.rollout.env_batch import PolicyLike

ALGORITHMS = ("ppo", "a2c", "dqn", "sac", "td3", "ddpg")


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
    on_episode: Callable[[Episode], None] | None = None,
) -> list[float]:
    """Play a policy and keep its episodes as a Minari dataset, which appears when it is complete.

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
        on_episode: Called after each.

    Returns:
        The return of each episode.

    Raises:
        ValueError: The dataset exists, or the policy gave what is no action of the environment.
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
    }
    with new_minari(dataset_id, env=env, root=root, metadata=metadata, replace=replace) as file:
        for index, episode in enumerate(
            play(
                env,
                policy,
                episodes,
                seed=FIRST_SEED + seed,
                deterministic=deterministic,
                noise=noise,
            )
        ):
            hdf5.append_episode(file, index, episode)
            returns.append(episode.total_return)
            if not episode.info.get("noise"):
                clean.append(episode.total_return)
            if on_episode is not None:
                on_episode(episode)
        metadata["expert_return"] = float(np.mean(clean))
    return returns


class RandomActions:
    """With probability p, a member of the action space instead of what was chosen."""

    def __init__(
        self, strength: float, space: gym.Space[Any], generator: np.random.Generator
    ) -> None:
        self.level = strength
        self._space, self._generator = copy.deepcopy(space), generator
        self._space.seed(int(generator.integers(2**31)))

    def execute(self, label: Any) -> Any:
        """What to execute where the policy chose ``label``."""
        return self._space.sample() if self._generator.random() < self.level else label


def _noise(strength: float, space: gym.Space[Any], seed: int) -> HeldNoise | RandomActions:
    generator = np.random.default_rng([seed, 1])
    if isinstance(space, gym.spaces.Box) and space.is_bounded():
        return HeldNoise(strength, space, generator)
    return RandomActions(strength, space, generator)


def play(
    env: gym.Env[Any, Any],
    policy: PolicyLike,
    episodes: int,
    *,
    seed: int,
    deterministic: bool,
    noise: float = 0.0,
) -> Iterator[Episode]:
    """Episodes of a policy, one after another; episode i starts from ``reset(seed=seed + i)``.

    Raises:
        ValueError: The policy gave what is no action of the environment.
    """
    for index in range(episodes):
        strength = noise if index % 5 else 0.0
        disturbed = _noise(strength, env.action_space, seed + index)
        yield _play_one(env, policy, seed + index, deterministic, disturbed)


def _play_one(
    env: gym.Env[Any, Any],
    policy: PolicyLike,
    seed: int,
    deterministic: bool,
    noise: HeldNoise | RandomActions,
) -> Episode:
    observation, _ = env.reset(seed=seed)
    labels, executed, rewards = [], [], []
    seen = ObservationList()
    seen.append(copy.deepcopy(observation))
    state, start, success = seed_episodes(policy, [seed]), True, None
    terminated = truncated = False
    while not (terminated or truncated):
        given, state = policy.predict(
            observation, state, np.array([start]), deterministic=deterministic
        )
        label = _as_member(env.action_space, given)
        action = noise.execute(label) if noise.level else label
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(copy.deepcopy(observation))
        labels.append(label)
        executed.append(copy.deepcopy(action))
        rewards.append(float(reward))
        start = False
        if "success" in info or "is_success" in info:
            success = bool(success) or bool(info.get("success", info.get("is_success")))
    outcome: dict[str, Any] = {} if success is None else {"success": success}
    return make_episode(
        name_of(env),
        seen,
        labels,
        executed if noise.level else None,
        rewards,
        terminated=bool(terminated),
        seed=seed,
        info={**outcome, **({"noise": noise.level} if noise.level else {})},
    )


def play_returns(
    env: gym.Env[Any, Any], policy: PolicyLike, episodes: int, *, seed: int = 0,
    deterministic: bool = True,
) -> list[float]:  # fmt: skip
    """Returns of a policy's episodes; seeds from 0 on are never recorded ones."""
    played = play(env, policy, episodes, seed=seed, deterministic=deterministic)
    return [episode.total_return for episode in played]


def name_of(env: gym.Env[Any, Any]) -> str:
    """Id of an environment, or its class's name."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _as_member(space: gym.Space[Any], given: Any) -> Any:
    """The action as the space has it; SB3 gives 0-d arrays for Discrete and float64 Boxes."""
    action = given
    if isinstance(space, gym.spaces.Box):
        action = np.asarray(given, space.dtype).reshape(space.shape)
    elif isinstance(space, gym.spaces.Discrete):
        action = space.dtype.type(np.asarray(given).reshape(-1)[0])
    if not space.contains(action):
        raise ValueError(
            f"the policy gave {given!r}, which is no member of {space}: expected one; clip it, or "
            "wrap the environment as it was in the policy's training"
        )
    return copy.deepcopy(action)


def load_player(
    name: str, env: gym.Env[Any, Any], *, algorithm: str | None = None, trust_zip: bool = False
) -> Any:
    """The policy that a name stands for.

    Args:
        name: "expert" (of a registered task), "random", a checkpoint's or run's folder, an SB3
            archive ``….zip``, or ``module:factory``, a function that takes the environment.
        env: What it plays in.
        algorithm: Of an archive: one of :data:`ALGORITHMS`.
        trust_zip: Whether an archive's author is trusted: reading it runs code that is in it.

    Raises:
        ValueError: The name stands for nothing, or an archive is not trusted.
        ImportError: The factory's module, or Stable-Baselines3, cannot be imported.
    """
    if name.endswith(".zip"):
        return _load_zip(Path(name), algorithm, trust_zip)
    return make_policy(name, env=env)


def _load_zip(path: Path, algorithm: str | None, trusted: bool) -> Any:
    if not path.is_file():
        raise ValueError(f"no archive {str(path)!r}: expected the .zip that an SB3 model saved")
    if not trusted:
        raise ValueError(
            f"{path} is a Stable-Baselines3 archive, which holds pickles: reading it runs whatever "
            "code its author put in. If you made it, or trust who did, pass --trust-zip"
        )
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"algorithm is {algorithm!r}: pass --algorithm, one of {', '.join(ALGORITHMS)}, as the "
            "archive does not name its own"
        )
    try:
        import stable_baselines3
    except ImportError as error:
        raise ImportError(
            "a Stable-Baselines3 archive needs that package: run pip install 'gato-gym[sb3]'"
        ) from error
    return getattr(stable_baselines3, algorithm.upper()).load(path, device="cpu")


def likeliest(policy: Any, *, stochastic: bool = False) -> bool:
    """Whether a policy plays its most likely actions: not where sampling is asked for, or its own
    way."""
    return not (stochastic or getattr(policy, "samples", False))
