"""Random numbers that belong to episodes.

What a policy draws in an episode follows from the policy's seed and the episode's, in any row of
any batch. The caller knows the episode's seed and passes it on.

* :func:`seed_episodes` -- seeds the episodes of any policy; every rollout of this package calls it.
* :class:`RowGenerator` -- the random numbers of one row, part of a policy's state.
* :class:`SampledPolicy` -- a policy whose state is one such generator for each row.
* :func:`with_seeds`, :func:`begin_episodes` -- how a policy uses the seeds.
* :func:`hash_member` -- a hash of an observation or an action by its values.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.text import is_text_space
from policies.base import Policy, row_of


@dataclass(frozen=True)
class RowGenerator:
    """The random numbers of a row's episodes.

    Attributes:
        root: What determines its numbers beside the policy's seed: the seed of the last seeded
            episode; without one, a hash of the first observation and a number; None before the
            first episode.
        episodes: Number of episodes that began since then.
        waiting: Whether the next observation begins an episode.
        seed: What the numbers of the current episode follow from; empty before the first.
    """

    root: tuple[int, ...] | None = None
    episodes: int = 0
    waiting: bool = True
    seed: tuple[int, ...] = ()

    @cached_property
    def under_way(self) -> np.random.Generator:
        """The generator of the current episode, made when it is first asked for. Drawing advances
        it."""
        assert self.seed, "every row begins with an episode"
        return np.random.default_rng(self.seed)


Row = TypeVar("Row", bound=RowGenerator)


def seed_episodes(policy: Any, seeds: Sequence[int | None], state: Any = None) -> Any:
    """Seed the episodes that begin with the next call of ``predict``.

    Args:
        policy: Anything with Stable-Baselines3's ``predict``. Policies without the method
            :meth:`policies.base.Policy.seed_episodes` play as they are.
        seeds: One for each row; None where no episode begins.
        state: What ``predict`` returned last; None before its first call.

    Returns:
        The state for the next call.
    """
    method = getattr(policy, "seed_episodes", None)
    nothing_begins = state is not None and all(seed is None for seed in seeds)
    return state if method is None or nothing_begins else method(seeds, state)


def with_seeds(rows: Sequence[Row], seeds: Sequence[int | None]) -> list[Row]:
    """Rows that begin the episodes of these seeds next; rows with None stay as they are.

    Raises:
        ValueError: The number of seeds is not the number of rows.
    """
    if len(seeds) != len(rows):
        raise ValueError(
            f"{len(seeds)} seeds for a state of {len(rows)} rows: pass one a row, None for a row "
            "that continues"
        )
    return [
        row if seed is None else replace(row, root=(int(seed),), episodes=0, waiting=True)
        for row, seed in zip(rows, seeds, strict=True)
    ]


def begin_episodes(
    rows: MutableSequence[Row] | NDArray[np.object_],
    starts: NDArray[np.bool_],
    *,
    seed: int,
    space: gym.Space[Any],
    observation: Any,
) -> NDArray[np.bool_]:
    """Give the rows that begin an episode its random numbers.

    They follow from ``seed`` and the episode's seed. A row that restarts without a seed continues
    with a second, a third, ... stream of its last seed, as Gymnasium's environments do. A row that
    never had one uses the values of its first observation; rows that begin alike are numbered.

    Args:
        rows: The rows of a batch; those that begin are replaced.
        starts: bool ``[B]``, ``predict``'s ``episode_start``; waiting rows begin too.
        seed: The policy's own seed.
        space: The space of one environment's observations.
        observation: A batch of observations.

    Returns:
        bool ``[B]``, the rows that begin.

    Raises:
        ValueError: The number of rows is not the number of observations.
    """
    if len(rows) != len(starts):
        raise ValueError(
            f"state has {len(rows)} rows for {len(starts)} observations: pass None to start afresh"
        )
    begin: NDArray[np.bool_] = starts | [row.waiting for row in rows]
    alike: Counter[int] = Counter()
    for place in np.flatnonzero(begin).tolist():
        row, root = rows[place], rows[place].root
        if root is None:
            digest = hashlib.blake2b(digest_size=16)
            hash_member(space, row_of(space, observation, place), digest)
            key = int.from_bytes(digest.digest(), "little")
            root = (key, alike[key])
            alike[key] += 1
        rows[place] = replace(
            row,
            root=root,
            episodes=row.episodes + 1,
            waiting=False,
            seed=(seed, *root, row.episodes),
        )
    return begin


class SampledPolicy(Policy):
    """A policy whose state is a :class:`RowGenerator` for each row.

    Args:
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        seed: Seed of the sampled actions.
    """

    row: ClassVar[RowGenerator] = RowGenerator()

    def __init__(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, seed: int = 0
    ) -> None:
        super().__init__(observation_space, action_space)
        self.seed = seed

    def seed_episodes(
        self, seeds: Sequence[int | None], state: list[Any] | None = None
    ) -> list[Any]:
        """As :meth:`policies.base.Policy.seed_episodes`."""
        return with_seeds([self.row] * len(seeds) if state is None else state, seeds)

    def _begin(
        self, observation: Any, state: list[Any] | None, starts: NDArray[np.bool_]
    ) -> tuple[list[Any], NDArray[np.bool_]]:
        """The batch's rows, ready to draw from, and which of them begin: bool ``[B]``."""
        rows = [self.row] * len(starts) if state is None else state
        space = self.observation_space
        begun = begin_episodes(rows, starts, seed=self.seed, space=space, observation=observation)
        return rows, begun


def hash_member(space: gym.Space[Any], member: Any, digest: hashlib.blake2b) -> None:
    """Hash a member of a space by its values, whatever its dtype and container.

    Numbers are cast to the space's dtype, as in vector environments: a float64 0.1 in a float32 Box
    hashes as the float32 0.1.

    Args:
        space: The space.
        member: An observation or an action.
        digest: The hash to update.
    """
    if isinstance(space, spaces.Dict):
        for key in sorted(space.spaces, key=str):
            hash_member(space.spaces[key], member[key], digest)
    elif isinstance(space, spaces.Tuple):
        for sub, part in zip(space.spaces, member, strict=True):
            hash_member(sub, part, digest)
    elif is_text_space(space):
        digest.update(str(member).encode())
    elif space.dtype is not None and space.dtype != np.dtype(object):
        with np.errstate(invalid="ignore"):
            digest.update(np.asarray(member).astype(space.dtype).tobytes())
    else:
        _hash_parts(member, digest)


def _hash_parts(member: Any, digest: hashlib.blake2b) -> None:
    """Strings, numbers, and the dicts, lists and tuples of these that other spaces hold."""
    if isinstance(member, str):
        digest.update(member.encode())
    elif isinstance(member, dict):
        for key in sorted(member, key=str):
            _hash_parts(member[key], digest)
    elif isinstance(member, (tuple, list)):
        for part in member:
            _hash_parts(part, digest)
    elif member is not None:
        array = np.asarray(member)
        wide = np.float64 if array.dtype.kind == "f" else np.int64
        digest.update((array.astype(wide) if array.dtype.kind in "fiub" else array).tobytes())
