"""Random numbers that belong to episodes.

What a policy draws in an episode follows from the policy's seed and the episode's, whatever row of
whatever batch the episode is played in. Who plays knows the episode's seed, and hands it over.

* :func:`seed_episodes` -- tells any policy the seeds of the episodes that begin; every loop of this
  package that plays episodes calls it.
* :class:`RowGenerator` -- the random numbers of one row, part of a policy's state.
* :func:`with_seeds`, :func:`begin_episodes` -- what a policy does with seeds, and at a start.
* :func:`hash_member` -- a hash of an observation or an action by its values.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policies.base import is_text_space


class Digest(Protocol):
    """What :mod:`hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """The hash of all of them."""


@dataclass(frozen=True)
class RowGenerator:
    """The random numbers of a row's episodes.

    Attributes:
        root: What its numbers follow from beside the policy's seed: the seed of the episode that
            was seeded last; of a row that never was, a hash of its first observation and a number;
            None before its first episode.
        episodes: Begun since then.
        waiting: Whether the row begins an episode with what it sees next.
        generator: Of the episode under way; None before the first. Drawing from it advances it.
    """

    root: tuple[int, ...] | None = None
    episodes: int = 0
    waiting: bool = True
    generator: np.random.Generator | None = None

    @property
    def under_way(self) -> np.random.Generator:
        """The generator of the episode under way."""
        assert self.generator is not None, "every row begins with an episode"
        return self.generator


Row = TypeVar("Row", bound=RowGenerator)


def seed_episodes(policy: Any, seeds: Sequence[int | None], state: Any = None) -> Any:
    """Tell a policy the seeds of the episodes that begin with the next call of ``predict``.

    Args:
        policy: Anything with Stable-Baselines3's ``predict``. One without the method
            :meth:`policies.base.Policy.seed_episodes` plays as it does.
        seeds: One for each row; None where no episode begins.
        state: What ``predict`` returned last; None before its first call.

    Returns:
        The state for the next call.
    """
    told = getattr(policy, "seed_episodes", None)
    goes_on = state is not None and all(seed is None for seed in seeds)
    return state if told is None or goes_on else told(seeds, state)


def with_seeds(rows: Sequence[Row], seeds: Sequence[int | None]) -> list[Row]:
    """Rows that begin the episodes of these seeds next; those of None go on as they were.

    Raises:
        ValueError: There are not as many seeds as rows.
    """
    if len(seeds) != len(rows):
        raise ValueError(
            f"{len(seeds)} seeds for a state of {len(rows)} rows: pass one a row, None for a row "
            "that goes on"
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

    They follow from ``seed`` and the episode's. A row whose environment resets itself, and that
    is given no seed for it, goes on with a second, a third, ... stream of its last seed, as
    Gymnasium's environments do. A row that was never given one takes the values of its first
    observation for a seed; of rows that begin alike, the second takes another, and so on.

    Args:
        rows: Of a batch; those that begin are replaced.
        starts: bool ``[B]``, what ``predict`` was told; rows that wait for an episode begin too.
        seed: The policy's own.
        space: The space of one environment's observations.
        observation: The batch of them.

    Returns:
        bool ``[B]``, the rows that begin.

    Raises:
        ValueError: The rows are not as many as the observations.
    """
    if len(rows) != len(starts):
        raise ValueError(
            f"state has {len(rows)} rows for {len(starts)} observations: pass None to start afresh"
        )
    begin: NDArray[np.bool_] = starts | np.array([row.waiting for row in rows], np.bool_)
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
            generator=np.random.default_rng([seed, *root, row.episodes]),
        )
    return begin


def row_of(space: gym.Space[Any], batch: Any, row: int) -> Any:
    """One row of a batch of observations."""
    if isinstance(space, spaces.Dict):
        return {key: row_of(sub, batch[key], row) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(row_of(sub, part, row) for sub, part in zip(space.spaces, batch, strict=True))
    return batch[row]


def hash_member(space: gym.Space[Any], member: Any, digest: Digest) -> None:
    """Hash a member of a space by its values: neither its dtype nor what holds it matters.

    A number is taken as the space has it, as vector environments do: 0.1 of float64 in a Box of
    float32 hashes as 0.1 of float32.

    Args:
        space: What it is a member of.
        member: An observation or an action.
        digest: Takes it in.
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


def _hash_parts(member: Any, digest: Digest) -> None:
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
