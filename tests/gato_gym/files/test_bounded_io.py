"""Files that others may have written are read within bounds, and JSON by type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from gato_gym.files.bounded_io import (
    as_type,
    check_file,
    plain_json,
    read_json,
    read_text,
    read_versioned,
)


class Refused(ValueError):
    """What the caller raises."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 101 + b"]" * 101, "more than 100 deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "more than 100 deep"),
        (b"[" * 200_000, "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b'"' + b"x" * 999_999 + b'"', "has 1000001 bytes, expected at most 1000000"),
    ],
)
def test_json_beyond_its_bounds_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(Refused, match=said):
        read_json(path, largest=1_000_000, error=Refused)


def test_json_at_its_bounds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100 + "]" * 100)
    value = read_json(path, largest=200)
    for _ in range(99):
        (value,) = value
    assert value == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no a.json: expected the folder of a thing"),
        ("[]", "names no format version: it is not a thing's"),
        ('{"format": "1"}', "names no format version: it is not a thing's"),
        ('{"format": 3}', "has thing format 3 and this gato-gym reads up to 2: upgrade gato-gym"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Refused, match=said):
        read_versioned(path, "thing", newest=2, largest=100, error=Refused)


@dataclass(frozen=True)
class Point:
    """What JSON is read as."""

    x: float
    names: tuple[str, ...] = ()
    seed: int | None = None
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"x is {self.x}, expected 0 or more")


def test_json_becomes_what_its_reader_expects() -> None:
    value = {"x": 1, "names": ["p", "q"], "seed": None, "mode": "b"}
    point = as_type(Point, value, "a.json")
    assert point == Point(1.0, ("p", "q"), None, "b")
    assert isinstance(point.x, float)
    assert as_type(dict[str, list[int]], {"a": [1]}, "a") == {"a": [1]}
    assert as_type(tuple[str, int], ["a", 1], "a") == ("a", 1)
    assert as_type(Mapping[str, Any] | str, "text", "a") == "text"
    assert plain_json({1: (2, 3)}) == {"1": [2, 3]}


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (int, True, "f is True, expected a whole number of 64 bits"),
        (int, 1.0, "f is 1.0, expected a whole number"),
        (int, 2**63, "expected a whole number of 64 bits"),
        (float, 10**400, "expected a number"),
        (float, "1", "f is '1', expected a number"),
        (bool, "false", "f is 'false', expected true or false"),
        (bool, 0, "f is 0, expected true or false"),
        (str, None, "f is None, expected a text"),
        (str | None, 3, "f is 3, expected a text"),
        (tuple[str, ...], "ab", "f is 'ab', expected a list, each a text"),
        (tuple[str, ...], ["a", 1], r"f\[1\] is 1, expected a text"),
        (tuple[str, str], ["a"], "expected a list of 2"),
        (list[int], {"a": 1}, "expected a list, each a whole number"),
        (dict[str, int], [1], "expected an object"),
        (dict[str, dict[str, int]], {"a": {"b": "c"}}, r"f\.a\.b is 'c', expected a whole"),
        (Point, [], "expected an object"),
        (Point, {"x": 1, "y": 1}, r"f has unknown fields \['y'\]"),
        (Point, {"mode": "a"}, "f has no x, expected"),
        (Point, {"x": 1, "mode": "c"}, r"f\.mode is 'c', expected one of 'a', 'b'"),
        (Point, {"x": -1}, "x is -1.0, expected 0 or more"),
        (str, list(range(10_000)), "…, expected a text"),
    ],
)
def test_values_of_other_kinds_are_named(kind: Any, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        as_type(kind, value, "f")
    assert len(str(refused.value)) < 300


def test_text_is_read_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode())
    assert read_text(path, largest=2) == "é"
    with pytest.raises(Refused, match="has 2 bytes, expected at most 1"):
        read_text(path, largest=1, error=Refused)
    path.write_bytes(b"\xff")
    with pytest.raises(Refused, match="is not UTF-8 text"):
        read_text(path, error=Refused)
    with pytest.raises(Refused, match="is a folder, expected a regular file"):
        check_file(tmp_path, error=Refused)
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "none")
