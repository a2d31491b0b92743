"""Tokens of spaces made of spaces, and the codec of any space.

* :class:`NestedCodec` -- Dict and Tuple: their parts one after another.
* :class:`SequenceCodec` -- Sequence: how many elements, then room for each.
* :class:`OneOfCodec` -- OneOf: which branch, then room for every branch.
* :class:`GraphCodec` -- Graph: its nodes, then its edges, each with the nodes it links.
* :func:`compile_codec` -- the codec of a space, composite ones included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.plans.parts import Part
from gato_gym.plans.space_codecs import (
    BoxCodec,
    Ids,
    IntegerBoxCodec,
    IntegerCodec,
    SpaceCodec,
    TextCodec,
)

__all__ = ["GraphCodec", "NestedCodec", "OneOfCodec", "SequenceCodec", "compile_codec"]


class NestedCodec(SpaceCodec):
    """Dict and Tuple: their parts' tokens one after another, keys sorted."""

    def __init__(self, part: Part, children: Mapping[Any, SpaceCodec]) -> None:
        super().__init__(part)
        self._children = dict(children)
        self.ranges, self.continuous, self._stops = _joined(list(self._children.values()))

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        ranges: list[tuple[str, int, int]] = []
        for child in self._children.values():
            ranges += child.leaves(first)
            first += len(child.ranges)
        return ranges

    def encode(self, members: Any, rows: int) -> Ids:
        parts = [
            child.encode(self._part(members, key), rows) for key, child in self._children.items()
        ]
        return np.concatenate([np.zeros((rows, 0), np.int64), *parts], axis=1)

    def decode(self, ids: Ids) -> Any:
        pieces = np.split(ids, self._stops[:-1], axis=1)
        return self._join(
            child.decode(piece)
            for child, piece in zip(self._children.values(), pieces, strict=True)
        )

    def batch(self, members: Sequence[Any]) -> Any:
        return self._join(
            child.batch([self._part(member, key) for member in members])
            for key, child in self._children.items()
        )

    def member(self, batch: Any, row: int) -> Any:
        return self._join(child.member(batch[key], row) for key, child in self._children.items())

    def rows(self, batch: Any) -> int:
        key, child = next(iter(self._children.items()))
        rows: int = child.rows(self._part(batch, key))
        return rows

    def _part(self, members: Any, key: Any) -> Any:
        try:
            return members[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{self.part.name} is a {type(members).__name__} without {key!r}: expected a "
                f"member of {self.space}"
            ) from error

    def _join(self, parts: Any) -> Any:
        if isinstance(self.space, spaces.Tuple):
            return tuple(parts)
        return dict(zip(self._children, parts, strict=True))


class SequenceCodec(SpaceCodec):
    """Sequence: a discrete id for the number of elements, then the tokens of each.

    Positions past the last element hold the least legal ids, which decoding ignores.

    Attributes:
        feature: The codec of an element.
        room: Most elements that have tokens.
    """

    def __init__(self, part: Part, feature: SpaceCodec) -> None:
        super().__init__(part)
        base = len(self.vocabulary.discrete)
        self.room = part.options.sequence_length
        if self.room >= base:
            raise ValueError(
                f"PlanOptions.sequence_length is {self.room}: expected less than {base}, the "
                "discrete ids"
            )
        self.feature = feature
        self._start = self.vocabulary.discrete.start
        length = np.array([[self._start, self._start + self.room + 1]], np.int64)
        self.ranges = np.concatenate([length, *[feature.ranges] * self.room])
        self.continuous = np.concatenate([[False], *[feature.continuous] * self.room])

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        return [(self.part.path, first, first + len(self.ranges))]

    def encode(self, members: Any, rows: int) -> Ids:
        batches = [self._elements(member) for member in members]
        lengths = np.array([self.feature.rows(batch) for batch in batches], np.int64)
        if len(lengths) != rows:
            raise ValueError(
                f"{self.part.name} holds {len(lengths)} sequences: expected {rows}, one a row"
            )
        ids = np.tile(self.ranges[:, 0], (rows, 1))
        shown = self._cut(lengths)
        ids[:, 0] += shown
        width = len(self.feature.ranges)
        for row, (batch, length) in enumerate(zip(batches, lengths.tolist(), strict=True)):
            tokens = self.feature.encode(batch, length)[: shown[row]]
            ids[row, 1 : 1 + width * len(tokens)] = tokens.ravel()
        return ids

    def decode(self, ids: Ids) -> Any:
        lengths = (ids[:, 0] - self._start).tolist()
        width = len(self.feature.ranges)
        elements = self.feature.decode(ids[:, 1:].reshape(len(ids) * self.room, width))
        return tuple(
            self._member([self.feature.member(elements, row * self.room + i) for i in range(n)])
            for row, n in enumerate(lengths)
        )

    def batch(self, members: Sequence[Any]) -> Any:
        return tuple(members)

    def _cut(self, lengths: Ids) -> Ids:
        long = lengths > self.room
        if not long.any():
            return lengths
        refused = self.part.role == "action" or self.part.options.outside == "error"
        if self.part.role == "observation":
            self.part.outside[self.part.path] += int(long.sum())
        if refused:
            row = int(np.argmax(long))
            raise ValueError(
                f"{self.part.name} has {lengths[row]} elements in row {row}: expected at most "
                f"{self.room}; give room with PlanOptions(sequence_length={lengths[row]})"
            )
        return np.minimum(lengths, self.room)

    def _elements(self, member: Any) -> Any:
        """The elements of one member as a batch of the feature's codec."""
        assert isinstance(self.space, spaces.Sequence)
        return member if self.space.stack else self.feature.batch(member)

    def _member(self, elements: list[Any]) -> Any:
        assert isinstance(self.space, spaces.Sequence)
        return self.feature.batch(elements) if self.space.stack else tuple(elements)


