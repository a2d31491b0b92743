"""One writer to a folder at a time.

* :class:`FolderLock` -- held while a run records; names its process in the file ``lock``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.protocol import BenchmarkError
from gato_gym.bounded_io import read_json

NAME = "lock"


class FolderLock:
    """The right to write to a folder, from construction to :meth:`release`.

    The operating system releases the lock when its process ends in whatever way, so a file that a
    killed run left behind stops nobody.

    Args:
        folder: Which; made when it is not there.

    Raises:
        BenchmarkError: Another process is writing to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = FolderLock(Path(folder) / "run")
        ...     lock.release()
        ...     (Path(folder) / "run").exists()
        False
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._made_folder = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise BenchmarkError(
                f"{folder} is being written to by {self._holder()}, expected nobody: wait for it "
                f"to end, or pass another --output; if that process is gone, delete {self.path}"
            ) from None
        with contextlib.suppress(OSError):  # Windows lets nobody write to a file that is locked
            self.path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))

    def _holder(self) -> str:
        try:
            holder = read_json(self.path, largest=4096)
            return f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def release(self) -> None:
        """Let others write. A folder that was made for the lock and is still empty goes with it."""
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._lock.release()
        if self._made_folder:
            with contextlib.suppress(OSError):  # there is something in it
                self.path.parent.rmdir()
