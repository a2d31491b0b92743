"""The token ids and the meaning of each range.

* :class:`Vocabulary` -- four disjoint kinds of id: text, continuous, discrete, separator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gato_gym.files.bounded_io import as_type

__all__ = ["Vocabulary"]

_LARGEST = 2**31


@dataclass(frozen=True)
class Vocabulary:
    """Which ids are text pieces, bins of a continuous value, discrete values and the separator.

    The default ranges are disjoint: text [0, 32000), continuous [32000, 33024), discrete
    [33024, 34048), separator 34048. :meth:`paper` is the published layout, whose discrete ids
    collide with text.

    Args:
        text: Ids of the text pieces.
        continuous: Ids of the bins of a continuous value, lowest bin first.
        discrete: Ids of the discrete values, and of the digits of larger ones.
        separator: The id between an observation and its action.

    Raises:
        ValueError: If a range is empty, has a step, or is negative.

    Example:
        >>> vocabulary = Vocabulary()
        >>> vocabulary.size, vocabulary.name(32000), vocabulary.name(33025)
        (34049, 'continuous 0', 'discrete 1')
        >>> Vocabulary.from_json(vocabulary.to_json()) == vocabulary
        True
    """

    text: range = range(32000)
    continuous: range = range(32000, 33024)
    discrete: range = range(33024, 34048)
    separator: int = 34048

    def __post_init__(self) -> None:
        for name in ("text", "continuous", "discrete"):
            ids: range = getattr(self, name)
            if not isinstance(ids, range) or ids.step != 1 or ids.start < 0 or len(ids) < 2:
                raise ValueError(
                    f"Vocabulary.{name} is {ids!r}: expected a range of two ids or more, step 1, "
                    "from 0 up"
                )
        if self.separator < 0 or any(
            self.separator in ids for ids in (self.text, self.continuous, self.discrete)
        ):
            raise ValueError(
                f"Vocabulary.separator is {self.separator}: expected an id outside "
                f"{self.text}, {self.continuous} and {self.discrete}"
            )

    @classmethod
    def paper(cls) -> Vocabulary:
        """The ids as published: discrete values share [0, 1024) with text; no gap after."""
        return cls(discrete=range(1024), separator=33024)

    @property
    def size(self) -> int:
        """Number of rows an embedding table of these ids needs."""
        return max(self.text.stop, self.continuous.stop, self.discrete.stop, self.separator + 1)

    def name(self, token: int) -> str:
        """The meaning of ``token`` in words: ``'text 7'``, ``'continuous 512'``.

        Raises:
            ValueError: If no range holds ``token``.
        """
        if token == self.separator:
            return "separator"
        for kind in ("text", "continuous", "discrete"):
            ids: range = getattr(self, kind)
            if token in ids:
                return f"{kind} {token - ids.start}"
        raise ValueError(f"token {token} has no meaning: expected an id in [0, {self.size})")

    def to_json(self) -> dict[str, int]:
        """The ranges as plain ints, ``<kind>_start`` and ``<kind>_stop``, and ``separator``."""
        values: dict[str, int] = {}
        for kind in ("text", "continuous", "discrete"):
            ids: range = getattr(self, kind)
            values |= {f"{kind}_start": ids.start, f"{kind}_stop": ids.stop}
        return values | {"separator": self.separator}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Rebuild a vocabulary from :meth:`to_json`'s result.

        Raises:
            ValueError: If an entry is missing, unknown or not an int.
        """
        expected = sorted(cls().to_json())
        ids = as_type(dict[str, int], values, "vocabulary")
        if sorted(ids) != expected or max(ids.values()) >= _LARGEST:
            raise ValueError(
                f"vocabulary is {ids!r}: expected one int for each of {expected}, below {_LARGEST}"
            )
        ranges = {
            kind: range(ids[f"{kind}_start"], ids[f"{kind}_stop"])
            for kind in ("text", "continuous", "discrete")
        }
        return cls(**ranges, separator=ids["separator"])
