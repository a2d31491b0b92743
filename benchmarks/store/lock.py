"""One writer to a folder at a time.

* :class:`FolderLock` -- held while a run records; names its process in the file ``lock``.

The operating system releases the lock when its process ends in whatever way, so a file that a
killed run left behind stops nobody. Where there are no such locks (Windows), or on another
machine, the process number in the file decides.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import IO, Any

from benchmarks.protocol import BenchmarkError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "lock"


class FolderLock:
    """The right to write to a folder, from construction to :meth:`release`.

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
        while True:
            file = self.path.open("a+")
            try:
                self._take(file)
                # Whoever held it before may have removed the file after it was opened here.
                if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self._stat()):
                    break
            except BaseException:
                file.close()
                raise
            file.close()
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        self._file: IO[str] | None = file

    def _stat(self) -> os.stat_result:
        try:
            return self.path.stat()
        except FileNotFoundError:
            return os.stat_result((0,) * 10)

    def _take(self, file: IO[str]) -> None:
        file.seek(0)
        try:
            holder: dict[str, Any] = dict(json.loads(file.read()))
        except (ValueError, TypeError):
            holder = {}
        if fcntl is None:
            if _alive(holder):
                raise self._refusal(holder)
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(holder) from None
        except OSError:  # a file system without locks
            if _alive(holder):
                raise self._refusal(holder) from None

    def _refusal(self, holder: dict[str, Any]) -> BenchmarkError:
        who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
        return BenchmarkError(
            f"{self.path.parent} is being written to by {who}, expected nobody: wait for it to "
            f"end, or pass another --output; if that process is gone, delete {self.path}"
        )

    def release(self) -> None:
        """Let others write. A folder that was made for the lock and is still empty goes with it."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with contextlib.suppress(OSError):
            self.path.unlink()
        file.close()
        if self._made_folder:
            with contextlib.suppress(OSError):  # there is something in it
                self.path.parent.rmdir()


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock names may still be there."""
    if not isinstance(holder.get("pid"), int):
        return False
    if holder.get("host") != socket.gethostname():
        return True  # nobody here can tell
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
