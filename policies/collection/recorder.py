"""Playing an expert, under noise if asked, and keeping what is worth learning from.

* :class:`RecordSettings` -- what decides an episode beside its task and number.
* :func:`episode_seed` -- the seed of a task's episode.
* :class:`Recorder` -- plays a task's episodes.
* :func:`make_episode` -- an episode from what was seen and done.
* :class:`NavigationNoise`, :class:`HeldNoise`, :class:`UniformNoise` -- what is executed instead of
  the expert's choice.

The label is always the expert's own action in the state at hand; noise only decides which states
those are, so that a network learns the way back to the expert's path.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.frames import ObservationList
from gato_gym.tasks import Task
from policies.base import Policy
from policies.chance import seed_episodes
from policies.collection.env_faults import Beat, GuardedEnv
from policies.collection.filtering import least_return
from policies.collection.noise import HeldNoise, NavigationNoise, Noise, UniformNoise
from policies.experts import execute, failure_of, make_expert
from policies.random_policy import RandomPolicy

FIRST_SEED = 1_000_000
"""Seeds below are for evaluation; episodes are recorded with seeds from here on."""

SEED_RANGE = 2**30
POLICIES = ("expert", "random")
DONE = 6
"""BabyAI's action that does nothing: its bot chooses it only where it has lost its way."""


@dataclass(frozen=True)
class RecordSettings:
    """What decides an episode beside its task and number.

    Attributes:
        seed: Of the collection: another seed, other episodes.
        noise: Strength p of the noise, at least 0. Half of BabyAI's episodes execute a random
            action with probability p a step, and so do half of Atari's. Where actions are a Box, an
            episode draws its standard deviation from {0, p/4, p/2, 3p/4, p}, in units of half the
            action's range.
        steps_after_success: Stop recording so many steps after an episode's first success; None
            records to the end.
        keep: Share of the expert's mean return that an episode must reach.
        policy: Who plays: "expert", or "random", whose episodes are all kept.
    """

    seed: int = 0
    noise: float = 0.0
    steps_after_success: int | None = None
    keep: float = 0.8
    policy: str = "expert"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy is {self.policy!r}: expected {' or '.join(POLICIES)}")
        if self.policy == "random" and self.noise:
            raise ValueError(f"noise is {self.noise} with the random policy: expected 0")
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise is {self.noise}: expected 0 (none) or more")
        if self.steps_after_success is not None and self.steps_after_success < 0:
            raise ValueError(
                f"steps_after_success is {self.steps_after_success}: expected 0 or more, or None"
            )


def episode_seed(task_id: str, index: int, *, seed: int, purpose: str = "collect") -> int:
    """The seed of a task's episode number ``index``: in [1,000,000, 2**30 + 1,000,000 + index].

    Episodes of one task and one ``seed`` have consecutive seeds, so none repeats.

    Example:
        >>> first, second = (episode_seed("babyai-go-to", i, seed=0) for i in range(2))
        >>> second - first, first >= 1_000_000
        (1, True)
    """
    digest = hashlib.blake2b(f"{purpose}/{task_id}/{seed}".encode(), digest_size=8).digest()
    return FIRST_SEED + int.from_bytes(digest, "little") % SEED_RANGE + index


