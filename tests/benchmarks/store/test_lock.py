"""One writer to a folder, and none that is dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.protocol import BenchmarkError
from benchmarks.store import lock
from benchmarks.store.lock import FolderLock

HOLD = """
import sys
from pathlib import Path
from benchmarks.store.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def dead_process() -> int:
    """A process number that was in use until now."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_another_process_is_refused_and_a_killed_one_is_taken_over_from(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BenchmarkError, match=f"by process {process.pid} on"):
        FolderLock(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    assert (tmp_path / "lock").exists()
    held = FolderLock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    held.release()
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_of_the_system_the_process_number_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    for holder, taken in (
        ({"pid": dead_process(), "host": socket.gethostname()}, False),
        ({"pid": os.getppid(), "host": socket.gethostname()}, True),
        ({"pid": 1, "host": "elsewhere"}, True),
        ("nonsense", False),
    ):
        (tmp_path / "lock").write_text(json.dumps(holder))
        if taken:
            with pytest.raises(BenchmarkError, match="expected nobody"):
                FolderLock(tmp_path)
        else:
            FolderLock(tmp_path).release()


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    FolderLock(tmp_path / "run").release()
    assert not (tmp_path / "run").exists()
    held = FolderLock(tmp_path / "run")
    (tmp_path / "run" / "results.jsonl").touch()
    held.release()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.jsonl"]
