"""How the fields of a settings dataclass are written on a command line.

A field's name is its flag, its type what the flag takes, its docstring its help. A mapping is
written as JSON. What else a field may be annotated with:

* :func:`flag` -- another name, or what stands for the value in the help.
* :data:`Numbers`, :data:`Names` -- a tuple in one word, separated by commas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gato_gym.files.bounded_io import as_type, parse_json

flag = tyro.conf.arg

MOST_THREADS = 1024
"""Threads of a CPU that a command can be told to take."""


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
