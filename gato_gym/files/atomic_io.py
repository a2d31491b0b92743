"""Files and folders that nobody sees half written.

* :func:`appearing` -- a folder that is filled under another name and takes its place when whole.
* :func:`check_replaceable` -- refuses to replace a folder that holds what is not its writer's.
* :func:`surviving` -- the folder, or what a process left of it that was killed in between.
* :func:`appearing_file` -- a file that takes its place when it is whole.
* :func:`write_whole`, :func:`write_json` -- a text file, bytes, or JSON, written so.
* :func:`no_link` -- opens files, but not what links point to.
* :func:`inside` -- a file that another file of its folder names; :func:`file_name` -- of any text.

Whatever is replaced has one writer at a time; another one waits.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gato_gym.files.folder_lock import PATIENCE, FolderLock


@contextmanager
def appearing(folder: Path, *, own: Sequence[str], wait: float = PATIENCE) -> Iterator[Path]:
    """A folder to fill; it takes ``folder``'s place when the block ends without an error.

    Linux swaps the two in one step. Elsewhere the folder that is there is moved aside first, so
    that a process killed at any moment leaves a whole one, under its own name or aside, where
    :func:`surviving` finds it.

    Args:
        folder: What appears. Its parents are made.
        own: As in :func:`check_replaceable`.
        wait: Seconds to wait for another writer.

    Yields:
        An empty folder beside it.

    Raises:
        FileExistsError: A folder is there that is not the writer's, see :func:`check_replaceable`.
        FolderInUseError: Another process still writes it.
    """
    folder = Path(os.path.abspath(folder))
    with FolderLock(folder, beside=True, wait=wait):
        aside = _beside(folder, "previous")
        if surviving(folder) == aside:
            os.replace(aside, folder)
        check_replaceable(folder, own)
        partial = _new_partial(folder)
        _remove(aside)
        partial.mkdir()
        try:
            yield partial
            for path in partial.rglob("*"):
                if path.is_file():
                    _write_through(path)
            check_replaceable(folder, own)
            if os.path.lexists(folder) and not _exchanged(partial, folder):
                os.replace(folder, aside)
            if not os.path.lexists(folder):
                os.replace(partial, folder)
        finally:
            _remove(partial)
        _remove(aside)


def check_replaceable(folder: Path, own: Sequence[str]) -> None:
    """Refuse to replace a folder that holds anything but its writer's files.

    Args:
        folder: What is to be replaced; that it is not there, or is empty, is fine.
        own: Names of the writer's files from the folder on, ``*`` for any. The first is always
            among them.

    Raises:
        FileExistsError: The folder holds something else, or is a file.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder: choose another place")
    others = (n for n in _entries(folder) if not any(fnmatchcase(n, each) for each in own))
    if foreign := list(islice(others, 3)):
        raise FileExistsError(
            f"{folder} holds {', '.join(foreign)}, expected nothing but {', '.join(own)}, which "
            "are replaced: choose another folder, or move these files away"
        )
    if next(_entries(folder), None) is not None and not (folder / own[0]).is_file():
        raise FileExistsError(
            f"{folder} holds files and no {own[0]}, expected one that may be replaced: choose "
            "another folder"
        )


def _entries(folder: Path) -> Iterator[str]:
    """Files and links under a folder, named from it on; no link is followed."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted([*files, *links]):
            yield Path(place, name).relative_to(folder).as_posix()


def surviving(folder: Path) -> Path:
    """The folder, or where it is missing the one that a killed process had moved aside."""
    if folder.exists():
        return folder
    aside = _beside(folder, "previous")
    return aside if aside.exists() else folder


@contextmanager
def appearing_file(path: Path) -> Iterator[Path]:
    """A file to write; it takes ``path``'s place when the block ends without an error.

    A link that is there is replaced, not followed.

    Args:
        path: What appears. Its folder is there.

    Yields:
        An empty file beside it, ``.NAME.PID.partial``.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    with FolderLock(path, beside=True, wait=PATIENCE):
        partial = _new_partial(path)
        try:
            partial.touch(exist_ok=False)
            yield partial
            _write_through(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file; who reads it meanwhile finds what was there before, or all of it.

    Args:
        path: The file. Its folder is there.
        content: What it is to hold; text in UTF-8.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    with appearing_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as :func:`write_whole` writes."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def no_link(path: str, flags: int) -> int:
    """An ``opener`` for ``open`` that refuses a link, which may point anywhere.

    Raises:
        OSError: The file is a link, or cannot be opened.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def inside(folder: Path, name: str) -> Path | None:
    """The file that another file of a folder names, links followed; None where it lies outside.

    Args:
        folder: Where the name is read from.
        name: A path from the folder on.

    Example:
        >>> inside(Path(__file__).parent, Path(__file__).name) == Path(__file__)
        True
        >>> inside(Path(__file__).parent, "../../etc/passwd") is None
        True
    """
    try:
        path = (folder / name).resolve()
        within = path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a null byte
        return None
    return folder / name if within else None


def file_name(text: str) -> str:
    """A file's name that stands for any text, and never for another folder.

    Example:
        >>> file_name("ALE/Pong-v5"), file_name("..")
        ('ALE%2FPong-v5', '%2E%2E')
    """
    name = quote(text, safe="")
    return name if name.strip(".") else name.replace(".", "%2E")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")


def _new_partial(path: Path) -> Path:
    """Where a file or folder is filled; what killed processes left of others is removed."""
    partial = re.compile(rf"\.{re.escape(path.name)}\.\d+\.partial")
    for left in path.parent.iterdir():
        if partial.fullmatch(left.name):
            _remove(left)
    return _beside(path, f"{os.getpid()}.partial")


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two paths could be swapped in one step; Linux can, on most file systems."""
    if sys.platform != "linux":
        return False
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2
    names = os.fsencode(one), os.fsencode(other)
    return swap is not None and swap(here, names[0], here, names[1], exchange) == 0


def _write_through(path: Path) -> None:
    """Have the disk hold a file, so that a power cut after the rename finds it whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
