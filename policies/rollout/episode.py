"""One episode as it is played in one environment.

* :class:`RunningEpisode` -- its reset, its steps and its outcome, within its time.
* :class:`EpisodeRecorder` -- sees an episode as it is played, and may perturb its actions.
* :func:`name_of` -- what an environment is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policies.chance import hash_member
from policies.rollout.faults import describe, time_limit
from policies.rollout.members import as_observation, as_reward, success_in
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult
from policies.rollout.timing import Clock


class EpisodeRecorder(Protocol):
    """Sees one episode as it is played."""

    def begin(self, observation: Any) -> None:
        """Take its first observation."""

    def execute(
        self, label: Any, state: Any, row: int, distribution: NDArray[np.float16] | None
    ) -> Any:
        """The action to execute where the policy, whose state this is, chose ``label``.

        ``distribution``, float16 ``[K]``, is what it chose from, as
        :class:`gato_gym.episodes.Episode` keeps it, or None where the policy does not say or the
        label is a sample of a Box. What this raises ends the rollout.
        """

    def step(
        self, observation: Any, reward: float, terminated: bool, info: Mapping[str, Any]
    ) -> bool:
        """Take what a timestep led to; whether the episode shall end here."""


Record = Callable[[EpisodeKey], EpisodeRecorder]
"""Makes the recorder of an episode."""


def name_of(env: gym.Env[Any, Any]) -> str:
    """Id of an environment, or its class's name."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def longer_than(seconds: float | None) -> str:
    """In words."""
    return f"longer than the {seconds or 0.0:g} s of --episode-timeout"


@dataclass
class RunningEpisode:
    """An episode under way, in one environment."""

    key: EpisodeKey
    spaces: tuple[gym.Space[Any], gym.Space[Any]]
    clock: Clock
    timeout: float | None = None
    recorder: EpisodeRecorder | None = None
    accepts_nan: bool = True
    started: float = field(default_factory=time.perf_counter)
    rewards: list[float] = field(default_factory=list)
    success: bool | None = None
    terminated: bool = False
    used: float = 0.0
    played: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=8))

    def reset(self, env: gym.Env[Any, Any]) -> Any:
        """Begin; the first observation."""
        with self._limited():
            observation, _ = env.reset(seed=self.key.seed)
        observation = self._observed(observation)
        hash_member(self.spaces[0], observation, self.played)
        if self.recorder is not None:
            self.recorder.begin(observation)
        return observation

    def step(self, env: gym.Env[Any, Any], action: Any) -> tuple[Any, bool]:
        """Take one timestep; the next observation, and whether the episode has ended.

        Raises:
            EpisodeTimeout: The environment has used up its time.
            ValueError: The observation is not of its space, or the reward is no number that an
                episode can keep.
        """
        with self._limited():
            observation, reward, terminated, truncated, info = env.step(action)
        observation = self._observed(observation)
        value = self._checked(as_reward, reward)
        self.rewards.append(value)
        hash_member(self.spaces[1], action, self.played)
        success = success_in(info)
        if success is not None:
            self.success = bool(self.success) or success
        self.terminated = bool(terminated)
        stop = self.recorder is not None and self.recorder.step(
            observation, value, self.terminated, info
        )
        return observation, bool(terminated or truncated or stop)

    def _observed(self, observation: Any) -> Any:
        return self._checked(
            as_observation, self.spaces[0], observation, accepts_nan=self.accepts_nan
        )

    def _checked(self, check: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """What the environment gave, as it has to be; an error says where it was."""
        try:
            return check(*given, **options)
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}; the environment is at fault") from error

    @property
    def _where(self) -> str:
        return f"{self.key.task}, seed {self.key.seed}, timestep {len(self.rewards)}"

    @contextlib.contextmanager
    def _limited(self) -> Generator[None]:
        """Counts the environment's time, and ends it when it is used up."""
        began = self.clock.begin()
        try:
            if self.timeout is None:
                yield
                return
            started = time.perf_counter()
            message = f"{self._where}: the episode took its environment {longer_than(self.timeout)}"
            with time_limit(self.timeout - self.used, message):
                yield
            self.used += time.perf_counter() - started
        finally:
            self.clock.end("environments", began)

    def failure(self, error: BaseException) -> EpisodeFailure:
        seconds = time.perf_counter() - self.started
        return EpisodeFailure(self.key, describe(error), len(self.rewards), seconds)

    def result(self) -> EpisodeResult:
        total = math.fsum(self.rewards)
        self.played.update(np.array(self.rewards, np.float64).tobytes())
        return EpisodeResult(
            self.key,
            total_return=total,
            length=len(self.rewards),
            success=self.success,
            terminated=self.terminated,
            seconds=time.perf_counter() - self.started,
            digest=self.played.hexdigest(),
        )