class OneOfCodec(SpaceCodec):
    """OneOf: a discrete id for the branch, then the tokens of every branch.

    Each branch has its own positions, because the legal ids of a position must not depend on
    earlier tokens. Branches not taken hold the least legal ids, which decoding ignores.
    """

    def __init__(self, part: Part, branches: Sequence[SpaceCodec]) -> None:
        super().__init__(part)
        if len(branches) > len(self.vocabulary.discrete):
            raise ValueError(
                f"{part.name} has {len(branches)} branches: expected at most "
                f"{len(self.vocabulary.discrete)}, the discrete ids"
            )
        self._branches = list(branches)
        ranges, continuous, stops = _joined(self._branches)
        self._start = self.vocabulary.discrete.start
        choice = np.array([[self._start, self._start + len(branches)]], np.int64)
        self.ranges = np.concatenate([choice, ranges])
        self.continuous = np.concatenate([[False], continuous])
        self._slices = [
            slice(1 + stop - len(branch.ranges), 1 + stop)
            for branch, stop in zip(branches, stops.tolist(), strict=True)
        ]

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        return [(self.part.path, first, first + len(self.ranges))]

    def encode(self, members: Any, rows: int) -> Ids:
        ids = np.tile(self.ranges[:, 0], (rows, 1))
        if len(members) != rows:
            raise ValueError(
                f"{self.part.name} holds {len(members)} members: expected {rows}, one a row"
            )
        for row, (index, value) in enumerate(members):
            if not 0 <= index < len(self._branches):
                raise ValueError(
                    f"{self.part.name} is of branch {index} in row {row}: expected "
                    f"[0, {len(self._branches)}), a member of {self.space}"
                )
            branch = self._branches[index]
            ids[row, 0] += index
            ids[row, self._slices[index]] = branch.encode(branch.batch([value]), 1)[0]
        return ids

    def decode(self, ids: Ids) -> Any:
        chosen = (ids[:, 0] - self._start).tolist()
        return tuple(
            (np.int64(index), self._value(ids[row : row + 1], index))
            for row, index in enumerate(chosen)
        )

    def batch(self, members: Sequence[Any]) -> Any:
        return tuple(members)

    def _value(self, ids: Ids, index: int) -> Any:
        branch = self._branches[index]
        return branch.member(branch.decode(ids[:, self._slices[index]]), 0)