class Recorder:
    """Plays a task's expert, episode by episode.

    Args:
        task: The task.
        settings: What decides an episode.
        beat: Told the seed and the number of each step before it is played.
    """

    def __init__(
        self, task: Task, settings: RecordSettings, *, beat: Beat = lambda seed, step: None
    ) -> None:
        self.task, self.settings, self._beat = task, settings, beat
        self._open()

    def _open(self) -> None:
        self.env: gym.Env[Any, Any] = self.task.make()
        self._guarded = GuardedEnv(self.task.id, self.env, self._beat)
        self.expert: Policy
        if self.settings.policy == "random":
            self.expert = RandomPolicy(self.env.observation_space, self.env.action_space)
        else:
            self.expert = make_expert(self.task.id, self.env)

    def reopen(self) -> None:
        """Make the environment anew, after a fault; one that cannot even be closed is left."""
        with contextlib.suppress(Exception):
            self.env.close()
        self._open()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def expert_returns(self, episodes: int) -> list[float]:
        """Returns of clean, whole episodes of the expert, of seeds of their own.

        Where the expert fails, the episode counts as it ended.

        Raises:
            EnvironmentFault: The environment raised, or returned NaN.
        """
        returns = []
        for index in range(episodes):
            seed = episode_seed(
                self.task.id, index, seed=self.settings.seed, purpose="expert return"
            )
            returns.append(sum(float(reward) for reward in self._play_to_the_end(seed)))
        return returns

    def record(self, index: int, expert_return: float | None) -> Episode | str:
        """Episode number ``index``, or why it is not kept.

        Args:
            index: Its number, which with the settings decides it.
            expert_return: The expert's mean return; None keeps every episode.

        Raises:
            EnvironmentFault: The environment raised, or returned NaN; :meth:`reopen` follows.
        """
        seed = episode_seed(self.task.id, index, seed=self.settings.seed)
        noise = self._noise(np.random.default_rng([seed, 1]))
        observation, state = self._begun(seed)
        observations = ObservationList()
        observations.append(observation)
        labels, executed, rewards = [], [], []
        start, success, terminated, done = True, False, False, False
        spare = self.settings.steps_after_success
        while not done:
            label, state = self._chosen(observation, state, start)
            if failure_of(state, 0) is not None or (self.task.suite == "babyai" and label == DONE):
                return "expert failed"
            action = noise.execute(label)
            execute(state, 0, action)
            observation, reward, terminated, truncated, info = self._guarded.step(action)
            observations.append(observation)
            labels.append(label)
            executed.append(action)
            rewards.append(reward)
            start, done = False, terminated or truncated
            success = success or bool(info.get("success"))
            if success and spare is not None and not terminated:
                done, spare = done or spare == 0, spare - 1
        episode = make_episode(
            self.task.id,
            observations,
            labels,
            executed if noise.level else None,
            rewards,
            terminated=terminated,
            seed=seed,
            info={"noise": noise.level, "success": success, "index": index},
        )
        return self._shortcoming(episode, expert_return) or episode

    def _shortcoming(self, episode: Episode, expert_return: float | None) -> str | None:
        """Why an episode is not good enough; None where it is.

        An episode whose recording stops after success has a shorter, smaller return than the
        expert's whole episodes: there, success is what is asked for.
        """
        if expert_return is None:
            return None
        if self.settings.steps_after_success is not None and not episode.terminations[-1]:
            return None if episode.info["success"] else "without success"
        least = least_return(expert_return, self.settings.keep)
        return None if episode.total_return >= least else "below the expert"

    def _noise(self, generator: np.random.Generator) -> Noise:
        strength, actions = self.settings.noise, self.env.action_space
        if isinstance(actions, spaces.Box):
            return HeldNoise(strength, actions, generator)
        if self.task.suite == "babyai":
            return NavigationNoise(strength, generator)
        assert isinstance(actions, spaces.Discrete), "registered tasks have Boxes or choices"
        return UniformNoise(strength, actions, generator)

    def _begun(self, seed: int) -> tuple[Any, Any]:
        """The first observation of an episode that its seed decides, and the expert's state."""
        return self._guarded.reset(seed), seed_episodes(self.expert, [seed])

    def _chosen(self, observation: Any, state: Any, start: bool) -> tuple[Any, Any]:
        likeliest = not self.expert.samples
        return self.expert.predict(observation, state, np.array([start]), likeliest)

    def _play_to_the_end(self, seed: int) -> Iterator[float]:
        observation, state = self._begun(seed)
        start, done = True, False
        while not done:
            action, state = self._chosen(observation, state, start)
            observation, reward, terminated, truncated, _ = self._guarded.step(action)
            start, done = False, terminated or truncated
            yield reward


def make_episode(
    task_id: str,
    observations: ObservationList,
    labels: list[Any],
    executed: list[Any] | None,
    rewards: list[float],
    *,
    terminated: bool,
    seed: int,
    info: dict[str, Any],
) -> Episode:
    """An episode of T steps from what was seen and done.

    Args:
        task_id: Of the task, or of the environment.
        observations: T + 1 of them.
        labels: T actions to learn.
        executed: T actions that were executed, or None where they are the labels.
        rewards: T of them.
        terminated: Whether it ended, rather than being cut off.
        seed: What the environment was reset with.
        info: JSON values.
    """
    last: NDArray[np.bool_] = np.zeros(len(rewards), np.bool_)
    last[-1] = True
    never = np.zeros(len(rewards), np.bool_)
    return Episode(
        task=task_id,
        observations=(
            observations.stacked() if observations.overlap else _stack(observations.parts())
        ),
        actions=_stack(labels),
        rewards=np.asarray(rewards, np.float32),
        terminations=last if terminated else never,
        truncations=never if terminated else last,
        seed=seed,
        info=info,
        executed=None if executed is None else _stack(executed),
    )


def _stack(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {key: _stack([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(_stack(list(column)) for column in zip(*parts, strict=True))
    return parts if isinstance(parts[0], str) else np.stack(parts)
