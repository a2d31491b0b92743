"""The one contract every policy here keeps: Stable-Baselines3's ``predict``.

* :class:`Policy` -- the abstract base: spaces, the batch rule, ``predict`` and episodes' seeds.
* :data:`Span` -- what measures a part of ``predict``.
* :func:`check_rows` -- refuses a state of another batch.
* :func:`spaces_of` -- the spaces of one environment of a vector environment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.text import is_text_space
from policies.distributions import ActionDistribution, Decision
from policies.observations import rows_of

State = Any
"""What ``predict`` returns and takes again: opaque, kept by the caller, never on the policy."""

Span = Callable[[str], AbstractContextManager[object]]
"""Called with a part's name, gives the context in which that part runs."""


def check_rows(state: object, kind: type[Any], rows: int) -> None:
    """Refuse a state that is not of a kind, which has ``rows``, or has another number of rows.

    Raises:
        ValueError: It is refused.
    """
    count = state.rows if isinstance(state, kind) else None
    if count != rows:
        got = type(state).__name__ if count is None else f"{count} rows"
        raise ValueError(
            f"state is {got} and the observation has {rows} rows: "
            "pass the state that predict returned for the same environments"
        )


class Policy(ABC):
    """Anything that acts: a network, an expert, or chance.

    Subclasses implement :meth:`_predict_batch` for a batch of rows. This class distinguishes one
    observation from a batch and returns actions in the caller's format.

    Args:
        observation_space: The space of *one* environment's observations.
        action_space: The space of *one* environment's actions.

    Attributes:
        samples: Whether an expert is scored and recorded by sampled actions rather than by its most
            likely ones. ``predict`` follows its argument either way.
        accepts_nan: Whether observations may have NaN.
        span: Entered around tokenising, for those who measure where time goes.
    """

    samples: bool = False
    accepts_nan: bool = False
    span: Span = nullcontext

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def __repr__(self) -> str:
        """What acts, and in which spaces."""
        return (
            f"{type(self).__name__}(observation_space={self.observation_space}, "
            f"action_space={self.action_space})"
        )

    def predict(
        self,
        observation: Any,
        state: State | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, State]:
        """Choose actions; the contract is that of Stable-Baselines3's ``BaseAlgorithm.predict``.

        Args:
            observation: One observation, a member of ``observation_space``; or a batch of B as
                vector environments give it (arrays ``[B, ...]``, a tuple of ``str`` for text,
                ``dict`` and ``tuple`` of these).
            state: What the previous call returned; None starts every row afresh.
            episode_start: bool ``[B]``, True where the row's observation is the first of its
                episode. None means all True without a state and all False with one.
            deterministic: Choose the most likely (or mean) action instead of a sample; for the
                random numbers of samples, see :meth:`seed_episodes`.

        Returns:
            The actions (one member of ``action_space`` for one observation, otherwise a batch as
            vector environments take it) and the state for the next call.

        Raises:
            ValueError: ``observation`` is neither, or ``episode_start`` or ``state`` does not have
                its number of rows.
        """
        return self.decide(observation, state, episode_start, deterministic)[:2]

    def distribution(
        self,
        observation: Any,
        state: State | None = None,
        episode_start: NDArray[np.bool_] | None = None,
    ) -> ActionDistribution:
        """What the policy chooses from: probabilities of a Discrete space, mean and deviation of a
        Box; the arguments are those of :meth:`predict`, which computes the same.

        Raises:
            TypeError: The policy does not give its distribution.

        Example:
            >>> from gato_gym import get_task
            >>> from policies import make_policy
            >>> env = get_task("mujoco-pendulum").make()
            >>> expert = make_policy("expert", env=env)
            >>> observation, _ = env.reset(seed=0)
            >>> expert.distribution(observation).deviation.shape
            (1,)
        """
        distribution = self.decide(
            observation, state, episode_start, deterministic=True
        ).distribution
        if distribution is None:
            raise TypeError(
                f"{type(self).__name__} does not give the distribution of its actions: expected an "
                "expert of a task"
            )
        return distribution

    def decide(
        self,
        observation: Any,
        state: State | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> Decision:
        """Actions, state and distribution at once; the arguments are those of :meth:`predict`."""
        batch_rows = rows_of(self.observation_space, observation)
        single, rows = batch_rows is None, batch_rows or 1
        batch = batch_of_one(self.observation_space, observation) if single else observation
        if episode_start is None:
            starts = np.full(rows, state is None)
        else:
            starts = np.asarray(episode_start, dtype=np.bool_).reshape(-1)
        if starts.shape != (rows,):
            raise ValueError(
                f"episode_start has {starts.size} entries for {rows} observations: "
                "pass one bool a row"
            )
        decision = self._decide_batch(
            batch, state, starts if state is not None else np.ones(rows, np.bool_), deterministic
        )
        if not single:
            return decision
        distribution = decision.distribution
        return Decision(
            row_of(self.action_space, decision.actions),
            decision.state,
            None if distribution is None else distribution.first(),
        )

    def seed_episodes(
        self, seeds: Sequence[int | None], state: State | None = None
    ) -> State | None:
        """Seed the episodes that begin with the next call of :meth:`predict`.

        What the policy draws in an episode then follows from the episode's seed and its own, in
        any row of any batch. A row that later starts another episode without a seed draws other
        numbers. A row that never gets a seed uses the values of its first observation instead,
        whatever their dtype; rows that begin alike draw different numbers.

        Args:
            seeds: One for each row, such as the seed that reset its environment; None for a row
                whose episode continues or has no seed.
            state: What ``predict`` returned last; None before its first call.

        Returns:
            The state for the next call of ``predict``. Rows with a seed start an episode there,
            whatever ``episode_start`` says. A policy without random numbers returns ``state``.

        Raises:
            ValueError: The number of seeds is not the number of rows.

        Example:
            >>> import numpy as np
            >>> from gymnasium.spaces import Box, Discrete
            >>> from policies.random_policy import RandomPolicy
            >>> policy = RandomPolicy(Box(0, 1, (2,)), Discrete(1000))
            >>> blank = np.zeros((2, 2), np.float32)
            >>> there, _ = policy.predict(blank, policy.seed_episodes([7, 8]))
            >>> here, _ = policy.predict(blank[:1], policy.seed_episodes([8]))
            >>> bool(there[1] == here[0]), bool(there[0] == here[0])
            (True, False)
        """
        return state

    def execute(self, state: State, row: int, action: Any) -> None:  # noqa: B027 (most do nothing)
        """Record in the state that a row executes ``action``, whatever the policy chose for it.

        A policy that keeps a plan (BabyAI's bot) continues from there; the others ignore it.
        """

    def observe_reward(self, state: State, row: int, reward: float) -> None:  # noqa: B027
        """Record in the state the reward of a row's last step, which only some policies read.

        Args:
            state: What ``predict`` returned last.
            row: Number of the environment.
            reward: What its step gave; an episode's first observation comes with none.
        """

    def failure_of(self, state: State, row: int) -> str | None:
        """Why the policy has given up in a row's episode; None while it has not."""
        return None

    @abstractmethod
    def _predict_batch(
        self, observation: Any, state: State | None, starts: NDArray[np.bool_], deterministic: bool
    ) -> tuple[Any, State]:
        """Actions for a batch; ``starts`` is bool ``[B]`` and all True when ``state`` is None."""

    def _decide_batch(
        self, observation: Any, state: State | None, starts: NDArray[np.bool_], deterministic: bool
    ) -> Decision:
        """As :meth:`_predict_batch`, with the distribution of policies that give one."""
        return Decision(*self._predict_batch(observation, state, starts, deterministic))


class DistributionPolicy(Policy):
    """A policy that gives its distribution: subclasses implement :meth:`_decide_batch` alone."""

    @abstractmethod
    def _decide_batch(
        self, observation: Any, state: State | None, starts: NDArray[np.bool_], deterministic: bool
    ) -> Decision:
        """Decision for a batch; ``starts`` is bool ``[B]`` and all True without a ``state``."""

    def _predict_batch(
        self, observation: Any, state: State | None, starts: NDArray[np.bool_], deterministic: bool
    ) -> tuple[Any, State]:
        return self._decide_batch(observation, state, starts, deterministic)[:2]


def spaces_of(env: Any) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Spaces of one environment of ``env``, which may be a vector environment or SB3's VecEnv."""
    observation = getattr(env, "single_observation_space", None) or env.observation_space
    action = getattr(env, "single_action_space", None) or env.action_space
    return observation, action


def batch_of_one(space: gym.Space[Any], observation: Any) -> Any:
    """The batch of one row that holds ``observation``."""
    if isinstance(space, spaces.Dict):
        return {key: batch_of_one(sub, observation[key]) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            batch_of_one(sub, part) for sub, part in zip(space.spaces, observation, strict=True)
        )
    if is_text_space(space):
        return (str(observation),)
    if isinstance(space, (spaces.Sequence, spaces.OneOf, spaces.Graph)):
        return (observation,)
    return np.asarray(observation)[None]


def row_of(space: gym.Space[Any], batch: Any, row: int = 0) -> Any:
    """A row of a batch of observations or actions, as a member of ``space``."""
    if isinstance(space, spaces.Dict):
        return {key: row_of(sub, batch[key], row) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(row_of(sub, part, row) for sub, part in zip(space.spaces, batch, strict=True))
    return np.asarray(batch[row]) if isinstance(space, spaces.Box) else batch[row]
