"""One episode as it is played in one environment.

* :class:`RunningEpisode` -- its reset, its steps and its outcome, within its time.
* :class:`EpisodeRecorder` -- sees an episode as it is played, and may perturb its actions.
* :func:`as_member` -- a single action as its space has it; :func:`check_finite` -- refuses NaN.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policies.chance import hash_member
from policies.rollout.faults import describe, time_limit
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


LARGEST_REWARD = float(np.finfo(np.float32).max)
"""Largest magnitude of a reward: episodes keep float32, and sums of these do not overflow."""

Record = Callable[[EpisodeKey], EpisodeRecorder]
"""Makes the recorder of an episode."""


def as_member(space: gym.Space[Any], action: Any) -> Any:
    """A single action as its space has it; SB3 gives 0-d arrays for Discrete, float64 for Boxes.

    Raises:
        ValueError: It is no member.
    """
    member = action
    if isinstance(space, gym.spaces.Box):
        member = np.asarray(action, space.dtype).reshape(space.shape)
    elif isinstance(space, gym.spaces.Discrete):
        member = space.dtype.type(np.asarray(action).reshape(-1)[0])
    if not space.contains(member):
        raise ValueError(
            f"the policy gave {action!r}, which is no member of {space}: expected one; clip it, or "
            "wrap the environment as it was in the policy's training"
        )
    return copy.deepcopy(member)


def check_finite(space: gym.Space[Any], action: Any) -> None:
    """Refuse an action with numbers that are NaN or infinite.

    Raises:
        ValueError: It has such.
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            check_finite(part, action[key])
    elif isinstance(space, spaces.Tuple):
        for part, each in zip(space.spaces, action, strict=True):
            check_finite(part, each)
    elif isinstance(space, spaces.Box) and not np.isfinite(action).all():
        raise ValueError(f"the policy gave {action!r}: expected an action of finite numbers")


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
        hash_member(self.spaces[0], observation, self.played)
        if self.recorder is not None:
            self.recorder.begin(observation)
        return observation

    def step(self, env: gym.Env[Any, Any], action: Any) -> tuple[Any, bool]:
        """Take one timestep; the next observation, and whether the episode has ended.

        Raises:
            EpisodeTimeout: The environment has used up its time.
            ValueError: The action has NaN, or the reward is no number that an episode can keep.
        """
        check_finite(self.spaces[1], action)
        with self._limited():
            observation, reward, terminated, truncated, info = env.step(action)
        value = float(reward)
        if not abs(value) <= LARGEST_REWARD:
            raise ValueError(
                f"{self.key.task}, seed {self.key.seed}: reward {value} at timestep "
                f"{len(self.rewards)}, expected a finite number of float32: the environment is at "
                "fault"
            )
        self.rewards.append(value)
        hash_member(self.spaces[1], action, self.played)
        success = info.get("success", info.get("is_success"))
        if success is not None:
            self.success = bool(self.success) or bool(success)
        self.terminated = bool(terminated)
        stop = self.recorder is not None and self.recorder.step(
            observation, value, self.terminated, info
        )
        return observation, bool(terminated or truncated or stop)

    @contextlib.contextmanager
    def _limited(self) -> Generator[None]:
        """Counts the environment's time, and ends it when it is used up."""
        began = self.clock.begin()
        try:
            if self.timeout is None:
                yield
                return
            started = time.perf_counter()
            where = f"{self.key.task}, seed {self.key.seed}, timestep {len(self.rewards)}"
            message = f"{where}: the episode took its environment {longer_than(self.timeout)}"
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
