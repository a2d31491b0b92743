"""The study of memory: its tasks have experts, and its table is right."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.studies import memory
from benchmarks.studies.memory import lines, main, markdown, returns
from benchmarks.studies.memory_tasks import TASKS, Catch, SmallTask


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_expert_plays_better_than_chance(task: SmallTask) -> None:
    expert, chance = (returns(task, policy, 3) for policy in ("expert", "random"))
    assert sum(expert) > sum(chance)


def test_a_ball_lands_where_the_expert_says() -> None:
    env = Catch(drift=True)
    for seed in range(20):
        env.reset(seed=seed)
        place, ended = env.landing(), False
        while not ended:
            *_, ended, _, _ = env.step(1)
        assert env.column == place


def test_a_line_is_the_share_of_the_way_from_random_to_the_expert() -> None:
    def unit(seed: int, what: str, *values: float) -> dict[str, object]:
        return {
            "task": "taxi", "memory": what, "seed": seed, "steps": 9, "loss": 0.5 + seed,
            "returns": values,
        }  # fmt: skip

    results = [unit(0, "none", 10, 10), unit(1, "none", 20, 20), unit(0, "all", -10, -10)]
    rows = lines(results, {"taxi": {"random": [-10, 10], "expert": [20, 20]}})
    assert [(row["memory"], row["seeds"], row["score"]) for row in rows] == [
        ("none", 2, 0.75), ("all", 1, -0.5),
    ]  # fmt: skip
    assert [(row["low"], row["high"]) for row in rows] == [(0.5, 1.0), (-0.5, -0.5)]
    assert rows[0]["loss"] == 1.0
    assert markdown(rows).splitlines() == [
        "| task | observation | needs | `none` | `all` |",
        "| --- | --- | --- | --- | --- |",
        "| taxi | one of 500 states | now | 0.75 (0.50 to 1.00) | -0.50 (-0.50 to -0.50) |",
    ]


def test_the_command_trains_plays_and_writes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "EPISODES", 12)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- memory: begin -->\n<!-- memory: end -->\nafter\n")

    def study() -> None:
        main(
            tasks=("corridor",), memories=("none", "all"), seeds=1, steps=3, episodes=5,
            work=tmp_path / "work", csv=tmp_path / "table.csv", page=page,
        )  # fmt: skip

    study()
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["memory"]) for row in rows] == [
        ("corridor", "none"), ("corridor", "all"),
    ]  # fmt: skip
    assert "| corridor | three numbers, a clue in the first | past |" in page.read_text()
    monkeypatch.setattr(memory, "run_unit", None)
    study()  # what is finished is kept
    with pytest.raises(ValueError, match="memories names \\['some'\\]: expected some of"):
        main(memories=("some",), work=tmp_path)