class GraphCodec(SpaceCodec):
    """Graph: its nodes as a Sequence, then its edges as one, each with the two nodes it links.

    An edge of a node without room is left out with the node, and so is a decoded edge of a node
    beyond the number of nodes.
    """

    def __init__(self, part: Part, nodes: SequenceCodec, edges: SequenceCodec | None) -> None:
        super().__init__(part)
        self._nodes, self._edges = nodes, edges
        parts = [nodes] if edges is None else [nodes, edges]
        self.ranges, self.continuous, _ = _joined(parts)

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        return [(self.part.path, first, first + len(self.ranges))]

    def encode(self, members: Any, rows: int) -> Ids:
        ids = self._nodes.encode([graph[0] for graph in members], rows)
        if self._edges is None:
            return ids
        edges = [self._linked(graph, row) for row, graph in enumerate(members)]
        return np.concatenate([ids, self._edges.encode(edges, rows)], axis=1)

    def decode(self, ids: Ids) -> Any:
        stop = len(self._nodes.ranges)
        nodes = self._nodes.decode(ids[:, :stop])
        if self._edges is None:
            return tuple(spaces.GraphInstance(each, None, None) for each in nodes)
        edges = self._edges.decode(ids[:, stop:])
        return tuple(self._graph(*parts) for parts in zip(nodes, edges, strict=True))

    def batch(self, members: Sequence[Any]) -> Any:
        return tuple(members)

    def _linked(self, graph: Any, row: int) -> Any:
        """The edges of a graph, with their links, between nodes that have room."""
        assert self._edges is not None
        nodes, edges, links = graph
        count = self._nodes.feature.rows(nodes)
        pairs = np.zeros((0, 2), np.int64) if links is None else np.asarray(links, np.int64)
        if ((pairs < 0) | (pairs >= count)).any():
            raise ValueError(
                f"{self.part.name} has links {pairs.tolist()} in row {row}: expected nodes in "
                f"[0, {count})"
            )
        return self._between((edges, pairs), min(count, self._nodes.room))

    def _graph(self, nodes: Any, edges: Any) -> spaces.GraphInstance:
        features, links = self._between(edges, self._nodes.feature.rows(nodes))
        if not len(links):
            return spaces.GraphInstance(nodes, None, None)
        return spaces.GraphInstance(nodes, features, links.astype(np.int32))

    def _between(self, edges: tuple[Any, Ids], count: int) -> Any:
        """Those of a batch of edges that link the first ``count`` nodes."""
        assert self._edges is not None
        feature = self._edges.feature
        kept = np.flatnonzero((edges[1] < count).all(axis=1)).tolist()
        return feature.batch([feature.member(edges, row) for row in kept])


def _joined(codecs: Sequence[SpaceCodec]) -> tuple[Ids, Any, Ids]:
    """Ranges and continuity of codecs one after another, and where each one stops."""
    return (
        np.concatenate([np.zeros((0, 2), np.int64), *(codec.ranges for codec in codecs)]),
        np.concatenate([np.zeros(0, np.bool_), *(codec.continuous for codec in codecs)]),
        np.cumsum([len(codec.ranges) for codec in codecs], dtype=np.int64),
    )


def compile_codec(part: Part) -> SpaceCodec:
    """The codec of a part's space.

    Raises:
        ValueError: The space is none of Box, Discrete, MultiDiscrete, MultiBinary, Text, and Dict,
            Tuple, Sequence, OneOf or Graph of these.
    """
    return _codec(part.space, part)


@singledispatch
def _codec(space: gym.Space[Any], part: Part) -> SpaceCodec:
    raise part.refusal()


@_codec.register
def _(space: spaces.Box, part: Part) -> SpaceCodec:
    return BoxCodec(part) if space.dtype.kind == "f" else IntegerBoxCodec(part)


@_codec.register(spaces.Discrete)
@_codec.register(spaces.MultiDiscrete)
@_codec.register(spaces.MultiBinary)
def _(space: gym.Space[Any], part: Part) -> SpaceCodec:
    return IntegerCodec(part)


@_codec.register
def _(space: spaces.Text, part: Part) -> SpaceCodec:
    return TextCodec(part)


@_codec.register(spaces.Dict)
@_codec.register(spaces.Tuple)
def _(space: gym.Space[Any], part: Part) -> SpaceCodec:
    return NestedCodec(part, {key: compile_codec(child) for key, child in part.children() or ()})


@_codec.register
def _(space: spaces.Sequence, part: Part) -> SpaceCodec:
    return SequenceCodec(part, compile_codec(part.child("*", space.feature_space)))


@_codec.register(spaces.OneOf)
def _(space: Any, part: Part) -> SpaceCodec:
    return OneOfCodec(
        part, [compile_codec(part.child(i, sub)) for i, sub in enumerate(space.spaces)]
    )


@_codec.register
def _(space: spaces.Graph, part: Part) -> SpaceCodec:
    def sequence(name: str, element: gym.Space[Any]) -> SequenceCodec:
        child = part.child(name, spaces.Sequence(element, stack=True))
        return SequenceCodec(child, compile_codec(child.child("*", element)))

    nodes = sequence("nodes", space.node_space)
    if space.edge_space is None:
        return GraphCodec(part, nodes, None)
    links = spaces.MultiDiscrete([nodes.room, nodes.room])
    return GraphCodec(part, nodes, sequence("edges", spaces.Tuple([space.edge_space, links])))
