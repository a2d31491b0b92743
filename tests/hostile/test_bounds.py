"""A small file from a stranger takes neither memory, nor disk, nor time without bound."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gato_gym.bounded_io import read_bytes, read_json, read_text

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json])
def test_a_named_pipe_is_no_file(tmp_path: Path, read: object) -> None:
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="is a pipe, a socket or a device, expected a regular"):
        read(pipe)  # type: ignore[operator]


def test_an_endless_device_behind_a_link_is_no_file(tmp_path: Path) -> None:
    link = tmp_path / "book.txt"
    link.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
        read_text(link)


def test_a_file_that_says_it_is_empty_is_read_to_its_limit() -> None:
    path = Path("/proc/self/status")  # its size is 0
    assert path.stat().st_size == 0
    assert read_bytes(path).startswith(b"Name:")
    with pytest.raises(ValueError, match="has more than 10 bytes, expected at most 10"):
        read_bytes(path, largest=10)


def test_there_is_one_reader_of_json_and_of_texts() -> None:
    reads = re.compile(r"\bjson\.loads?\(|\.read_text\(|\.read_bytes\(")
    places = [
        str(path.relative_to(ROOT))
        for package in ("gato_gym", "policies", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if reads.search(path.read_text())
    ]
    assert places == ["gato_gym/bounded_io.py"]
