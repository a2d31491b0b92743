"""JSON that others may have written is read within bounds; files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from gato_gym.atomic_io import appearing_file, read_json, read_versioned


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


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")

    def fail() -> None:
        with appearing_file(path) as partial:
            partial.write_bytes(b"half")
            raise Refused

    with pytest.raises(Refused):
        fail()
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]
    with appearing_file(path) as partial:
        partial.write_bytes(b"after")
        assert path.read_bytes() == b"before"
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"after"]
