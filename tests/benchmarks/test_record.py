"""A run's folder: resumed without loss, refused when it is another run's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.protocol import BenchmarkError, EpisodeKey, EpisodeResult, Protocol, TaskRules
from benchmarks.record import Record, RunHeader

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
    resumed = Record(tmp_path / "run", HEADER, resume=True)
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
    assert list(Record(tmp_path / "run", HEADER, resume=True).results) == keys


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
    assert len(Record(tmp_path / "run", other, resume=True).results) == 2


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
