"""What environments and policies give, as their spaces have it: checked, then converted.

* :func:`as_observation` -- an observation; :func:`as_action` -- a policy's action.
* :func:`as_reward` -- a reward; :func:`success_in` -- whether an ``info`` reports success.
* :func:`stack_members` -- an episode's observations or actions, one after another.

A value is converted only where nothing of it is lost: another dtype that holds it, a list or a
tuple for an array, axes of length 1 more or less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from gato_gym.text import is_text_space

LARGEST_REWARD = float(np.finfo(np.float32).max)
"""Largest magnitude of a reward: episodes keep float32, and sums of these do not overflow."""


def as_observation(space: gym.Space[Any], observation: Any, *, accepts_nan: bool = True) -> Any:
    """An observation with the types, shapes and dtypes of its space; its bounds are the plan's
    affair (``PlanOptions.outside``).

    Args:
        space: The space of one environment's observations.
        observation: What the environment returned.
        accepts_nan: Whether numbers may be NaN, which no space contains.

    Raises:
        ValueError: A part is missing, is of another kind or shape, its dtype cannot hold it, or it
            has NaN.

    Example:
        >>> as_observation(spaces.Box(0, 255, (2,), np.uint8), [7, 8.0])
        array([7, 8], dtype=uint8)
    """
    member = _convert(space, observation, "the observation")
    if not accepts_nan:
        for name, part in _floats(member, "the observation"):
            if np.isnan(part).any():
                raise ValueError(f"{name} has NaN: expected numbers")
    return member


def as_action(space: gym.Space[Any], action: Any) -> Any:
    """A policy's action as a member of its space; SB3 gives 0-d arrays for Discrete.

    Raises:
        ValueError: It is no member, or an unbounded number in it is infinite.

    Example:
        >>> as_action(spaces.Discrete(3), np.array([2.0]))
        np.int64(2)
    """
    member = _convert(space, action, "the policy's action")
    is_finite = all(np.isfinite(part).all() for _, part in _floats(member, ""))
    if not (is_finite and space.contains(member)):
        raise ValueError(
            f"the policy gave {action!r}, which is no member of {space}: expected one; clip it, or "
            "wrap the environment as it was in the policy's training"
        )
    return member


def as_reward(reward: Any) -> float:
    """A reward, which may be an array of one number.

    Raises:
        ValueError: It is not one finite number of float32.

    Example:
        >>> as_reward(np.array([0.5]))
        0.5
    """
    array = np.asarray(reward)
    is_number = array.size == 1 and array.dtype.kind in "biuf"
    if not is_number or not abs(array.item()) <= LARGEST_REWARD:
        given = array.tolist() if array.dtype.kind in "biuf" else repr(reward)
        raise ValueError(f"the reward is {given}, expected a finite number of float32")
    return float(array.item())


def success_in(info: Mapping[str, Any]) -> bool | None:
    """Whether an ``info`` reports success; None where it reports nothing.

    An array is a success where all its elements are.

    Example:
        >>> success_in({"success": np.array([True])}), success_in({"is_success": 0.0})
        (True, False)
    """
    success = info.get("success", info.get("is_success"))
    return None if success is None or not np.size(success) else bool(np.all(success))


@singledispatch
def _convert(space: gym.Space[Any], given: Any, name: str) -> Any:
    """``given`` as ``space`` has it; ``name`` is what errors call it."""
    if is_text_space(space):
        if not isinstance(given, str):
            raise ValueError(f"{name} is {_described(given)}: expected a str, as {space} has")
        return str(given)
    if not space.contains(given):
        raise ValueError(f"{name} is {_described(given)}: expected a member of {space}")
    return given


@_convert.register(spaces.Box)
@_convert.register(spaces.MultiDiscrete)
@_convert.register(spaces.MultiBinary)
def _(space: gym.Space[Any], given: Any, name: str) -> Any:
    return _array(space, given, name)


@_convert.register
def _(space: spaces.Discrete, given: Any, name: str) -> Any:
    return given if type(given) is space.dtype.type else _array(space, given, name)[()]


@_convert.register
def _(space: spaces.Dict, given: Any, name: str) -> Any:
    if not isinstance(given, Mapping) or given.keys() != space.spaces.keys():
        got = f"a dict with {list(given)}" if isinstance(given, Mapping) else _described(given)
        raise ValueError(f"{name} is {got}: expected a dict with {list(space.spaces)}")
    return {
        key: _convert(part, given[key], f"{name}[{key!r}]") for key, part in space.spaces.items()
    }


@_convert.register(spaces.Tuple)
def _(space: spaces.Tuple[Any], given: Any, name: str) -> Any:
    if not isinstance(given, (tuple, list, np.ndarray)) or len(given) != len(space.spaces):
        raise ValueError(
            f"{name} is {_described(given)}: expected a tuple of {len(space.spaces)} parts"
        )
    parts = zip(space.spaces, given, strict=True)
    return tuple(_convert(part, value, f"{name}[{i}]") for i, (part, value) in enumerate(parts))


@_convert.register
def _(space: spaces.Sequence, given: Any, name: str) -> Any:
    if space.stack:
        return _stacked(space.stacked_feature_space, space.feature_space, given, name)
    if not isinstance(given, (tuple, list, np.ndarray)):
        raise ValueError(f"{name} is {_described(given)}: expected a tuple, as {space} has")
    return tuple(
        _convert(space.feature_space, element, f"{name}[{i}]") for i, element in enumerate(given)
    )


@_convert.register(spaces.OneOf)
def _(space: Any, given: Any, name: str) -> Any:
    branches = len(space.spaces)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(f"{name} is {_described(given)}: expected (branch, value), as {space} has")
    branch = _convert(spaces.Discrete(branches), given[0], f"{name}[0]")
    if not 0 <= branch < branches:
        raise ValueError(f"{name} is of branch {branch}: expected [0, {branches}), as {space} has")
    return branch, _convert(space.spaces[branch], given[1], f"{name}[1]")


@_convert.register
def _(space: spaces.Graph, given: Any, name: str) -> Any:
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise ValueError(f"{name} is {_described(given)}: expected a GraphInstance of {space}")
    nodes, edges, links = given
    nodes = _stacked(space.batch_node_space, space.node_space, nodes, f"{name}.nodes")
    if edges is None and links is None:
        return spaces.GraphInstance(nodes, None, None)
    if space.edge_space is None or edges is None or links is None:
        raise ValueError(f"{name} has edges without links, or links without edges: expected both")
    edges = _stacked(space.batch_edge_space, space.edge_space, edges, f"{name}.edges")
    array = np.asarray(links)
    pairs = spaces.Box(0, np.iinfo(np.int32).max, (len(array), 2), np.int32)
    return spaces.GraphInstance(nodes, edges, _array(pairs, array, f"{name}.edge_links"))


def _stacked(batch: gym.Space[Any], feature: gym.Space[Any], given: Any, name: str) -> Any:
    """Elements of a space that are one array, or nested arrays, as a batch of it."""
    try:
        elements = list(iterate(batch, given))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is {_described(given)}: expected a batch of {feature}") from error
    members = [_convert(feature, each, f"{name}[{i}]") for i, each in enumerate(elements)]
    empty: Any = create_empty_array(feature, len(members))
    return concatenate(feature, members, empty) if members else empty


def _array(space: gym.Space[Any], given: Any, name: str) -> NDArray[Any]:
    shape, dtype = tuple(space.shape or ()), np.dtype(space.dtype)
    if type(given) is np.ndarray and given.dtype == dtype and given.shape == shape:
        return given
    try:
        array = np.asarray(given)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {_described(given)}: expected numbers, as {space} has")
    if [n for n in array.shape if n != 1] != [n for n in shape if n != 1]:
        choice = "; not probabilities or a one-hot vector" * isinstance(space, spaces.Discrete)
        raise ValueError(
            f"{name} has shape {array.shape}: expected {shape}, as {space} has{choice}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        member = array.astype(dtype).reshape(shape)
    array = array.reshape(shape)
    lost = (np.isfinite(array) & ~np.isfinite(member)) if dtype.kind == "f" else member != array
    if lost.any():
        raise ValueError(
            f"{name} is {array[lost].flat[0]}, which {dtype} does not hold: expected numbers as "
            f"{space} has"
        )
    return member


def _floats(member: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each part of a member that is of floats, and what it is called."""
    if isinstance(member, Mapping):
        for key, part in member.items():
            yield from _floats(part, f"{name}[{key!r}]")
    elif isinstance(member, tuple):
        for index, part in enumerate(member):
            yield from _floats(part, f"{name}[{index}]")
    elif isinstance(member, (np.ndarray, np.floating)) and member.dtype.kind == "f":
        yield name, member


def _described(given: Any) -> str:
    """In a few words."""
    if isinstance(given, np.ndarray):
        return f"an array of shape {given.shape} and dtype {given.dtype}"
    return f"{given!r:.80}"


def stack_members(space: gym.Space[Any], members: Sequence[Any]) -> Any:
    """Members one after another, as :class:`gato_gym.episodes.Episode` has them.

    Numbers become arrays ``[N, ...]``, dicts and tuples of these; members of all other spaces,
    texts and sequences among them, a list.
    """
    if isinstance(space, spaces.Dict):
        parts = space.spaces.items()
        return {key: stack_members(part, [each[key] for each in members]) for key, part in parts}
    if isinstance(space, spaces.Tuple):
        return tuple(
            stack_members(part, [each[i] for each in members])
            for i, part in enumerate(space.spaces)
        )
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return np.stack(members)
    return list(members)
