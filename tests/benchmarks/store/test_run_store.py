"""A run's folder: resumed without loss, refused when it is another run's."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.protocol import BenchmarkError, Protocol, TaskRules
from benchmarks.store import run_store as record_module
from benchmarks.store.run_store import Record, RecordError, RunHeader, read_run
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult

PROTOCOL = Protocol(
    suite="babyai",
    tasks={name: TaskRules(name, 10) for name in ("babyai-a", "babyai-b")},
    episodes=2,
    seed=0,
    simulators={},
)
HEADER = RunHeader(PROTOCOL, {"name": "random", "weights": None})


def played(key: EpisodeKey) -> EpisodeResult:
    return EpisodeResult(key, 1.5, 3, True, True, 0.25)


def record_two(folder: Path) -> list[EpisodeKey]:
    record = Record(folder, HEADER, resume=False)
    keys = [PROTOCOL.episodes_of("babyai-a")[1], PROTOCOL.episodes_of("babyai-b")[0]]
    for key in keys:
        record.append(played(key))
    record.close()
    return keys


def test_resume_knows_what_is_recorded_and_what_is_not(tmp_path: Path) -> None:
    keys = record_two(tmp_path / "run")
    with Record(tmp_path / "run", HEADER, resume=True) as resumed:
        assert resumed.results == {key: played(key) for key in keys}
        assert resumed.pending() == {
            "babyai-a": [PROTOCOL.episodes_of("babyai-a")[0]],
            "babyai-b": [PROTOCOL.episodes_of("babyai-b")[1]],
        }


def test_an_episode_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    record = Record(tmp_path / "run", HEADER, resume=False)
    key = PROTOCOL.episodes_of("babyai-a")[0]
    record.append(played(key))
    line = json.loads((tmp_path / "run" / "results.jsonl").read_text())
    assert line["task"] == "babyai-a"
    assert line["seed"] == key.seed
    assert line["return"] == 1.5
    record.close()


def test_a_line_cut_short_is_dropped_and_the_file_stays_readable(tmp_path: Path) -> None:
    keys = record_two(tmp_path / "run")
    path = tmp_path / "run" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    resumed = Record(tmp_path / "run", HEADER, resume=True)
    assert list(resumed.results) == keys[:1]
    resumed.append(played(keys[1]))
    resumed.close()
    with Record(tmp_path / "run", HEADER, resume=True) as again:
        assert list(again.results) == keys


def test_nothing_is_written_before_the_first_episode(tmp_path: Path) -> None:
    Record(tmp_path / "run", HEADER, resume=True).close()
    assert not (tmp_path / "run").exists()


def test_a_folder_with_content_needs_resume(tmp_path: Path) -> None:
    record_two(tmp_path)
    with pytest.raises(BenchmarkError, match=r"is not empty.*--resume.*--output"):
        Record(tmp_path, HEADER, resume=False)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (
            dataclasses.replace(HEADER, protocol=dataclasses.replace(PROTOCOL, seed=4)),
            r"protocol\.seed: 0 -> 4",
        ),
        (
            dataclasses.replace(HEADER, policy={"name": "expert", "weights": None}),
            r"policy\.name: random -> expert",
        ),
    ],
)
def test_resume_refuses_another_run_and_says_what_differs(
    tmp_path: Path, header: RunHeader, said: str
) -> None:
    record_two(tmp_path / "run")
    with pytest.raises(BenchmarkError, match=said):
        Record(tmp_path / "run", header, resume=True)


def test_other_library_versions_do_not_stop_a_resume(tmp_path: Path) -> None:
    record_two(tmp_path / "run")
    other = dataclasses.replace(HEADER, versions={"python": "9.9"})
    with Record(tmp_path / "run", other, resume=True) as resumed:
        assert len(resumed.results) == 2


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchmarkError, match=r"run\.json cannot be read"):
        Record(tmp_path, HEADER, resume=True)


@pytest.mark.parametrize("line", ['{"task": "babyai-a"}', "nonsense"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    record_two(tmp_path / "run")
    with (tmp_path / "run" / "results.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BenchmarkError, match="line 3"):
        Record(tmp_path / "run", HEADER, resume=True)


def test_an_episode_with_another_seed_is_refused(tmp_path: Path) -> None:
    record_two(tmp_path / "run")
    with (tmp_path / "run" / "results.jsonl").open("a") as file:
        file.write(json.dumps(played(EpisodeKey("babyai-a", 0, 123)).to_json()) + "\n")
    with pytest.raises(BenchmarkError, match="is no episode of this protocol"):
        Record(tmp_path / "run", HEADER, resume=True)


def test_a_failed_episode_is_recorded_and_tried_again(tmp_path: Path) -> None:
    key, other = PROTOCOL.episodes_of("babyai-a")
    failure = EpisodeFailure(key, "Traceback …\nOSError: broken", length=3, seconds=0.5)
    with Record(tmp_path / "run", HEADER, resume=False) as record:
        record.append(failure)
        record.append(played(other))
    with Record(tmp_path / "run", HEADER, resume=True) as resumed:
        assert resumed.failures == {key: failure}
        assert resumed.pending()["babyai-a"] == [key]
        resumed.append(played(key))
        assert resumed.failures == {}
    run = read_run(tmp_path / "run")
    assert run.failures == {}
    assert run.results == {key: played(key), other: played(other)}
    assert (tmp_path / "run" / "results.jsonl").read_text().count("OSError: broken") == 1


class FullDisk:
    """A file that takes some bytes and then no more."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(bytes(content[: self.room]))
        self.room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    first, second = PROTOCOL.episodes_of("babyai-a")
    record = Record(tmp_path / "run", HEADER, resume=False)
    record.append(played(first))
    record._lines = FullDisk(record._lines, room=20)
    with pytest.raises(RecordError, match=r"No space left.*make room, then resume"):
        record.append(played(second))
    record.close()
    assert (tmp_path / "run" / "results.jsonl").read_bytes().endswith(b"}\n")
    with Record(tmp_path / "run", HEADER, resume=True) as resumed:
        assert list(resumed.results) == [first]
        resumed.append(played(second))
    assert list(read_run(tmp_path / "run").results) == [first, second]


