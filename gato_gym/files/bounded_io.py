"""Files that others may have written, read within bounds: the one reader of JSON.

* :func:`check_file` -- refuses what is no regular file, or a larger one, before anything opens it.
* :func:`read_bytes`, :func:`read_text` -- what is in a file.
* :func:`read_json` -- JSON of limited size and depth; :func:`read_versioned` -- of a known format.
* :func:`parse_json` -- the same from a line or an attribute; :func:`plain_json`, from memory.
* :func:`reason_of` -- an error in one line, as part of another.
* :func:`as_type` -- a JSON value as the type that its reader expects; errors name the field.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

LARGEST, DEEPEST = 64 * 2**20, 100
"""Bytes of a file, and lists or objects in one another in JSON, where nothing else is said."""


def check_file(
    path: Path, *, largest: int | None = None, error: type[Exception] = ValueError
) -> None:
    """Refuse what is no regular file, or a larger one: a named pipe waits and a device never ends.

    Args:
        path: The file; links are followed.
        largest: Bytes that it may have; None leaves them to the caller.
        error: What is raised where it is not as expected.

    Raises:
        OSError: It is not there, or may not be looked at.
        ValueError: It is a folder, a pipe or a device, or larger; raised as ``error``.
    """
    there = path.stat()
    if not stat.S_ISREG(there.st_mode):
        kind = "a folder" if stat.S_ISDIR(there.st_mode) else "a pipe, a socket or a device"
        raise error(f"{path} is {kind}, expected a regular file: name another, or take a copy")
    if largest is not None and there.st_size > largest:
        raise error(_too_large(path, str(there.st_size), largest))


def read_bytes(path: Path, *, largest: int = LARGEST, error: type[Exception] = ValueError) -> bytes:
    """What is in a regular file of at most ``largest`` bytes.

    Args:
        path, largest, error: As in :func:`check_file`.

    Raises:
        OSError, ValueError: As :func:`check_file`, or it cannot be read.
    """
    check_file(path, largest=largest, error=error)
    with open(path, "rb", opener=_without_waiting) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, largest) + 1)  # memory for so many is taken at once
        if len(content) > size:  # it grows, or says that it is empty, as those of /proc do
            content += file.read(max(0, largest - size))
    if len(content) > largest:
        raise error(_too_large(path, f"more than {largest}", largest))
    return content


def read_text(path: Path, *, largest: int = LARGEST, error: type[Exception] = ValueError) -> str:
    """The UTF-8 text in a regular file.

    Args:
        path, largest, error: As in :func:`check_file`.

    Raises:
        OSError, ValueError: As :func:`read_bytes`; or it is not UTF-8, ``error`` again.
    """
    try:
        return read_bytes(path, largest=largest, error=error).decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 text ({reason}): save it as UTF-8") from reason


def read_json(
    path: Path,
    *,
    largest: int = LARGEST,
    deepest: int = DEEPEST,
    error: type[Exception] = ValueError,
) -> Any:
    """Read a JSON file that others may have written.

    Args:
        path: The file.
        largest: Bytes that it may have.
        deepest: Lists and objects that may be in one another.
        error: What is raised where it is not as expected.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, larger, deeper, or no JSON; raised as ``error``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.json"
        ...     size = path.write_text('{"a": [1]}')
        ...     read_json(path)
        {'a': [1]}
    """
    content = read_bytes(path, largest=largest, error=error)
    return parse_json(content, str(path), deepest=deepest, error=error)


def parse_json(
    content: str | bytes,
    where: str,
    *,
    deepest: int = DEEPEST,
    error: type[Exception] = ValueError,
    fix: str = "the file is damaged, take a fresh copy",
) -> Any:
    """JSON of limited depth.

    Args:
        content: The JSON; its size is the caller's to bound.
        where: What it is called in errors.
        deepest, error: As in :func:`read_json`.
        fix: What the error says to do.

    Raises:
        ValueError: It is deeper, or no JSON; raised as ``error``.
    """
    try:
        value = json.loads(content)
        depth, level = 0, [value]
        while nested := [each for each in level if isinstance(each, dict | list)]:
            depth += 1
            if depth > deepest:
                raise RecursionError(f"lists and objects lie more than {deepest} deep")
            level = [
                part
                for each in nested
                for part in (each.values() if isinstance(each, dict) else each)
            ]
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is not JSON ({reason}): {fix}") from reason
    return value


def plain_json(value: Any) -> Any:
    """A value as it comes back from a JSON file: tuples as lists, keys as text."""
    return parse_json(json.dumps(value), "a value")


def read_versioned(
    path: Path, what: str, *, newest: int, largest: int, error: type[Exception]
) -> dict[str, Any]:
    """Read a JSON object that names its version as ``format``.

    Args:
        path: The file.
        what: What it describes, such as "checkpoint".
        newest: The newest version that can be read.
        largest, error: As in :func:`read_json`; ``error`` is raised for a missing file, too.
    """
    if not path.exists():
        raise error(f"{path.parent} holds no {path.name}: expected the folder of a {what}")
    value = read_json(path, largest=largest, error=error)
    version = value.get("format") if isinstance(value, dict) else None
    if type(version) is not int or version < 1:
        raise error(f"{path} names no format version: it is not a {what}'s")
    if version > newest:
        raise error(
            f"{path.parent} has {what} format {version} and this gato-gym reads up to {newest}: "
            "upgrade gato-gym"
        )
    return dict(value)


def as_type(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as what its reader expects.

    Args:
        kind: ``bool``, ``int`` (of 64 bits), ``float``, ``str`` or ``Any``; a list, tuple or
            mapping of kinds; several with ``|``, None among them; a ``Literal``; or a dataclass,
            whose fields are read from an object's.
        value: What :func:`parse_json` returned.
        where: What the value is called in errors, such as "run.json: protocol.episodes".

    Returns:
        The value; a whole number as a float where that is expected, a list as a tuple, and an
        object as an instance of the dataclass.

    Raises:
        ValueError: It, or a part of it, is of another kind; or a dataclass refuses it.

    Example:
        >>> as_type(tuple[float, ...], [1, 2.5], "means")
        (1.0, 2.5)
        >>> as_type(dict[str, int], {"a": True}, "counts")
        Traceback (most recent call last):
        ...
        ValueError: counts.a is True, expected a whole number of 64 bits
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(parts, value, where)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(kinds) == len(value):
            numbered = enumerate(zip(kinds, value, strict=True))
            return tuple(as_type(of, each, f"{where}[{n}]") for n, (of, each) in numbered)
    elif origin in (list, Sequence) and isinstance(value, list):
        return [as_type(parts[0], each, f"{where}[{n}]") for n, each in enumerate(value)]
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {key: as_type(parts[1], each, f"{where}.{key}") for key, each in value.items()}
    elif kind is float and (isinstance(value, float) or _is_whole(value)):
        return float(value)
    elif _is_plain(kind, value) or (origin is Literal and value in parts):
        return value
    raise ValueError(f"{where} is {_shown(value)}, expected {_words(kind)}")


def reason_of(error: Exception) -> str:
    """What is wrong, in one line: a KeyError says a name alone, and some errors nothing at all."""
    said = " ".join(str(error).split())
    return f"no {said}" if isinstance(error, KeyError) else said or type(error).__name__


def _is_plain(kind: Any, value: Any) -> bool:
    return _is_whole(value) if kind is int else kind in (bool, str) and type(value) is kind


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    for kind in kinds[:-1]:
        try:
            return as_type(kind, value, where)
        except ValueError:
            continue
    return as_type(kinds[-1], value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_shown(value)}, expected {_words(kind)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if unknown := sorted(set(value) - set(fields)):
        raise ValueError(
            f"{where} has unknown fields {_shown(unknown)}, expected some of {sorted(fields)}: a "
            "newer gato-gym may have written them"
        )
    missing = dataclasses.MISSING
    required = {n for n, f in fields.items() if f.default is f.default_factory is missing}
    if lacking := sorted(required - set(value)):
        raise ValueError(f"{where} has no {', '.join(lacking)}, expected {sorted(fields)}")
    kinds = typing.get_type_hints(kind)
    return kind(**{n: as_type(kinds[n], each, f"{where}.{n}") for n, each in value.items()})


def _words(kind: Any) -> str:
    parts = get_args(kind)
    plain = {
        bool: "true or false", int: "a whole number of 64 bits", float: "a number", str: "a text",
    }  # fmt: skip
    if kind in plain:
        return plain[kind]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if get_origin(kind) is tuple and parts[1:] != (...,):
        return f"a list of {len(parts)}"
    if get_origin(kind) in (tuple, list, Sequence):
        return f"a list, each {_words(parts[0])}"
    return "an object"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _too_large(path: Path, size: str, largest: int) -> str:
    return f"{path} has {size} bytes, expected at most {largest}: take a fresh copy"


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; what became a named pipe meanwhile does not wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
