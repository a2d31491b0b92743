"""Spaces as Minari writes them, with the kinds that Minari lacks, read within bounds.

* :func:`write_space` -- a space as text for a checkpoint, a shard or a dataset.
* :func:`read_space` -- the space of such a text.

Minari is taught Sequence, OneOf and Graph with the first call; MiniGrid's MissionSpace, a function,
is written as the Text it makes.
"""

from __future__ import annotations

import json
import math
import re
import string
from functools import cache
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from gato_gym.bounded_io import as_type, parse_json

LARGEST_SPACE = 2**24
"""Numbers, or letters, of one part of a space: an image of 4096 x 4096."""

_DTYPE = re.compile(r"bool|float(16|32|64)|u?int(8|16|32|64)")


LONGEST_MISSION = 1024


def write_space(space: gym.Space[Any]) -> str:
    """A space as JSON, as ``minari.serialization.serialize_space`` writes it.

    Raises:
        ValueError: It is of another kind.
    """
    return str(_minari().serialize_space(space))


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
    value = as_type(dict[str, Any], parse_json(as_type(str, text, where), where), where)
    _check(value, where)
    try:
        space: gym.Space[Any] = _minari().deserialize_space(value)
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
    for name in ("feature_space", "node_space", "edge_space"):
        if space.get(name) is not None:
            _check(space[name], f"{where}.{name}")
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


@cache
def _minari() -> Any:
    """Minari's module, which knows these kinds from now on."""
    from minari import serialization

    write, read = serialization.serialize_space, serialization.deserialize_space

    def write_text(space: gym.Space[Any], to_string: bool = True) -> Any:
        if not hasattr(space, "mission_func"):
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
        parts = (space.node_space, space.edge_space)
        nodes, edges = (None if part is None else write(part, to_string=False) for part in parts)
        return _written(to_string, type="Graph", node_space=nodes, edge_space=edges)

    def read_sequence(values: dict[str, Any]) -> gym.Space[Any]:
        return spaces.Sequence(read(values["feature_space"]), stack=bool(values["stack"]))

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
