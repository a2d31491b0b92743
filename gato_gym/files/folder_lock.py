"""One writer to a folder, or to a file, at a time.

* :class:`FolderLock` -- held while somebody writes; its file names the process.
* :class:`FolderInUseError` -- another process writes there.
* :func:`make_folder` -- a folder to write to, unless a file is in its way.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from gato_gym.files.bounded_io import read_json

NAME = "lock"

PATIENCE = 600.0
"""Seconds to wait for a writer who replaces a file or a folder, which takes seconds."""


class FolderInUseError(ValueError):
    """Another process writes to the folder."""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        NotADirectoryError: A file is where one of them is to be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"{folder} cannot be a folder, as a file is in its way: expected a folder, or a new "
            "name for one"
        ) from None


class FolderLock:
    """The right to write to a folder, from construction to :meth:`release`; a context manager.

    The operating system releases the lock when its process ends in whatever way, so a file that a
    killed run left behind stops nobody.

    Args:
        folder: Which; made when it is not there.
        beside: Whether the lock lies beside it, as ``.NAME.lock``, because it is replaced as a
            whole. It may be a file then, and is not made.
        wait: Seconds to wait for another writer.

    Raises:
        FolderInUseError: Another process is writing to it.
        NotADirectoryError: A file is where the folder is to be.
        OSError: The lock cannot be written, or is a link.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with FolderLock(Path(folder) / "run"):
        ...         pass
        ...     (Path(folder) / "run").exists()
        False
    """

    def __init__(self, folder: Path, *, beside: bool = False, wait: float = 0.0) -> None:
        self.path = folder.with_name(f".{folder.name}.lock") if beside else folder / NAME
        self._made_folder = not self.path.parent.exists()
        make_folder(self.path.parent)
        self._lock = FileLock(self.path, timeout=wait, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise FolderInUseError(
                f"{folder} is being written to by {self._holder()}, expected nobody: wait for it "
                f"to end, or choose another place; if that process is gone, delete {self.path}"
            ) from None
        with contextlib.suppress(OSError):  # Windows lets nobody write to a file that is locked
            self.path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _holder(self) -> str:
        try:
            holder = read_json(self.path, largest=1000)
            return f"process {int(holder['pid'])} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def release(self) -> None:
        """Let others write. A folder that was made for the lock and is still empty goes with it."""
        if not self._lock.is_locked:
            return
        try:
            with contextlib.suppress(OSError):
                self.path.unlink()
        finally:
            self._lock.release()
        if self._made_folder:
            with contextlib.suppress(OSError):  # there is something in it
                self.path.parent.rmdir()
