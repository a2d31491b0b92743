"""How the fields of a settings dataclass are written on a command line.

A field's name is its flag, its type what the flag takes, its docstring its help. A mapping is
written as JSON. What else a field may be annotated with:

* :func:`flag` -- another name, or what stands for the value in the help.
* :data:`Numbers`, :data:`Names` -- a tuple in one word, separated by commas.

And for the dataclass itself, so that values from anywhere are checked:

* :func:`check_range` -- refuses numbers that would mean something else than was typed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gato_gym.files.bounded_io import as_type, parse_json

flag = tyro.conf.arg

MOST_THREADS = 1024
"""Threads of a CPU that a command can be told to take."""


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


def _one_word(
    metavar: str, read: Callable[[str], Any], write: Callable[[Any], str]
) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: isinstance(value, (tuple, Mapping)),
        str_from_instance=lambda value: [write(value)],
    )


def _read_object(text: str, kind: Any) -> dict[str, Any]:
    value = parse_json(text, repr(text), fix='expected such as {"a": 1}')
    if not isinstance(value, dict):
        raise ValueError(f'{text!r} is no JSON object: expected such as {{"a": 1}}')
    checked: dict[str, Any] = as_type(kind, value, repr(text))
    return checked


def _read_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{text!r}: expected whole numbers, such as 1,3,10") from error


Numbers = _one_word("N,N,...", _read_numbers, lambda value: ",".join(map(str, value)))
Names = _one_word("NAME,...", lambda text: tuple(text.split(",")), ",".join)

REGISTRY = ConstructorRegistry()
"""Reads mappings."""


@REGISTRY.primitive_rule
def _mapping(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if get_origin(type_info.type) is not Mapping:
        return None
    return _one_word("JSON", lambda text: _read_object(text, type_info.type), json.dumps)
