"""Published figures: complete, with sources, known misprints corrected."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.measure_references import ReferenceSettings, measure
from benchmarks.references import published, published_normalised
from gato_gym.tasks import list_tasks


def test_every_suite_is_complete() -> None:
    suites = [task.split("-")[0] for task in published()]
    counts = {suite: suites.count(suite) for suite in set(suites)}
    assert counts == {"atari": 57, "babyai": 39, "metaworld": 50, "mujoco": 11}


@pytest.mark.parametrize(
    ("task", "player", "value"),
    [
        # Signs and digits lost in JAT's table, by the literature it cites.
        ("atari-doubledunk", "human", -16.4),
        ("atari-fishingderby", "human", -38.7),
        ("atari-tennis", "human", -8.3),
        ("atari-battlezone", "random", 2360.0),
        ("atari-videopinball", "random", 16256.9),
    ],
)
def test_known_misprints_are_corrected(task: str, player: str, value: float) -> None:
    reference = getattr(published()[task], player)
    assert reference.mean == value
    assert "dqn_zoo" in reference.source


def test_every_figure_has_a_source() -> None:
    for entry in published().values():
        for reference in (entry.random, entry.expert, entry.jat):
            assert reference is not None
            assert reference.source


@pytest.mark.parametrize(
    ("suite", "tasks", "mean"),
    # The means of task means that JAT's own table gives.
    [("babyai", 39, 0.85), ("metaworld", 50, 0.60), ("mujoco", 11, 0.74)],
)
def test_jat_means_follow_from_its_table(suite: str, tasks: int, mean: float) -> None:
    scores = [published_normalised(task) for task in published() if task.startswith(f"{suite}-")]
    known = [score for score in scores if score is not None]
    assert len(known) == tasks
    assert np.mean(known) == pytest.approx(mean, abs=0.005)


def test_tasks_whose_expert_loses_to_random_have_no_score() -> None:
    assert published_normalised("atari-bowling") is None
    assert published_normalised("atari-venture") is None
    assert published_normalised("no-such-task") is None


def test_measuring_a_suite_of_trained_experts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random plays every task, an expert those that have one; a second call plays nothing."""
    tasks = list_tasks("mujoco", "reacher,pusher")
    module = "benchmarks.measure_references"
    monkeypatch.setattr(f"{module}.has_expert", lambda task: task == "mujoco-reacher")
    monkeypatch.setattr(f"{module}.select_tasks", lambda suite, pattern: tasks)

    def again() -> dict[str, Any]:
        quiet = Console(file=io.StringIO())
        settings = ReferenceSettings("mujoco", episodes=2, workers=1, work=tmp_path)
        return measure(settings, console=quiet)

    entry = again()
    assert list(entry["tasks"]) == ["mujoco-pusher", "mujoco-reacher"]
    assert list(entry["tasks"]["mujoco-pusher"]) == ["random"]
    reacher = entry["tasks"]["mujoco-reacher"]
    assert reacher["expert"]["mean"] > -8 > reacher["random"]["mean"]
    monkeypatch.setattr("benchmarks.workers.worker.Rollout", None)
    assert again() == entry
