"""Playing chosen episodes with one policy, several environments at a time.

An environment that raises, hangs or returns a reward that is not finite fails its episode and is
replaced by a new one; the others go on as if nothing had happened.

* :func:`make_rows` -- the environments of a batch, as a vector environment.
* :class:`Row` -- one of them, which a new one can take the place of.
* :func:`play` -- plays exactly the given episodes and yields each as it ends.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from benchmarks.clock import Clock
from benchmarks.faults import EnvironmentFault, EpisodeTimeout, describe, time_limit
from benchmarks.protocol import BenchmarkError, EpisodeFailure, EpisodeKey, EpisodeResult, Outcome

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
    return SyncVectorEnv([lambda: Row(task.make)] * num_envs, autoreset_mode=AutoresetMode.DISABLED)


class Row(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that can be made anew where it stands, so that who holds it need not know.

    Args:
        make: Makes the environment.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]]) -> None:
        super().__init__(make())
        self._make = make

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """The environment's own."""
        return self.env.spec

    def renew(self) -> None:
        """Put a new environment in the place of one that failed, which may not even close.

        Raises:
            EnvironmentFault: It cannot be made again.
        """
        with contextlib.suppress(Exception), time_limit(10.0, "it does not close"):
            self.env.close()
        try:
            self.env = self._make()
        except Exception as error:
            raise EnvironmentFault(f"it failed and cannot be made again: {error}") from error


def play(
    envs: SyncVectorEnv,
    policy: Predictor,
    episodes: Sequence[EpisodeKey],
    *,
    deterministic: bool,
    stopped: Callable[[], bool] = lambda: False,
    episode_timeout: float | None = None,
    clock: Clock | None = None,
) -> Generator[Outcome]:
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
        episode_timeout: Seconds that an environment may spend on an episode, its reset and all
            its steps together, and that the policy may spend on one action; None for ever.
        clock: Measures environments and inference.

    Yields:
        A result or a failure for each episode, in the order in which they end.

    Raises:
        BenchmarkError: An environment cannot be used as it is asked for.
        EnvironmentFault: An environment that failed cannot be made again.
    """
    clock = clock or Clock()
    batch = _Batch(envs, deque(episodes), episode_timeout, clock)
    for row in range(envs.num_envs):
        yield from batch.take_up(row, fresh=True)
    state: Any = None
    while any(batch.running) and not stopped():
        try:
            with (
                clock.of("inference"),
                time_limit(
                    episode_timeout, f"one action took the policy {_longer(episode_timeout)}"
                ),
            ):
                actions, state = policy.predict(
                    batch.shown(),
                    state=state,
                    episode_start=batch.starts.copy(),
                    deterministic=deterministic,
                )
        except EpisodeTimeout as error:
            # Whose episode it was cannot be told, nor what is left of the state.
            state = None
            yield from batch.give_up(error)
            continue
        batch.starts[:] = False
        for row, action in enumerate(iterate(envs.action_space, actions)):
            yield from batch.step(row, action)


class _Batch:
    """The rows of environments, and the episodes under way in them.

    Attributes:
        running: The episode of each row; None where none is.
        starts: Where an episode begins with what is shown next: bool ``[rows]``.
    """

    def __init__(
        self,
        envs: SyncVectorEnv,
        pending: deque[EpisodeKey],
        episode_timeout: float | None,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.envs, self.pending, self.episode_timeout = envs, pending, episode_timeout
        self.running: list[_Running | None] = [None] * envs.num_envs
        self.starts = np.ones(envs.num_envs, dtype=np.bool_)
        self._observations: list[Any] = [None] * envs.num_envs

    def shown(self) -> Any:
        """The newest observation of every row, as a batch."""
        space = self.envs.single_observation_space
        empty = create_empty_array(space, n=len(self._observations))
        assert empty is not None
        return concatenate(space, self._observations, empty)

    def take_up(self, row: int, *, fresh: bool = False) -> Generator[EpisodeFailure]:
        """Begin the next pending episode that can be begun, if any.

        Args:
            row: Where.
            fresh: The environment has shown nothing yet, which is needed even without an episode.
        """
        self.running[row] = None
        while self.pending and self.running[row] is None:
            episode = _Running(self.pending.popleft(), self.clock, self.episode_timeout)
            try:
                self._observations[row] = episode.reset(self.envs.envs[row])
                self.running[row], self.starts[row] = episode, True
            except BenchmarkError:
                raise
            except Exception as error:
                yield self._failed(row, episode, error)
                fresh = True
        if self.running[row] is None and fresh and any(self.running):
            self._idle(row)

    def step(self, row: int, action: Any) -> Generator[Outcome]:
        """Take one timestep of a row; what became of its episode, if it ends, and the next one."""
        episode = self.running[row]
        if episode is None:
            return
        try:
            self._observations[row], ended = episode.step(self.envs.envs[row], action)
        except BenchmarkError:
            raise
        except Exception as error:
            yield self._failed(row, episode, error)
            yield from self.take_up(row, fresh=True)
            return
        if ended:
            yield episode.result()
            yield from self.take_up(row)

    def give_up(self, error: Exception) -> Generator[EpisodeFailure]:
        """Fail every episode under way, and begin others."""
        self.starts[:] = True
        for row, episode in enumerate(self.running):
            if episode is not None:
                yield episode.failure(error)
                yield from self.take_up(row)

    def _failed(self, row: int, episode: _Running, error: Exception) -> EpisodeFailure:
        """A failure; the environment that it happened in is not used again."""
        env = self.envs.envs[row]
        if isinstance(env, Row):
            with self.clock.of("environments"):
                env.renew()
        return episode.failure(error)

    def _idle(self, row: int) -> None:
        """Have something to show of an environment in which nothing is played."""
        try:
            with self.clock.of("environments"):
                self._observations[row], _ = self.envs.envs[row].reset(seed=0)
        except Exception:
            other = next(row for row, episode in enumerate(self.running) if episode)
            self._observations[row] = self._observations[other]
        self.starts[row] = True


def _longer(seconds: float | None) -> str:
    return f"longer than the {seconds or 0.0:g} s of --episode-timeout"


@dataclass
class _Running:
    """An episode under way."""

    key: EpisodeKey
    clock: Clock
    timeout: float | None = None
    started: float = field(default_factory=time.perf_counter)
    rewards: list[float] = field(default_factory=list)
    success: bool | None = None
    terminated: bool = False
    used: float = 0.0

    def reset(self, env: gym.Env[Any, Any]) -> Any:
        """Begin; the first observation."""
        with self._limited():
            observation, _ = env.reset(seed=self.key.seed)
        return observation

    def step(self, env: gym.Env[Any, Any], action: Any) -> tuple[Any, bool]:
        """Take one timestep; the next observation, and whether the episode has ended.

        Raises:
            EpisodeTimeout: The environment has used up its time.
            ValueError: The reward is not finite.
        """
        with self._limited():
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
            message = f"{where}: the episode took its environment {_longer(self.timeout)}"
            with time_limit(self.timeout - self.used, message):
                yield
            self.used += time.perf_counter() - started
        finally:
            self.clock.end("environments", began)

    def failure(self, error: Exception) -> EpisodeFailure:
        seconds = time.perf_counter() - self.started
        return EpisodeFailure(self.key, describe(error), len(self.rewards), seconds)

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
