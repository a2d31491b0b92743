"""One writer to a folder, and none that is dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gato_gym.files.folder_lock import FolderInUseError, FolderLock

HOLD = """
import sys
from pathlib import Path
from gato_gym.files.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


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
    with pytest.raises(FolderInUseError, match=f"by process {process.pid} on"):
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


def test_what_a_dead_run_left_stops_nobody(tmp_path: Path) -> None:
    for left in ({"pid": os.getppid(), "host": "elsewhere"}, "nonsense"):
        (tmp_path / "lock").write_text(json.dumps(left))
        FolderLock(tmp_path).release()
        assert list(tmp_path.iterdir()) == []


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    FolderLock(tmp_path / "run").release()
    assert not (tmp_path / "run").exists()
    held = FolderLock(tmp_path / "run")
    (tmp_path / "run" / "results.jsonl").touch()
    held.release()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.jsonl"]


def test_a_file_in_the_way_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("kept")
    for place in (tmp_path / "notes.md", tmp_path / "notes.md" / "run"):
        with pytest.raises(NotADirectoryError, match="a file is in its way: expected a folder"):
            FolderLock(place)
    assert (tmp_path / "notes.md").read_text() == "kept"
