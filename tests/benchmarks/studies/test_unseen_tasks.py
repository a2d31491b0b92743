"""The study of unseen tasks: from the training without them to the table, at a tiny size."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from recorded import ARM, BABYAI, OPEN, PUSH, write_invented

from benchmarks.studies import few_shot, unseen_tasks
from benchmarks.studies.unseen_tasks import HELD_OUT, main, pretraining, table
from gato_gym.tasks import list_tasks
from policies.collection.scores import play_scores

WAYS = ("retrieve", "prompt", "shown", "interpolated", "tuned", "scratch")


def test_held_out_tasks_exist_and_are_not_in_the_datasets() -> None:
    assert len(HELD_OUT) == 20
    known = {task.id for suite in unseen_tasks.SUITES for task in list_tasks(suite)}
    assert set(HELD_OUT) <= known
    settings = pretraining(Path("data"), Path("work"), steps=10)
    names = {Path(dataset).name.removesuffix("-v0") for dataset in settings.datasets}
    assert names.isdisjoint(HELD_OUT)
    assert {"metaworld-reach", "babyai-open", "mujoco-ant", "atari-breakout"} <= names


def test_the_command_plays_every_way_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_invented(tmp_path / "data")

    def tiny(root: Path, work: Path, *, steps: int, minutes: float | None, rows: int) -> Any:
        whole = pretraining(root, work, steps=steps, minutes=minutes, rows=rows)
        data = tuple(str(root / "gato" / f"{task}-v0") for task in (BABYAI, ARM, PUSH))
        sizes = {"width": 32, "layers": 1, "heads": 2, "head_size": 16, "feed_forward": 32}
        return unseen_tasks.replace(
            whole, datasets=data, weights={}, preset="tiny", rows=2, device="cpu",
            network={**whole.network, **sizes, "vector_hidden": 16},
        )  # fmt: skip

    def short(*asked: Any) -> list[gym.Env[Any, Any]]:
        return [gym.wrappers.TimeLimit(env, 3) for env in few_shot.make_environments(*asked)]

    played: list[str] = []

    def counted(envs: Any, policy: Any, episodes: int) -> Any:
        played.append(type(policy).__name__)
        return play_scores(envs, policy, episodes)

    monkeypatch.setattr(unseen_tasks, "HELD_OUT", (OPEN,))
    monkeypatch.setattr(unseen_tasks, "pretraining", tiny)
    monkeypatch.setattr(unseen_tasks, "play_scores", counted)
    monkeypatch.setattr("benchmarks.studies.finetune.make_environments", short)
    page = tmp_path / "page.md"
    page.write_text("<!-- unseen: begin -->\n<!-- unseen: end -->\n")
    asked: dict[str, Any] = {
        "tasks": (OPEN,), "demonstrations": (1, 2, 100), "orders": 2, "episodes": 2, "steps": 2,
        "tuning_steps": 2, "root": tmp_path / "data", "work": tmp_path / "work",
        "csv": tmp_path / "table.csv", "figure": tmp_path / "figure.png", "page": page,
    }  # fmt: skip
    main(**asked)
    assert (played.count("RetrievalPolicy"), played.count("GatoPolicy")) == (4, 2 + 4 + 4)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    ways = {(row["way"], row["demonstrations"]) for row in rows if row["task"] == OPEN}
    expected = {(way, str(count)) for way in WAYS for count in (1, 2)} - {("prompt", "2")}
    assert ways == expected, "of four episodes there are no hundred"
    assert {row["task"] for row in rows} == {OPEN, "babyai", "all"}
    assert f"| {OPEN} | 2 |" in page.read_text()
    assert (tmp_path / "figure.png").stat().st_size > 1000
    main(**asked)
    assert len(played) == 14, "what is done is kept"


def test_a_row_is_the_mean_of_its_episodes_and_a_suite_that_of_its_tasks() -> None:
    scores = {
        "babyai-open": {("retrieve", 1): [[0.0, 1.0], [1.0, 1.0]]},
        "metaworld-push": {("retrieve", 1): [[0.5, 0.5], [0.5, 0.5]], ("tuned", 5): [[0.2, 0.2]]},
    }
    rows = {(row["task"], row["way"]): row for row in table(scores)}
    assert rows["babyai-open", "retrieve"]["score"] == 0.75
    assert rows["all", "retrieve"]["score"] == np.mean([0.75, 0.5])
    assert rows["all", "tuned"]["tasks"] == 1
    assert rows["metaworld-push", "retrieve"]["low"] == 0.5
    low, high = (rows["babyai-open", "retrieve"][end] for end in ("low", "high"))
    assert low < 0.75 < high
    assert next(iter(rows)) == ("babyai-open", "retrieve")


def test_unknown_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tasks names \['babyai-open'\]: expected some of"):
        main(tasks=("babyai-open",), work=tmp_path)
