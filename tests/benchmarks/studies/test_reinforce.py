"""The study of reinforcement: its command at a tiny size, and a table that is right."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from benchmarks.references import measured
from benchmarks.studies import reinforce
from benchmarks.studies.reinforce import CASES, Case, largest_fall, main, rows_of
from policies.gato.checkpoint import read_tasks
from policies.gato.checkpoint_folder import locate_checkpoint

TASK, OTHER = "mujoco-pendulum", "mujoco-reacher"


def returns_at(task: str, score: float) -> dict[str, Any]:
    """Two returns whose normalised mean is ``score``, by the references' own means."""
    reference = measured("mujoco")[task]
    low, high = reference.random, reference.expert
    assert low is not None
    assert high is not None
    middle = low.mean + score * (high.mean - low.mean)
    return {"returns": [middle - 1.0, middle + 1.0], "successes": None}


def report(before: float, after: float, other: tuple[float, float], steps: int) -> dict[str, Any]:
    return {
        "task": TASK,
        "steps": steps,
        "minutes": 2.0,
        "tasks": {
            TASK: {"before": returns_at(TASK, before), "after": returns_at(TASK, after)},
            OTHER: {"before": returns_at(OTHER, other[0]), "after": returns_at(OTHER, other[1])},
        },
    }


def test_the_table_has_gains_and_what_others_lost() -> None:
    first, second = report(0.2, 0.6, (0.9, 0.8), 100), report(0.3, 0.9, (0.9, 0.95), 200)
    (row,) = rows_of({("mujoco", 0): first, ("mujoco", 1): second})
    assert (row["task"], row["seeds"], row["steps"]) == (TASK, 2, 150)
    assert row["score_before"] == pytest.approx(0.25)
    assert row["score_after"] == pytest.approx(0.75)
    assert (row["low"], row["high"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert row["lost"] == pytest.approx((0.1 - 0.05) / 2)
    assert row["success_after"] is None
    for when, successes in (("before", [True, False]), ("after", [True, True])):
        first["tasks"][TASK][when]["successes"] = successes
    (row,) = rows_of({("mujoco", 0): first, ("mujoco", 1): second})
    assert (row["success_before"], row["success_after"]) == (0.5, 1.0)
    assert largest_fall({**first, "tasks": {TASK: first["tasks"][TASK]}}) is None


def test_gato_mini_knows_the_tasks_of_its_cases() -> None:
    known = read_tasks(locate_checkpoint("gato-mini"))
    of_mini = [case for case in CASES.values() if not case.demonstrated]
    assert len(of_mini) == 2
    for case in of_mini:
        assert {case.task, *case.checks} <= known.keys()
        assert case.task not in case.checks


def test_one_demonstration_then_ppo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"num_envs": 2, "rollout": 32, "batch_size": 32, "epochs": 1, "device": "cpu"}
    case = Case(TASK, "one demonstration", 64, changes=tiny, demonstrated=True)
    monkeypatch.setattr(reinforce, "CASES", {"mujoco": case})
    plain = reinforce.demonstrated
    monkeypatch.setattr(reinforce, "demonstrated", lambda *a, **k: plain(*a, **k, steps=3))
    page = tmp_path / "page.md"
    page.write_text("<!-- reinforce: begin -->\n<!-- reinforce: end -->\n")
    main(cases=("mujoco",), seeds=1, episodes=2, work=tmp_path, page=page)
    with (tmp_path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["task"], row["seeds"], row["steps"]) == (TASK, "1", "64")
    assert float(row["before"]) > 0
    assert f"| {TASK} | 1 |" in capsys.readouterr().out
    assert f"| {TASK} | 1 |" in page.read_text()
    monkeypatch.setattr(reinforce, "reinforce", None)  # what is finished is kept
    main(cases=("mujoco",), seeds=1, episodes=2, work=tmp_path, page=page)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cases names \\['chess'\\]: expected some of"):
        main(cases=("chess",), work=tmp_path)