def test_a_disk_that_is_full_from_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Path, "write_bytes", full)
        record = Record(tmp_path / "run", HEADER, resume=False)
        with pytest.raises(RecordError, match="No space left"):
            record.append(played(PROTOCOL.episodes_of("babyai-a")[0]))
        record.close()
    assert not (tmp_path / "run").exists()
    Record(tmp_path / "run", HEADER, resume=True).close()


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        Record(tmp_path / "run", HEADER, resume=False),
        pytest.raises(BenchmarkError, match=r"is being written to by process \d+ .*--output"),
    ):
        Record(tmp_path / "run", HEADER, resume=True)
    record_two(tmp_path / "run")


def test_runs_of_before_are_read(tmp_path: Path) -> None:
    keys = record_two(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    old = json.loads(path.read_text())
    del old["command"], old["environment"]
    path.write_text(json.dumps(old))
    run = read_run(tmp_path / "run")
    assert list(run.results) == keys
    assert run.header.command is None
    assert run.header.environment == {}
    with Record(tmp_path / "run", HEADER, resume=True) as resumed:
        assert list(resumed.results) == keys


def test_what_is_no_run_or_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="expected the folder of a run"):
        read_run(tmp_path)
    record_two(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(BenchmarkError, match=r"is of format 99, expected 1"):
        read_run(tmp_path / "run")


def test_the_environment_is_written_down(tmp_path: Path) -> None:
    record_two(tmp_path / "run")
    environment = read_run(tmp_path / "run").header.environment
    assert environment["packages"]["numpy"] == record_module.metadata.version("numpy")
    assert environment["cores"] >= 1
