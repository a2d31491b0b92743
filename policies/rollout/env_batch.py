"""Environments of one task, and the episodes under way in them.

An environment that raises, hangs or returns a reward that is not finite fails its episode and is
replaced by a new one; the others continue unchanged.

* :class:`PolicyLike` -- all that is asked of a policy.
* :func:`make_rows` -- the environments, as a vector environment.
* :class:`RestartableEnv` -- one of them, which a new one can take the place of.
* :class:`EnvBatch` -- plays exactly the given episodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from policies.base import Policy, row_of
from policies.chance import seed_episodes
from policies.distributions import ActionDistribution, Categorical, Decision
from policies.rollout.disturbances import UNDISTURBED, Disturbance
from policies.rollout.episode import Record, RunningEpisode
from policies.rollout.faults import FAULTS, EnvironmentFault, UsageError, close_env, describe
from policies.rollout.members import as_action, as_observation
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, Outcome
from policies.rollout.shared_forward import shared_by
from policies.rollout.timing import Clock

if TYPE_CHECKING:
    from gato_gym.tasks import Task


Envs = SyncVectorEnv | Sequence[gym.Env[Any, Any]]
"""Environments of :func:`make_rows`, or the caller's own."""


class PolicyLike(Protocol):
    """Stable-Baselines3's ``predict``: all that a benchmark asks of a policy."""

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations, and the state for the next call."""


def make_rows(task: Task, num_envs: int, disturbance: Disturbance = UNDISTURBED) -> SyncVectorEnv:
    """``num_envs`` environments of a task, none of which resets itself."""
    make = disturbance.making(task)
    return SyncVectorEnv(
        [lambda: RestartableEnv(make)] * num_envs, autoreset_mode=AutoresetMode.DISABLED
    )


class RestartableEnv(gym.Wrapper[Any, Any, Any, Any]):
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
        close_env(self.env)
        try:
            self.env = self._make()
        except FAULTS as error:
            raise EnvironmentFault(f"it failed and cannot be made again: {error}") from error


class EnvBatch:
    """Environments of one task, and the episodes under way in them.

    Args:
        envs: From :func:`make_rows`, closed when they are done with; or the caller's own, which
            are not. If the caller has one environment, the policy sees single observations.
        policy: Plays in all of them.
        episodes: What to play, one or more.
        episode_timeout, guard, record: As in :func:`policies.rollout.vector_rollout.play`.
        clock: Measures environments.

    Attributes:
        policy: As given.
        task: Task id.
        pending: Episodes not begun.
        running: The episode of each row; None where none is.
        shares: Whether the policy can act together with others.
    """

    def __init__(
        self,
        envs: Envs,
        policy: PolicyLike,
        episodes: Sequence[EpisodeKey],
        *,
        clock: Clock,
        episode_timeout: float | None = None,
        guard: bool = True,
        record: Record | None = None,
    ) -> None:
        self.policy, self.task, self.pending = policy, episodes[0].task, deque(episodes)
        self.shares = shared_by(policy) is not None
        self._owned = isinstance(envs, SyncVectorEnv)
        self._envs = list(envs.envs if isinstance(envs, SyncVectorEnv) else envs)
        self._guard, self._timeout = guard, episode_timeout
        self._accepts_nan = not guard or getattr(policy, "accepts_nan", False)
        self._clock, self._record = clock, record
        rows = len(self._envs)
        self.running: list[RunningEpisode | None] = [None] * rows
        self._spaces = self._envs[0].observation_space, self._envs[0].action_space
        self._starts, self._places = np.ones(rows, dtype=np.bool_), np.full(rows, -1)
        self._observations: list[Any] = [None] * rows
        self._state: Any = None
        self._distribution: ActionDistribution | None = None

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.running)

    @property
    def active(self) -> int:
        """Rows in which an episode is under way."""
        return sum(episode is not None for episode in self.running)

    def predict(self, *, deterministic: bool | None) -> list[Any]:
        """An action for each row, from the policy alone; None for an expert's own way to act."""
        if deterministic is None:
            deterministic = not getattr(self.policy, "samples", True)
        act: Any = self.policy.predict
        if self._record is not None and isinstance(self.policy, Policy):
            act = self.policy.decide
        self._state = seed_episodes(self.policy, self.seeds(), self._state)
        answer = act(
            self._observations[0] if self._single else self.shown(),
            state=self._state,
            episode_start=self.take_starts(),
            deterministic=deterministic,
        )
        if not isinstance(answer, tuple) or len(answer) not in (2, 3):
            raise ValueError(
                f"the policy's predict returned {answer!r:.80}: expected the actions and its state"
            )
        decision = Decision(*answer)
        self._state, self._distribution = decision.state, decision.distribution
        if not (deterministic or isinstance(self._distribution, Categorical)):
            self._distribution = None  # a sample is not the mean, which an episode has as its label
        if self._single:
            return [decision.actions]
        return self.split(decision.actions)

    @property
    def _single(self) -> bool:
        """Whether the policy sees single observations."""
        return not self._owned and self.size == 1

    def split(self, actions: Any) -> list[Any]:
        """A batch of actions row by row.

        Raises:
            ValueError: There is not one for each row.
        """
        counts = set(_rows_of_parts(self._spaces[1], actions))
        if counts - {self.size}:
            raise ValueError(
                f"the policy gave {min(counts - {self.size})} actions for {self.size} "
                "observations: expected one each"
            )
        return [row_of(self._spaces[1], actions, row) for row in range(self.size)]

    def seeds(self) -> list[int | None]:
        """The seed of the episode that begins in each row with what is shown next, if one does."""
        return [
            episode.key.seed if begins and episode is not None else None
            for begins, episode in zip(self._starts, self.running, strict=True)
        ]

    def take_starts(self) -> NDArray[np.bool_]:
        """Where an episode begins with what is shown next: bool ``[rows]``; asked for once."""
        starts, self._starts = self._starts, np.zeros(self.size, dtype=np.bool_)
        return starts

    def take_places(self) -> NDArray[np.int64]:
        """The rows' numbers when this was last asked, -1 the first time: int64 ``[rows]``."""
        places, self._places = self._places, np.arange(self.size)
        return places

    def drop_idle(self) -> None:
        """Do without the rows in which no episode is under way."""
        kept = [row for row, episode in enumerate(self.running) if episode is not None]
        for row in set(range(self.size)) - set(kept):
            self._close(self._envs[row])
        self._envs = [self._envs[row] for row in kept]
        self.running = [self.running[row] for row in kept]
        self._observations = [self._observations[row] for row in kept]
        self._starts, self._places = self._starts[kept], self._places[kept]

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            self._close(env)

    def _close(self, env: gym.Env[Any, Any]) -> None:
        if not self._owned:
            return
        with self._clock.of("environments"):
            close_env(env)  # what was played is not worth less where this fails

    def shown(self) -> Any:
        """The newest observation of every row, as a batch."""
        empty = create_empty_array(self._spaces[0], n=self.size)
        assert empty is not None
        return concatenate(self._spaces[0], self._observations, empty)

    def take_up(self, *rows: int, fresh: bool = False) -> Generator[EpisodeFailure]:
        """Begin the next pending episodes that can be begun, if any.

        Args:
            rows: The rows in which they begin.
            fresh: The environments have shown nothing yet, which is needed even without an
                episode.
        """
        try:
            for row in rows:
                yield from self._begin(row, fresh=fresh)
        except EnvironmentFault as error:
            yield from self._fail_all(error)

    def step(self, actions: Sequence[Any]) -> Generator[Outcome]:
        """Take one timestep with an action for each row; episodes end, and others begin."""
        try:
            for row, action in enumerate(actions):
                yield from self._step(row, action)
        except EnvironmentFault as error:
            yield from self._fail_all(error)

    def give_up(self, error: BaseException) -> Generator[EpisodeFailure]:
        """Fail every episode under way, and begin others."""
        self._starts[:], self._places[:], self._state = True, -1, None
        for row, episode in enumerate(self.running):
            if episode is not None:
                yield episode.failure(error)
                yield from self.take_up(row)

    def _begin(self, row: int, *, fresh: bool = False) -> Generator[EpisodeFailure]:
        self.running[row] = None
        while self.pending and self.running[row] is None:
            key = self.pending.popleft()
            recorder = None if self._record is None else self._record(key)
            episode = RunningEpisode(
                key, self._spaces, self._clock, self._timeout, recorder, self._accepts_nan
            )
            try:
                self._observations[row] = episode.reset(self._envs[row])
                self.running[row], self._starts[row] = episode, True
            except FAULTS as error:
                if not self._guard or isinstance(error, UsageError):
                    raise
                yield episode.failure(error)
                self._renew(row)
                fresh = True
        if self.running[row] is None and fresh and self.active:
            self._idle(row)

    def _step(self, row: int, action: Any) -> Generator[Outcome]:
        episode = self.running[row]
        if episode is None:
            return
        try:
            action = as_action(self._spaces[1], action)
        except ValueError as error:
            yield from self._fail(row, episode, error)
            return
        if episode.recorder is not None:
            kept = None
            if self._distribution is not None:
                kept = self._distribution.recorded_row(None if self._single else row)
            action = episode.recorder.execute(action, self._state, row, kept)
        try:
            self._observations[row], ended = episode.step(self._envs[row], action)
        except FAULTS as error:
            yield from self._fail(row, episode, error)
            return
        if ended:
            yield episode.result()
            yield from self._begin(row)
        elif (observe_reward := getattr(self.policy, "observe_reward", None)) is not None:
            observe_reward(self._state, row, episode.rewards[-1])

    def _fail(
        self, row: int, episode: RunningEpisode, error: BaseException
    ) -> Generator[EpisodeFailure]:
        """Fail one episode, and begin another in a new environment."""
        if not self._guard or isinstance(error, UsageError):
            raise error
        self.running[row] = None
        yield episode.failure(error)
        self._renew(row)
        yield from self._begin(row, fresh=True)

    def _fail_all(self, error: EnvironmentFault) -> Generator[EpisodeFailure]:
        """Fail every episode that is under way or pending, for there are no environments."""
        if not self._guard:
            raise error
        under_way = [episode.key for episode in self.running if episode is not None]
        self.running = [None] * self.size
        for key in (*under_way, *self.pending):
            yield EpisodeFailure(key, describe(error))
        self.pending.clear()

    def _renew(self, row: int) -> None:
        """Use an environment that failed no more."""
        env = self._envs[row]
        if isinstance(env, RestartableEnv):
            with self._clock.of("environments"):
                env.renew()

    def _idle(self, row: int) -> None:
        """Have something to show of an environment in which nothing is played."""
        try:
            with self._clock.of("environments"):
                observation, _ = self._envs[row].reset(seed=0)
            self._observations[row] = as_observation(
                self._spaces[0], observation, accepts_nan=self._accepts_nan
            )
        except FAULTS:
            other = next(row for row, episode in enumerate(self.running) if episode)
            self._observations[row] = self._observations[other]
        self._starts[row] = True


def _rows_of_parts(space: gym.Space[Any], batch: Any) -> Iterator[int]:
    """How many rows each part of a batch of members has; parts without a member have none."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _rows_of_parts(part, batch[key])
    elif isinstance(space, spaces.Tuple):
        for part, rows in zip(space.spaces, batch, strict=True):
            yield from _rows_of_parts(part, rows)
    else:
        yield len(batch)
