"""One observation or a batch of them: which it is, and whether it is one at all.

* :func:`rows_of` -- the rows of a batch, None for one observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.text import is_text_space

_WHOLE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ARRAYS = (spaces.Box, *_WHOLE)


def rows_of(space: gym.Space[Any], observation: Any, name: str = "observation") -> int | None:
    """Rows of a batch of observations, 1 or more; None for one member of ``space``.

    Args:
        space: The space of one environment's observations.
        observation: As :meth:`policies.base.Policy.predict` takes it.
        name: What it is called in messages.

    Raises:
        ValueError: It is no observation: of another type or rank, without one of the parts,
            without rows, with a fraction where the space has whole numbers, or parts have
            different numbers of rows.

    Example:
        >>> rows_of(spaces.Box(0, 1, (3,)), np.zeros((2, 3)))
        2
        >>> rows_of(spaces.Discrete(4), 3) is None
        True
    """
    if isinstance(space, spaces.Box) and isinstance(observation, np.ndarray):
        numbers, shape = observation.dtype.kind in "fiub", observation.shape
        if numbers and shape == space.shape:
            return None
        if numbers and shape[1:] == space.shape and len(observation):
            return len(observation)
    try:
        leaves = list(_leaves(space, observation, name))
        rows = _rows(*leaves[0]) if leaves else None
        for part, given, name in leaves[1:]:
            if not isinstance(part, _ARRAYS) and not is_text_space(part):
                continue
            if (other := _rows(part, given, name)) != rows:
                raise ValueError(
                    f"{name} is {_counted(other)} and {leaves[0][2]} is {_counted(rows)}: expected "
                    "the parts of one observation, or of the same number of rows"
                )
        if isinstance(space, _ARRAYS):
            _check_shape(space, observation, name, batch=rows is not None)
    except ValueError as error:
        if (
            isinstance(observation, tuple)
            and len(observation) == 2
            and _is_info(space, observation)
        ):
            raise ValueError(
                f"{error}; reset() returns (observation, info): pass the observation alone"
            ) from error
        raise
    if rows == 0:
        raise ValueError(f"{name} is a batch of no rows: expected one row or more")
    return rows


def _leaves(
    space: gym.Space[Any], given: Any, name: str
) -> Iterator[tuple[gym.Space[Any], Any, str]]:
    """Each part's space, what was given for it, and what it is called."""
    if isinstance(space, spaces.Dict):
        if not isinstance(given, Mapping):
            raise ValueError(
                f"{name} is {_described(given)}: expected a dict with {list(space.spaces)}"
            )
        if missing := [key for key in space.spaces if key not in given]:
            raise ValueError(
                f"{name} has no {', '.join(map(repr, missing))}: got a dict with {list(given)}, "
                f"expected {list(space.spaces)}"
            )
        for key, part in space.spaces.items():
            yield from _leaves(part, given[key], f"{name}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        count = len(space.spaces)
        is_array = isinstance(given, np.ndarray) and given.ndim > 0
        if not is_array and not isinstance(given, (tuple, list)):
            raise ValueError(f"{name} is {_described(given)}: expected a tuple of {count} parts")
        if len(given) != count:
            raise ValueError(f"{name} has {len(given)} parts: expected a tuple of {count}")
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, given[index], f"{name}[{index}]")
    else:
        yield space, given, name


def _rows(space: gym.Space[Any], given: Any, name: str) -> int | None:
    if is_text_space(space):
        return _rows_of_texts(given, name)
    if isinstance(space, (spaces.Sequence, spaces.OneOf, spaces.Graph)):
        if isinstance(given, spaces.GraphInstance) or space.contains(given):
            return None
        if not isinstance(given, (tuple, list, np.ndarray)):
            raise ValueError(
                f"{name} is {_described(given)}: expected a member of {space}, or a tuple of them"
            )
        return len(given)
    shape = tuple(space.shape or ())
    array = _as_array(given)
    if array is None or len(array.shape) not in (len(shape), len(shape) + 1):
        got = _described(given) if array is None else f"of shape {tuple(array.shape)}"
        raise ValueError(f"{name} is {got}: expected {_expected(shape)}")
    is_float = isinstance(array, (np.ndarray, np.floating)) and array.dtype.kind == "f"
    if is_float and isinstance(space, _WHOLE) and (array != np.rint(array)).any():
        fraction = np.ravel(array)[np.argmax(np.ravel(array != np.rint(array)))]
        raise ValueError(f"{name} has {fraction}: expected whole numbers, of {space}")
    return None if len(array.shape) == len(shape) else int(array.shape[0])


def _rows_of_texts(given: Any, name: str) -> int | None:
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given.item()
    if isinstance(given, str):
        return None
    if not isinstance(given, (tuple, list, np.ndarray)) or not all(
        isinstance(text, str) for text in given
    ):
        raise ValueError(
            f"{name} is {_described(given)}: expected a str for one environment or a tuple of str "
            "for a batch"
        )
    return len(given)


def _check_shape(space: gym.Space[Any], given: Any, name: str, *, batch: bool) -> None:
    shape, got = tuple(space.shape or ()), np.shape(given)
    if got[batch:] != shape:
        raise ValueError(f"{name} is of shape {got}: expected {_expected(shape)}")


def _as_array(given: Any) -> Any:
    """Numbers as something with a shape; None for what is no array of numbers."""
    if not hasattr(given, "shape") or not hasattr(given, "dtype"):
        try:
            given = np.asarray(given)
        except ValueError:  # lists of different lengths
            return None
    return None if getattr(given.dtype, "kind", "f") in "OSUV" else given


def _is_info(space: gym.Space[Any], observation: tuple[Any, Any]) -> bool:
    """Whether a pair is what ``reset`` returns, rather than two parts of a Tuple space."""
    second = space.spaces[-1] if isinstance(space, spaces.Tuple) and space.spaces else None
    return isinstance(observation[1], dict) and not isinstance(second, spaces.Dict)


def _expected(shape: tuple[int, ...]) -> str:
    batch = ", ".join(["B", *map(str, shape)]) + ("" if shape else ",")
    return f"{shape} for one environment or ({batch}) for a batch"


def _counted(rows: int | None) -> str:
    return "one observation" if rows is None else f"a batch of {rows} rows"


def _described(given: Any) -> str:
    if given is None or isinstance(given, str):
        return repr(given)[:80]
    if isinstance(given, np.ndarray):
        return f"an array of shape {given.shape} and dtype {given.dtype}"
    return f"a {type(given).__name__}" + (f" of {len(given)}" if hasattr(given, "__len__") else "")
