"""The one contract every policy here keeps: Stable-Baselines3's ``predict``.

* :class:`Policy` -- the abstract base: spaces, the batch rule and ``predict``.
* :func:`episode_generators`, :func:`row_generators` -- random numbers that depend on the episode,
  not on the batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

State = Any
"""What ``predict`` hands back and takes again: opaque, the caller's, never kept on the policy."""


class Policy(ABC):
    """Anything that acts: a network, an expert, or chance.

    Subclasses implement :meth:`_predict_batch` for a batch of rows; this class tells one
    observation from a batch and gives back what the caller's environment takes.

    Args:
        observation_space: The space of *one* environment's observations.
        action_space: The space of *one* environment's actions.

    Attributes:
        samples: Of an expert, whether it is scored and recorded by sampled actions; otherwise by
            the most likely ones. ``predict`` does as it is told.
    """

    samples: bool = False

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

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
            state: What the previous call returned, or None. None starts every row afresh.
            episode_start: bool ``[B]``, True where the row's observation is the first of its
                episode. None means: all True without a state, all False with one.
            deterministic: The policy's most likely (or mean) action instead of a sample.

        Returns:
            Actions -- one member of ``action_space`` for one observation, a batch as vector
            environments take it otherwise -- and the state for the next call.

        Raises:
            ValueError: ``episode_start`` or ``state`` have another number of rows than the
                observation.
        """
        single = is_single(self.observation_space, observation)
        batch = batch_of_one(self.observation_space, observation) if single else observation
        rows = batch_rows(self.observation_space, batch)
        if episode_start is None:
            starts = np.full(rows, state is None)
        else:
            starts = np.asarray(episode_start, dtype=np.bool_).reshape(-1)
        if starts.shape != (rows,):
            raise ValueError(
                f"episode_start has {starts.size} entries for {rows} observations: "
                "pass one bool a row"
            )
        actions, state = self._predict_batch(
            batch, state, starts if state is not None else np.ones(rows, np.bool_), deterministic
        )
        return (first_of_batch(self.action_space, actions) if single else actions), state

    @abstractmethod
    def _predict_batch(
        self, observation: Any, state: State | None, starts: NDArray[np.bool_], deterministic: bool
    ) -> tuple[Any, State]:
        """Actions for a batch; ``starts`` is bool ``[B]`` and all True when ``state`` is None."""


def is_single(space: gym.Space[Any], observation: Any) -> bool:
    """Whether ``observation`` is one member of ``space`` rather than a batch of them."""
    if isinstance(space, spaces.Dict):
        key = next(iter(space.spaces))
        return is_single(space.spaces[key], observation[key])
    if isinstance(space, spaces.Tuple):
        return is_single(space.spaces[0], observation[0])
    if isinstance(space, (spaces.Sequence, spaces.OneOf)):
        return space.contains(observation)
    if isinstance(observation, str):
        return True
    if isinstance(observation, (tuple, list)) and observation and isinstance(observation[0], str):
        return False
    shape = () if is_text_space(space) else tuple(space.shape or ())
    rank = np.ndim(observation)
    if rank not in (len(shape), len(shape) + 1):
        raise ValueError(
            f"observation has shape {np.shape(observation)}: expected {shape} for one "
            f"environment or (B, {', '.join(map(str, shape))}) for a batch"
        )
    return rank == len(shape)


def is_text_space(space: gym.Space[Any]) -> bool:
    """Whether members of ``space`` are strings (Text, and MiniGrid's mission space)."""
    return isinstance(space, spaces.Text) or hasattr(space, "mission_func")


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
    if isinstance(space, (spaces.Sequence, spaces.OneOf)):
        return (observation,)
    return np.asarray(observation)[None]


def batch_rows(space: gym.Space[Any], observation: Any) -> int:
    """Number of rows of a batch of observations."""
    if isinstance(space, spaces.Dict):
        key = next(iter(space.spaces))
        return batch_rows(space.spaces[key], observation[key])
    if isinstance(space, spaces.Tuple):
        return batch_rows(space.spaces[0], observation[0])
    return len(observation)


def first_of_batch(space: gym.Space[Any], actions: Any) -> Any:
    """Row 0 of a batch of actions, as a member of ``space``."""
    if isinstance(space, spaces.Dict):
        return {key: first_of_batch(sub, actions[key]) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            first_of_batch(sub, part) for sub, part in zip(space.spaces, actions, strict=True)
        )
    if isinstance(space, spaces.Box):
        return np.asarray(actions[0])
    return actions[0]


def episode_generators(
    space: gym.Space[Any], observation: Any, starts: NDArray[np.bool_], *, seed: int
) -> dict[int, np.random.Generator]:
    """A generator for each row that starts an episode, seeded by ``seed`` and its observation.

    An episode's random numbers are then the same in any batch and at any row: what a policy
    samples does not depend on how many environments it plays beside.

    Args:
        space: The space of one environment's observations.
        observation: The batch of first observations.
        starts: bool ``[B]``; rows that start an episode.
        seed: The policy's own seed.

    Returns:
        A generator for every row where ``starts`` is True.
    """
    generators = {}
    for row in np.flatnonzero(starts):
        digest = hashlib.blake2b(digest_size=16)
        _hash_row(space, observation, int(row), digest)
        key = int.from_bytes(digest.digest(), "little")
        generators[int(row)] = np.random.default_rng([seed, key])
    return generators


def row_generators(
    space: gym.Space[Any],
    observation: Any,
    state: list[np.random.Generator] | None,
    starts: NDArray[np.bool_],
    *,
    seed: int,
) -> list[np.random.Generator]:
    """A generator for each row: a new one where an episode starts, else the one in ``state``.

    Args:
        space, observation, starts, seed: As in :func:`episode_generators`.
        state: The rows' generators so far; None starts every row.

    Raises:
        ValueError: ``state`` is of another number of rows.
    """
    rows = batch_rows(space, observation)
    if state is None:
        starts, state = np.ones(rows, np.bool_), [np.random.default_rng()] * rows
    if len(state) != rows:
        raise ValueError(
            f"state has {len(state)} rows for {rows} observations: pass None to start afresh"
        )
    started = episode_generators(space, observation, starts, seed=seed)
    return [started.get(row, kept) for row, kept in enumerate(state)]


def _hash_row(space: gym.Space[Any], observation: Any, row: int, digest: Any) -> None:
    if isinstance(space, spaces.Dict):
        for key in sorted(space.spaces, key=str):
            _hash_row(space.spaces[key], observation[key], row, digest)
    elif isinstance(space, spaces.Tuple):
        for sub, part in zip(space.spaces, observation, strict=True):
            _hash_row(sub, part, row, digest)
    else:
        _hash_member(observation[row], digest)


def _hash_member(member: Any, digest: Any) -> None:
    """Hash strings, arrays, and the dicts and tuples of these that Sequence and OneOf hold."""
    if isinstance(member, str):
        digest.update(member.encode())
    elif isinstance(member, dict):
        for key in sorted(member, key=str):
            _hash_member(member[key], digest)
    elif isinstance(member, tuple):
        for part in member:
            _hash_member(part, digest)
    else:
        digest.update(np.ascontiguousarray(member).tobytes())
