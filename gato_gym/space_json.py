"""Spaces as JSON, as Minari writes them, with the kinds that Minari lacks; read within bounds.

* :func:`write_space` -- a space as text.
* :func:`read_space` -- a space from its text in a checkpoint, a shard or a dataset.

Minari itself learns Sequence, OneOf and Graph when one of these is first called. MiniGrid's
MissionSpace, a function, is written as the Text it makes.
"""

from __future__ import annotations

import functools
import json
import math
import re
import string
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.files.bounded_io import as_type, parse_json
from gato_gym.text import is_text_space

LARGEST_SPACE = 2**24
"""Numbers, and letters, of all parts of a space: an image of 4096 x 4096."""

LONGEST_MISSION = 1024

_DTYPE = re.compile(r"bool|float(16|32|64)|u?int(8|16|32|64)")


def write_space(space: gym.Space[Any]) -> str:
    """A space as JSON; bounds that are the same everywhere are one number each.

    Raises:
        ValueError: It, or a part of it, is of a kind that datasets do not hold.

    Example:
        >>> write_space(spaces.Sequence(spaces.MultiBinary(2)))
        '{"type": "Sequence", "stack": false, "feature_space": {"type": "MultiBinary", "n": 2}}'
        >>> write_space(spaces.Box(0, 255, (84, 84), np.uint8))
        '{"type": "Box", "dtype": "uint8", "shape": [84, 84], "low": 0, "high": 255}'
    """
    return json.dumps(_in_each_box(_serialization().serialize_space(space, False), _one_number))


def read_space(text: Any, where: str) -> gym.Space[Any]:
    """The space that :func:`write_space` or Minari wrote.

    Args:
        text: JSON.
        where: What it is called in errors, such as "config.json: tasks.a.spaces[0]".

    Raises:
        ValueError: It is no such text, or the space is too large to be one.

    Example:
        >>> read_space('{"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}', "action")
        Discrete(3)
    """
    value = as_type(dict[str, Any], parse_json(as_type(str, text, where), where), where)
    _check(value, where)
    try:
        whole = _in_each_box(value, _all_numbers)
        space: gym.Space[Any] = _serialization().deserialize_space(whole)
    except Exception as error:  # of Gymnasium, Minari and NumPy: assertions, keys, types, values
        raise ValueError(
            f"{where} is no space ({type(error).__name__}: {error}): expected what Minari's "
            "serialize_space wrote; take a fresh copy"
        ) from error
    return space


def _in_each_box(value: Any, change: Callable[[Any, list[int]], Any]) -> Any:
    """A space's values with the bounds of every Box in it changed; its shape is given too."""
    if isinstance(value, list):
        return [_in_each_box(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "Box":
        return {**value, **{side: change(value[side], value["shape"]) for side in ("low", "high")}}
    return {key: _in_each_box(each, change) for key, each in value.items()}


def _one_number(bounds: Any, shape: list[int]) -> Any:
    numbers = np.asarray(bounds)
    if not numbers.size:
        return 0
    first = numbers.flat[0]
    return first.item() if (numbers == first).all() else bounds


def _all_numbers(bounds: Any, shape: list[int]) -> Any:
    return bounds if isinstance(bounds, list) else np.full(shape, bounds)


def _check(value: Any, where: str) -> int:
    """Numbers and letters of a space; refuse one whose construction would take too much memory."""
    space = as_type(dict[str, Any], value, where)
    parts = as_type(dict[str, Any] | list[Any], space.get("subspaces", {}), f"{where}.subspaces")
    named = dict(parts if isinstance(parts, dict) else enumerate(parts))
    for part_name in ("feature_space", "node_space", "edge_space"):
        if space.get(part_name) is not None:
            named[part_name] = space[part_name]
    total = sum(_check(part, f"{where}.{name}") for name, part in named.items())
    sizes = {
        "shape": math.prod(as_type(list[int], space.get("shape", [0]), f"{where}.shape")),
        "max_length": as_type(int, space.get("max_length", 0), f"{where}.max_length"),
    }
    if space.get("type") == "MultiBinary":
        count = as_type(int | list[int], space.get("n"), f"{where}.n")
        sizes["n"] = math.prod(count) if isinstance(count, list) else count
    for name, size in sizes.items():
        if not 0 <= size <= LARGEST_SPACE:
            raise ValueError(f"{where}.{name} is of {size}, expected 0 to {LARGEST_SPACE} numbers")
    total += sum(sizes.values())
    if total > LARGEST_SPACE:
        raise ValueError(f"{where} is of {total}, expected 0 to {LARGEST_SPACE} numbers")
    dtype = as_type(str, space.get("dtype", "int64"), f"{where}.dtype")
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"{where}.dtype is {dtype!r}, expected numbers, such as float32")
    return total


@functools.cache
def _serialization() -> Any:
    """Minari's module, which knows the other kinds too."""
    from minari import serialization

    write, read = serialization.serialize_space, serialization.deserialize_space

    def write_text(space: gym.Space[Any], to_string: bool = True) -> Any:
        if not is_text_space(space):
            raise ValueError(
                f"{space} is of a kind that datasets do not hold ({type(space).__name__}): "
                "expected Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict, Tuple, Sequence, "
                "OneOf or Graph; transform it with a wrapper"
            )
        return write(spaces.Text(LONGEST_MISSION, charset=string.printable), to_string)

    def write_sequence(space: spaces.Sequence, to_string: bool = True) -> Any:
        feature = write(space.feature_space, to_string=False)
        return _written(to_string, type="Sequence", stack=space.stack, feature_space=feature)

    def write_one_of(space: Any, to_string: bool = True) -> Any:
        branches = [write(each, to_string=False) for each in space.spaces]
        return _written(to_string, type="OneOf", subspaces=branches)

    def write_graph(space: spaces.Graph, to_string: bool = True) -> Any:
        edges = None if space.edge_space is None else write(space.edge_space, to_string=False)
        nodes = write(space.node_space, to_string=False)
        return _written(to_string, type="Graph", node_space=nodes, edge_space=edges)

    def read_sequence(values: dict[str, Any]) -> gym.Space[Any]:
        return spaces.Sequence(read(values["feature_space"]), stack=values["stack"])

    def read_one_of(values: dict[str, Any]) -> gym.Space[Any]:
        return spaces.OneOf([read(each) for each in values["subspaces"]])

    def read_graph(values: dict[str, Any]) -> gym.Space[Any]:
        edges = values["edge_space"]
        return spaces.Graph(read(values["node_space"]), None if edges is None else read(edges))

    write.register(spaces.Space, write_text)
    write.register(spaces.Sequence, write_sequence)
    write.register(spaces.OneOf, write_one_of)
    write.register(spaces.Graph, write_graph)
    read.register("Sequence")(read_sequence)
    read.register("OneOf")(read_one_of)
    read.register("Graph")(read_graph)
    return serialization


def _written(to_string: bool, **values: Any) -> Any:
    return json.dumps(values) if to_string else values
