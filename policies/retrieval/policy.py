"""A policy that needs demonstrations and no weights.

* :class:`RetrievalPolicy` -- plays the action of the nearest demonstrated step.
* :func:`demonstrations_of` -- the episodes of a dataset, or of several sources.
* :func:`steps_of` -- an episode's encoded steps.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.minari_datasets import episodes_of, find_minari
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, compile_plan
from gato_gym.tasks import get_task, task_id_of
from policies.base import Policy, row_of, spaces_of
from policies.observations import rows_of
from policies.retrieval.index import Index
from policies.retrieval.keys import Keys

IMAGE_SIDE = 16
"""Side, in pixels, that larger images are shrunk to before they are compared: the 42 pixels that a
network reads of a game take seven times the memory and the products."""

LIMIT = float(np.finfo(np.float32).max)


class RetrievalPolicy(Policy):
    """Plays the action of the demonstrated step whose observation is nearest to this one.

    The nearest is looked for among steps of the same text, or among all where no demonstration has
    this text. Numbers are normalised by the demonstrations' mean and deviation, images are shrunk
    and compared pixel by pixel, symbols (choices and the grids that the options name) are equal or
    not: see :class:`policies.retrieval.keys.Keys`. It draws no random numbers and remembers
    nothing: the state is empty, and ``deterministic`` has no effect.

    Args:
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        demonstrations: Episodes of these spaces, at least one: as :func:`demonstrations_of`.
        options: Which parts are grids, images, stacks, or skipped; None takes the defaults.

    Attributes:
        steps: Number of demonstrated steps.
        order: Which step of the demonstrations, one after another, is at each place: those of a
            text lie together.

    Raises:
        ValueError: There is no demonstration, or one does not fit the spaces.

    Example:
        >>> from gymnasium.spaces import Box, Discrete
        >>> ends = np.array([False, True])
        >>> shown = Episode(
        ...     "line", np.array([[0], [4], [9]], np.float32), np.array([1, 0]),
        ...     np.ones(2, np.float32), ends, ends & False,
        ... )
        >>> policy = RetrievalPolicy(Box(-9, 9, (1,)), Discrete(2), shown)
        >>> policy.predict(np.array([[1], [3], [-5]], np.float32))[0].tolist()
        [1, 0, 1]
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        demonstrations: Any,
        *,
        options: PlanOptions | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        episodes = list(demonstrations_of(demonstrations))
        if not episodes:
            raise ValueError("there is no demonstration: expected one episode or more")
        actions = [_actions(self, episode) for episode in episodes]
        self.plan = _plan_of(self, episodes, options)
        steps = TokenizedBatch.join([steps_of(self.plan, episode) for episode in episodes])
        texts = [text.tobytes() for text in steps.text]
        self.order = order = sorted(range(len(texts)), key=texts.__getitem__)
        self._actions: list[Any] = [member for part in actions for member in part]
        self._actions = [self._actions[place] for place in order]
        self._keys = Keys(steps, self.plan.vocabulary)
        self._points = self._keys(steps)[order]
        self._indices: dict[bytes | None, Index] = {}
        self._ranges: dict[bytes | None, tuple[int, int]] = {None: (0, len(texts))}
        for text, group in itertools.groupby(range(len(texts)), lambda at: texts[order[at]]):
            places = list(group)
            self._ranges[text] = (places[0], places[-1] + 1)

    @classmethod
    def create(
        cls,
        env: Any,
        demonstrations: Any,
        *,
        episodes: int | None = None,
        options: PlanOptions | None = None,
    ) -> RetrievalPolicy:
        """A policy for an environment.

        Args:
            env: An environment, a vector environment, or SB3's VecEnv.
            demonstrations: As :func:`demonstrations_of`.
            episodes: How many of them, the first ones; None for all.
            options: As of the class; None takes those of the environment's task, if it is one.

        Raises:
            ValueError: As of the class, or there are fewer episodes.
            FileNotFoundError: There is no such dataset.
        """
        task = task_id_of(env)
        if options is None and task is not None:
            options = get_task(task).options
        shown = list(itertools.islice(demonstrations_of(demonstrations), episodes))
        if episodes is not None and not 1 <= episodes == len(shown):
            raise ValueError(
                f"{episodes} demonstrations are asked for, and {len(shown)} are there: expected 1 "
                "or more, and no more than there are"
            )
        return cls(*spaces_of(env), shown, options=options)

    @property
    def steps(self) -> int:
        """Number of demonstrated steps."""
        return len(self._actions)

    def nearest(self, observation: Any) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The demonstrated steps nearest to a batch of observations.

        Returns:
            Their places, int ``[B]``, and their distances, float32 ``[B]``: 1 for a number that
            differs by a standard deviation.
        """
        near = self.neighbours(observation, 1)
        places = np.array([each[0] for each, _, _ in near], np.intp)
        return places, np.array([apart[0] for _, apart, _ in near], np.float32)

    def neighbours(
        self, observation: Any, count: int
    ) -> list[tuple[NDArray[np.intp], NDArray[np.float32], bool]]:
        """Of each of a batch of observations the ``count`` nearest steps, nearest first.

        Returns:
            Their places and distances, fewer where fewer have the text, and whether they have it.
        """
        steps = self.plan.encode_batch(observation)
        points = self._keys(steps)
        texts = [text.tobytes() for text in steps.text]
        groups = [text if text in self._ranges else None for text in texts]
        near: dict[int, tuple[NDArray[np.intp], NDArray[np.float32], bool]] = {}
        for group in dict.fromkeys(groups):
            rows = [row for row, each in enumerate(groups) if each == group]
            first = self._ranges[group][0]
            for row, (places, apart) in zip(
                rows, self.index(group).neighbours(points[rows], count), strict=True
            ):
                near[row] = places + first, apart, group is not None
        return [near[row] for row in range(len(points))]

    def spread(self, share: float = 0.95, most: int = 1000) -> float:
        """The quantile of the distances from a demonstrated step to the nearest other one.

        Args:
            share: Which quantile, in [0, 1].
            most: Steps that are asked, evenly spaced; all where there are no more.

        Returns:
            The distance between steps of a text; 0 where no text has two steps.
        """
        chosen = np.linspace(0, self.steps - 1, min(self.steps, most)).astype(np.intp)
        apart: list[float] = []
        for group, (first, stop) in self._ranges.items():
            asked = chosen[(chosen >= first) & (chosen < stop)]
            if group is not None and stop - first > 1 and len(asked):
                near = self.index(group).neighbours(self._points[asked], 2)
                apart += [float(distances[-1]) for _, distances in near]
        return float(np.quantile(apart, share)) if apart else 0.0

    def index(self, group: bytes | None = None) -> Index:
        """The index of the steps of one text, its ids as bytes; None for all steps."""
        first, last = self._ranges[group]
        key = None if last - first == self.steps else group
        if key not in self._indices:
            self._indices[key] = Index(self._points[first:last])
        return self._indices[key]

    def _predict_batch(
        self, observation: Any, state: Any, starts: NDArray[np.bool_], deterministic: bool
    ) -> tuple[Any, tuple[()]]:
        places, _ = self.nearest(observation)
        return self.actions_at(places), ()

    def actions_at(self, places: NDArray[np.intp]) -> Any:
        """The actions of demonstrated steps as a batch, as vector environments take it."""
        empty = create_empty_array(self.action_space, n=len(places))
        assert empty is not None
        members = [self._actions[place] for place in places]
        return concatenate(self.action_space, members, empty)


def demonstrations_of(source: Any) -> Iterator[Episode]:
    """Episodes by name, one after another.

    Args:
        source: An Episode; a Minari dataset, whole or in part, its id, its folder or its HDF5
            file; or several of these.

    Raises:
        FileNotFoundError: There is no such dataset.
        ValueError: It is nothing of these.
    """
    if isinstance(source, Episode):
        yield source
    elif isinstance(source, (str, Path)) or hasattr(source, "storage"):
        yield from episodes_of(find_minari(source))
    elif isinstance(source, Iterable):
        for each in source:
            yield from demonstrations_of(each)
    else:
        raise ValueError(
            f"demonstrations is a {type(source).__name__}: expected an Episode, a Minari dataset, "
            "its id or its path, or several of these"
        )


def _plan_of(policy: Policy, episodes: Sequence[Episode], options: PlanOptions | None) -> Plan:
    """The plan whose vectors are normalised by the demonstrations and whose images are whole."""
    options = dataclasses.replace(
        options or PlanOptions(), layout="lean", vector_mean=(), vector_std=()
    )
    side = min(options.image_size or IMAGE_SIDE, IMAGE_SIDE)
    options = dataclasses.replace(options, image_size=side)
    where = policy.observation_space, policy.action_space
    plan = compile_plan(*where, options)
    raw = np.concatenate([_raw(plan, episode) for episode in episodes])
    raw = np.where(np.abs(raw) <= LIMIT, raw, 0.0)
    mean, std = raw.mean(axis=0), raw.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    return compile_plan(
        *where,
        dataclasses.replace(options, vector_mean=tuple(mean), vector_std=tuple(std)),
    )


def _raw(plan: Plan, episode: Episode) -> NDArray[np.float64]:
    with _fitting(episode):
        rows = rows_of(plan.observation_space, episode.observations)
        if rows != episode.length + 1:
            raise ValueError(f"it has {rows} observations: expected {episode.length + 1}")
        return plan.raw_vectors(episode.observations)[:-1]


def steps_of(plan: Plan, episode: Episode) -> TokenizedBatch:
    """The encoded observations of an episode's steps, without the last one.

    Raises:
        ValueError: The episode does not fit the plan's spaces.
    """
    with _fitting(episode):
        encoded = plan.encode_batch(episode.observations)
    parts = {name: getattr(encoded, name)[:-1] for name in TokenizedBatch.__dataclass_fields__}
    return TokenizedBatch(**parts)


def _actions(policy: Policy, episode: Episode) -> list[Any]:
    """An episode's actions as members of the action space, numbers within its bounds."""
    space = policy.action_space
    with _fitting(episode):
        if (rows := rows_of(space, episode.actions, "action")) != episode.length:
            raise ValueError(f"it has {rows} actions: expected {episode.length}")
        members = [_within(space, row_of(space, episode.actions, t)) for t in range(rows)]
        for member in members:
            if not space.contains(member):
                raise ValueError(f"action {member!r} is no member of {space}")
    return members


def _within(space: gym.Space[Any], action: Any) -> Any:
    """An action whose numbers beyond a Box's bounds are the bounds."""
    if isinstance(space, spaces.Dict):
        return {key: _within(part, action[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(_within, space.spaces, action))
    if isinstance(space, spaces.Box):
        return np.clip(action, space.low, space.high).astype(space.dtype)
    return action


@contextmanager
def _fitting(episode: Episode) -> Iterator[None]:
    """Errors inside are of an episode that does not fit the policy's spaces."""
    try:
        yield
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"a demonstration of {episode.task!r} does not fit the policy ({error}): expected "
            "episodes of the policy's environment"
        ) from error
