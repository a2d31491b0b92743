"""Several policies side by side: the same episodes, averages over what all played, each pair."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from html_pages import checked

from benchmarks import references
from benchmarks.protocol import BenchmarkError, Protocol, TaskRules
from benchmarks.references import Reference, TaskReferences
from benchmarks.report.side_by_side import read_beside, render_page
from benchmarks.run import main
from benchmarks.store.run_store import Record, RunHeader
from policies.rollout.outcomes import EpisodeResult

TASKS = ("babyai-a", "babyai-b", "babyai-c")
PROTOCOL = Protocol("babyai", {task: TaskRules(task, None) for task in TASKS}, 4, 0, {})


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random plays 0 and the expert 10, except in c, which has no expert."""
    expert_returns: Mapping[str, TaskReferences] = {
        task: TaskReferences(*(Reference(mean, 0, 1, None, "") for mean in (0.0, 10.0)))
        for task in TASKS[:2]
    }
    monkeypatch.setattr(references, "measured", lambda suite: expert_returns)


def run_of(folder: Path, returns: Mapping[str, float], protocol: Protocol = PROTOCOL) -> Path:
    left_out = {task: "too <hard>" for task in protocol.tasks if task not in returns}
    header = RunHeader(protocol, {"name": folder.name}, left_out=left_out)
    with Record(folder, header, resume=False) as record:
        for task, value in returns.items():
            for key in protocol.episodes_of(task):
                record.append(EpisodeResult(key, value + key.index, 3, None, True, 0.1))
    return folder


def test_averages_are_over_tasks_that_all_played(hand: None, tmp_path: Path) -> None:
    folders = [
        run_of(tmp_path / "good", {"babyai-a": 8.5, "babyai-b": 4.5, "babyai-c": 1.0}),
        run_of(tmp_path / "fair", {"babyai-a": 6.5, "babyai-c": 9.0}),
        run_of(tmp_path / "poor", {"babyai-a": 0.5, "babyai-b": 8.5, "babyai-c": 9.0}),
    ]
    beside = read_beside(folders)
    assert beside.common == ("babyai-a", "babyai-c")
    # Episodes return what is given, plus 0, 1, 2 and 3: 1.5 more on average, of 10.
    means = {side.name: side.averages["normalised mean"].value for side in beside.sides}
    assert means == pytest.approx({"good": 1.0, "fair": 0.8, "poor": 0.2})
    assert all(side.averages["normalised mean"].tasks == 1 for side in beside.sides)
    pairs = {(a, b): pair for a, b, pair in beside.pairs}
    assert list(pairs) == [("good", "fair"), ("good", "poor"), ("fair", "poor")]
    # good against fair in a: of 16 pairs of 8.5..11.5 and 6.5..9.5, fair is above in 1, equal in 2
    assert pairs["good", "fair"].improvement is not None
    assert pairs["good", "fair"].improvement[0] == pytest.approx((1 + 2 / 2) / 16)
    poor = {task.task: task.difference for task in pairs["good", "poor"].tasks if task.normalised}
    assert poor == pytest.approx({"babyai-a": -0.8, "babyai-b": 0.4})
    row = {row.task: row for row in beside.rows}["babyai-b"]
    assert row.figures[1] is None
    assert row.notes[1] == "too <hard>"
    page = checked(render_page(beside))
    assert page.addresses == []
    for shown in ("not played: too <hard>", PROTOCOL.hash, "0.125", "1.000", "return 2.50"):
        assert shown in page.text


def test_policies_without_a_common_task_have_no_averages(hand: None, tmp_path: Path) -> None:
    folders = [
        run_of(tmp_path / "one", {"babyai-a": 1.0}),
        run_of(tmp_path / "other", {"babyai-b": 1.0}),
    ]
    beside = read_beside(folders)
    assert beside.common == ()
    assert beside.pairs == ()
    assert "one and other have no task in common" in beside.notes
    assert [side.averages for side in beside.sides] == [{}, {}]
    checked(render_page(beside))


def test_different_protocols_are_not_put_side_by_side(tmp_path: Path) -> None:
    other = dataclasses.replace(PROTOCOL, rules="0" * 16)
    folders = [
        run_of(tmp_path / "one", {"babyai-a": 1.0}),
        run_of(tmp_path / "other", {"babyai-a": 1.0}, other),
    ]
    with pytest.raises(BenchmarkError, match=r"different protocols \(protocol\.rules"):
        read_beside(folders)


def test_the_command_takes_several_policies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "both"
    command = ["--suite", "babyai", "--tasks", "go-to-obj", "--episodes", "2", "--workers", "1"]
    command += ["--policy", "expert", "--policy", "random", "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "side by side on babyai" in printed
    assert "random over expert" in printed
    assert str(output / "comparison.html") in printed
    assert sorted(path.name for path in output.iterdir()) == [
        *("comparison.html", "comparison.json", "expert", "random")
    ]
    written = json.loads((output / "comparison.json").read_text())
    assert [each["name"] for each in written["policies"]] == ["expert", "random"]
    (pair,) = written["pairs"]
    assert (pair["a"], pair["b"]) == ("expert", "random")
    deterministic = [
        json.loads((output / name / "run.json").read_text())["policy"]["deterministic"]
        for name in ("expert", "random")
    ]
    assert deterministic == [None, False]
    before = (output / "expert" / "results.jsonl").read_text()
    assert main([*command, "--resume"]) == 0
    assert (output / "expert" / "results.jsonl").read_text() == before
    assert np.isfinite(written["policies"][0]["averages"]["normalised mean"]["value"])


def test_a_mistake_in_the_last_policy_is_told_before_the_first_plays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--suite", "babyai", "--tasks", "go-to-obj", "--output", str(tmp_path / "run")]
    assert main([*command, "--policy", "random", "--policy", "exprt"]) == 2
    assert "did you mean expert?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--policy", "random", "--policy", "random"]) == 2
    assert "--policy names one twice" in capsys.readouterr().err
