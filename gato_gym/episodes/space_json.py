"""Spaces as JSON, as Minari writes them, with the kinds that Minari lacks.

* :func:`serialize_space`, :func:`deserialize_space` -- Minari's own, which this module teaches
  Sequence, OneOf and Graph; MiniGrid's MissionSpace, a function, is written as the Text it makes.

Minari reads datasets of such spaces where this module is imported.
"""

from __future__ import annotations

import json
import string
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from minari.serialization import deserialize_space, serialize_space

from gato_gym.text import is_text_space

__all__ = ["deserialize_space", "serialize_space"]

LONGEST_MISSION = 1024


def _write_text(space: gym.Space[Any], to_string: bool = True) -> Any:
    if not is_text_space(space):
        raise ValueError(
            f"{space} is of a kind that datasets do not hold ({type(space).__name__}): expected "
            "Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict, Tuple, Sequence, OneOf or "
            "Graph; transform it with a wrapper"
        )
    return serialize_space(spaces.Text(LONGEST_MISSION, charset=string.printable), to_string)


def _write_sequence(space: spaces.Sequence, to_string: bool = True) -> Any:
    feature = serialize_space(space.feature_space, to_string=False)
    return _written(to_string, type="Sequence", stack=space.stack, feature_space=feature)


def _write_one_of(space: Any, to_string: bool = True) -> Any:
    branches = [serialize_space(each, to_string=False) for each in space.spaces]
    return _written(to_string, type="OneOf", subspaces=branches)


def _write_graph(space: spaces.Graph, to_string: bool = True) -> Any:
    nodes, edges = (
        None if each is None else serialize_space(each, to_string=False)
        for each in (space.node_space, space.edge_space)
    )
    return _written(to_string, type="Graph", node_space=nodes, edge_space=edges)


def _written(to_string: bool, **values: Any) -> Any:
    return json.dumps(values) if to_string else values


def _read_sequence(values: dict[str, Any]) -> gym.Space[Any]:
    return spaces.Sequence(deserialize_space(values["feature_space"]), stack=values["stack"])


def _read_one_of(values: dict[str, Any]) -> gym.Space[Any]:
    return spaces.OneOf([deserialize_space(each) for each in values["subspaces"]])


def _read_graph(values: dict[str, Any]) -> gym.Space[Any]:
    edges = values["edge_space"]
    return spaces.Graph(
        deserialize_space(values["node_space"]), None if edges is None else deserialize_space(edges)
    )


serialize_space.register(spaces.Space, _write_text)
serialize_space.register(spaces.Sequence, _write_sequence)
serialize_space.register(spaces.OneOf, _write_one_of)
serialize_space.register(spaces.Graph, _write_graph)
deserialize_space.register("Sequence")(_read_sequence)
deserialize_space.register("OneOf")(_read_one_of)
deserialize_space.register("Graph")(_read_graph)
