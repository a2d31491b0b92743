"""How the fields of a settings dataclass are written on a command line.

A field's name is its flag, its type what the flag takes, its docstring its help. These are types
with a spelling of their own:

* :data:`Flag` -- true where the flag is given.
* :data:`Json` -- an object in JSON; :data:`Numbers`, :data:`Names` -- separated by commas.
* :func:`flag` -- another name, or what stands for the value in the help.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

flag = tyro.conf.arg

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def _one_word(
    metavar: str, read: Callable[[str], Any], write: Callable[[Any], str]
) -> PrimitiveConstructorSpec[Any]:
    """A value that is written as one word."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: isinstance(value, (tuple, Mapping)),
        str_from_instance=lambda value: [write(value)],
    )


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is no JSON ({error}): expected {{}}") from error
    if not isinstance(value, dict):
        raise ValueError(f'{text!r}: expected an object, such as {{"a": 1}}')
    return value


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{text!r}: expected whole numbers, such as 1,3,10") from error


Json = _one_word("JSON", _object, json.dumps)
Numbers = _one_word("N,N,…", _numbers, lambda value: ",".join(map(str, value)))
Names = _one_word("NAME,…", lambda text: tuple(text.split(",")), ",".join)
