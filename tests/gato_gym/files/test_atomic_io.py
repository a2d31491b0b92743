"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from gato_gym.files.atomic_io import appearing_file


class Refused(ValueError):
    """What the caller raises."""


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
