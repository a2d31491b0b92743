"""Two runs side by side: paired differences by hand, regressions first, unlike runs refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import references
from benchmarks.compare import main
from benchmarks.protocol import BenchmarkError, Protocol, TaskRules
from benchmarks.references import Reference, TaskReferences
from benchmarks.report.compare import compare
from benchmarks.store.run_store import Record, RunHeader, read_run
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult

TASKS = ("babyai-better", "babyai-flagged", "babyai-same", "babyai-worse")
PROTOCOL = Protocol("babyai", {task: TaskRules(task, None) for task in TASKS}, 8, 0, {})
GAIN = {"babyai-better": 2.0, "babyai-flagged": 5.0, "babyai-same": 0.0, "babyai-worse": -1.0}


def reference(random: float, expert: float) -> TaskReferences:
    return TaskReferences(*(Reference(mean, 0.0, 10, None, "by hand") for mean in (random, expert)))


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    expert_returns: Mapping[str, TaskReferences] = {
        task: reference(0.0, -1.0 if task == "babyai-flagged" else 10.0) for task in TASKS
    }
    monkeypatch.setattr(references, "measured", lambda suite: expert_returns)


def start(key: EpisodeKey) -> float:
    """What an episode's start is worth to everybody."""
    return float(np.random.default_rng(key.seed).normal(scale=20.0))


def run_of(
    folder: Path, gain: Mapping[str, float], protocol: Protocol = PROTOCOL, failed: int = 0
) -> Path:
    policy = {"name": folder.name, "weights": None}
    with Record(folder, RunHeader(protocol, policy), resume=False) as record:
        for task in protocol.tasks:
            for key in protocol.episodes_of(task):
                if key.index < failed:
                    record.append(EpisodeFailure(key, "OSError: no"))
                    continue
                total = start(key) + gain.get(task, 0.0)
                record.append(EpisodeResult(key, total, 3, total > 0, True, 0.1))
    return folder


def test_differences_are_of_pairs_and_regressions_come_first(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", {}), run_of(tmp_path / "b", GAIN)
    comparison = compare(read_run(a), read_run(b))
    assert comparison.paired
    assert [task.task for task in comparison.tasks] == [
        *("babyai-worse", "babyai-same", "babyai-better", "babyai-flagged")
    ]
    worse, same, better, flagged = comparison.tasks
    for task, gain in ((worse, -0.1), (same, 0.0), (better, 0.2), (flagged, 5.0)):
        # Starts differ by twenty times the gain, and cancel: the interval has no width.
        assert task.difference == pytest.approx(gain)
        assert (task.low, task.high) == pytest.approx((gain, gain), abs=1e-9)
        assert task.episodes == 8
    assert not flagged.normalised
    averages = {average.name: average for average in comparison.averages}
    assert averages["normalised mean"].difference == pytest.approx(0.1 / 3)
    assert averages["normalised mean"].tasks == 3
    assert averages["success"].tasks == 4
    assert comparison.improvement is not None
    value, low, high = comparison.improvement
    assert 0.0 <= low <= value <= high <= 1.0


def test_the_other_way_round_is_the_negative(tmp_path: Path) -> None:
    a, b = (read_run(run_of(tmp_path / name, gain)) for name, gain in (("a", {}), ("b", GAIN)))
    forwards, backwards = compare(a, b), compare(b, a)
    assert {task.task: task.difference for task in forwards.tasks} == {
        task.task: pytest.approx(-task.difference) for task in backwards.tasks
    }
    assert forwards.improvement is not None
    assert backwards.improvement is not None
    assert forwards.improvement[0] == pytest.approx(1.0 - backwards.improvement[0])


def test_different_protocols_are_refused_by_name_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = {task: rules for task, rules in PROTOCOL.tasks.items() if task != "babyai-same"}
    other = dataclasses.replace(PROTOCOL, episodes=5, tasks=fewer)
    folders = [str(run_of(tmp_path / "a", {})), str(run_of(tmp_path / "b", GAIN, other))]
    assert main(folders) == 2
    error = capsys.readouterr().err
    assert "protocol.episodes: 8 -> 5" in error
    assert "protocol.tasks.babyai-same: A only" in error
    assert error.count("\n") == 1
    assert main([*folders, "--force", "--output", str(tmp_path / "out" / "compared.json")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: different protocols: protocol.episodes: 8 -> 5" in shown
    assert "not in both: babyai-same" in shown
    written = json.loads((tmp_path / "out" / "compared.json").read_text())
    assert [task["episodes"] for task in written["tasks"]] == [5, 5, 5]
    assert written["unlike"][0] == "protocol.episodes: 8 -> 5"


def test_other_seeds_are_compared_without_pairs(tmp_path: Path) -> None:
    other = dataclasses.replace(PROTOCOL, seed=1)
    a, b = run_of(tmp_path / "a", {}), run_of(tmp_path / "b", GAIN, other)
    comparison = compare(read_run(a), read_run(b), force=True)
    assert not comparison.paired
    (worse,) = [task for task in comparison.tasks if task.task == "babyai-worse"]
    assert worse.high - worse.low > 1.0
    assert any("unpaired" in note for note in comparison.notes)


def test_failed_episodes_are_told_and_their_pairs_left_out(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", {}), run_of(tmp_path / "b", GAIN, failed=2)
    comparison = compare(read_run(a), read_run(b))
    assert {task.episodes for task in comparison.tasks} == {6}
    assert comparison.tasks[0].difference == pytest.approx(-0.1)
    assert any("B: 8 episodes failed" in note for note in comparison.notes)


def test_runs_without_a_task_in_common_and_folders_without_a_run_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataclasses.replace(PROTOCOL, tasks={"babyai-x": TaskRules("x", None)})
    a, b = run_of(tmp_path / "a", {}), run_of(tmp_path / "b", {}, other)
    with pytest.raises(BenchmarkError, match="no task with episodes in common"):
        compare(read_run(a), read_run(b), force=True)
    assert main([str(a), str(tmp_path)]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err


def test_the_table_names_who_is_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    a, b = run_of(tmp_path / "a", {}), run_of(tmp_path / "b", GAIN)
    assert main([str(a), str(b)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in rows[0].strip("│").split("│")][3:] == [
        *("-0.100", "-0.100 to -0.100", "worse")
    ]
    assert rows[3].rstrip("│ ").endswith("better in returns")
