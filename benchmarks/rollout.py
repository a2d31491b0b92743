"""Playing chosen episodes with one policy, several environments at a time.

* :func:`make_rows` -- the environments of a batch, as a vector environment.
* :func:`play` -- plays exactly the given episodes and yields each as it ends.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from benchmarks.protocol import EpisodeKey, EpisodeResult

if TYPE_CHECKING:
    from gato_gym.tasks import Task


class Predictor(Protocol):
    """Stable-Baselines3's ``predict``: all that a benchmark asks of a policy."""

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations, and the state for the next call."""


def make_rows(task: Task, num_envs: int) -> SyncVectorEnv:
    """``num_envs`` environments of a task, none of which resets itself."""
    return SyncVectorEnv([task.make] * num_envs, autoreset_mode=AutoresetMode.DISABLED)


def play(
    envs: SyncVectorEnv,
    policy: Predictor,
    episodes: Sequence[EpisodeKey],
    *,
    deterministic: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[EpisodeResult]:
    """Play every episode of ``episodes`` once.

    An environment whose episode ends takes up the next pending one. With none pending it is
    left alone: the policy, whose batch must keep its rows, is shown its last observation and
    what it answers there is ignored.

    Args:
        envs: From :func:`make_rows`. Stepped one by one, so that none is stepped when done.
        policy: Plays all of them, as one batch of ``envs.num_envs`` rows.
        episodes: What to play.
        deterministic: Handed to ``predict``.
        stopped: Asked before each timestep; True abandons the episodes under way.

    Yields:
        A result for each episode, in the order in which they end.

    Raises:
        ValueError: A reward is not finite.
    """
    pending = deque(episodes)
    space, rows = envs.single_observation_space, envs.num_envs
    observations: list[Any] = [None] * rows
    starts = np.ones(rows, dtype=np.bool_)
    running: list[_Running | None] = [None] * rows
    for row in range(rows):
        # With fewer episodes than rows, the rest need an observation to show the policy.
        key = pending.popleft() if pending else None
        observations[row], _ = envs.envs[row].reset(seed=key.seed if key else 0)
        running[row] = _Running(key) if key else None
    state: Any = None
    while any(running) and not stopped():
        batch = _batch(space, observations)
        actions, state = policy.predict(
            batch, state=state, episode_start=starts.copy(), deterministic=deterministic
        )
        starts[:] = False
        for row, action in enumerate(iterate(envs.action_space, actions)):
            episode = running[row]
            if episode is None:
                continue
            observations[row], ended = episode.step(envs.envs[row], action)
            if not ended:
                continue
            yield episode.result()
            running[row] = None
            if pending:
                key = pending.popleft()
                observations[row], _ = envs.envs[row].reset(seed=key.seed)
                running[row] = _Running(key)
                starts[row] = True


def _batch(space: gym.Space[Any], observations: Sequence[Any]) -> Any:
    empty = create_empty_array(space, n=len(observations))
    assert empty is not None
    return concatenate(space, observations, empty)


@dataclass
class _Running:
    """An episode under way."""

    key: EpisodeKey
    started: float = field(default_factory=time.perf_counter)
    rewards: list[float] = field(default_factory=list)
    success: bool | None = None
    terminated: bool = False

    def step(self, env: gym.Env[Any, Any], action: Any) -> tuple[Any, bool]:
        """Take one timestep; the next observation, and whether the episode has ended."""
        observation, reward, terminated, truncated, info = env.step(action)
        value = float(reward)
        if not math.isfinite(value):
            raise ValueError(
                f"{self.key.task}, seed {self.key.seed}: reward {value} at timestep "
                f"{len(self.rewards)}, expected a finite number: the environment is at fault"
            )
        self.rewards.append(value)
        if "success" in info:
            self.success = bool(self.success) or bool(info["success"])
        self.terminated = bool(terminated)
        return observation, bool(terminated or truncated)

    def result(self) -> EpisodeResult:
        total = math.fsum(self.rewards)
        return EpisodeResult(
            self.key,
            total_return=total,
            length=len(self.rewards),
            success=self.success,
            terminated=self.terminated,
            seconds=time.perf_counter() - self.started,
        )
