"""Spaces as Minari writes them, read within bounds.

* :func:`read_space` -- a space from its text in a checkpoint, a shard or a dataset.
"""

from __future__ import annotations

import math
import re
from typing import Any

import gymnasium as gym

from gato_gym.bounded_io import as_type, parse_json

LARGEST_SPACE = 2**24
"""Numbers, or letters, of one part of a space: an image of 4096 x 4096."""

_DTYPE = re.compile(r"bool|float(16|32|64)|u?int(8|16|32|64)")


def read_space(text: Any, where: str) -> gym.Space[Any]:
    """The space that ``minari.serialization.serialize_space`` wrote.

    Args:
        text: JSON.
        where: What it is called in errors, such as "config.json: tasks.a.spaces[0]".

    Raises:
        ValueError: It is no such text, or the space is too large to be one.

    Example:
        >>> read_space('{"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}', "action")
        Discrete(3)
    """
    from minari.serialization import deserialize_space

    value = as_type(dict[str, Any], parse_json(as_type(str, text, where), where), where)
    _check(value, where)
    try:
        space: gym.Space[Any] = deserialize_space(value)
    except Exception as error:  # of Gymnasium, Minari and NumPy: assertions, keys, types, values
        raise ValueError(
            f"{where} is no space ({type(error).__name__}: {error}): expected what Minari's "
            "serialize_space wrote; take a fresh copy"
        ) from error
    return space


def _check(value: Any, where: str) -> None:
    """Refuse a space whose construction would take more memory than its text."""
    space = as_type(dict[str, Any], value, where)
    parts = space.get("subspaces", {})
    for name, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
        _check(part, f"{where}.{name}")
    sizes = {
        "shape": math.prod(as_type(list[int], space.get("shape", []), f"{where}.shape")),
        "max_length": as_type(int, space.get("max_length", 0), f"{where}.max_length"),
    }
    if space.get("type") == "MultiBinary":
        count = as_type(int | list[int], space.get("n"), f"{where}.n")
        sizes["n"] = math.prod(count) if isinstance(count, list) else count
    for name, size in sizes.items():
        if not 0 <= size <= LARGEST_SPACE:
            raise ValueError(f"{where}.{name} is of {size}, expected 0 to {LARGEST_SPACE} numbers")
    dtype = as_type(str, space.get("dtype", "int64"), f"{where}.dtype")
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"{where}.dtype is {dtype!r}, expected numbers, such as float32")
