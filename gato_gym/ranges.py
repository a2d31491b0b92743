"""Ranges of a settings dataclass's numbers, checked wherever the values come from.

* :func:`check_range` -- refuses numbers that would mean something else than was typed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real


def check_range(
    settings: object,
    *names: str,
    low: float = 0,
    high: float | None = None,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse numbers outside a range, and those that are no numbers, NaN and infinite ones.

    Args:
        settings: A dataclass.
        names: Its fields: a number, None, or a tuple or a mapping of numbers.
        low: The smallest value.
        high: The largest; None for any finite number.
        above: Whether ``low`` itself is outside.
        below: Whether ``high`` itself is outside.

    Raises:
        ValueError: Names the field, its value and the range.
    """
    least = f"more than {low:g}" if above else f"{low:g} or more"
    words = least if high is None else f"{least}, less than {high:g}" if below else ""
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        inside = value.values() if isinstance(value, Mapping) else value
        for number in inside if isinstance(inside, Iterable) else (inside,):
            fits = isinstance(number, Real) and not isinstance(number, bool)
            fits = fits and abs(number) < math.inf and (low < number if above else low <= number)
            if not fits or (high is not None and not (number < high if below else number <= high)):
                wanted = words or f"{low:g} to {high:g}"
                raise ValueError(f"{name} is {value!r}: expected {wanted}")
