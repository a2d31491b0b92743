"""The recipe collects what it says, and its stages are those of ``gato-gym``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tyro

from benchmarks.studies import gato_mini
from benchmarks.studies.gato_mini import HARD_TASKS, collections, make, mini_settings
from benchmarks.studies.held_out import HELD_OUT, held_out_settings
from gato_gym.tasks import list_tasks
from policies.training.settings import TrainSettings

FOLDERS = (Path("data"), Path("shards"), Path("run"))


def test_every_task_is_collected_once_and_hard_ones_twice_as_much() -> None:
    planned = collections(Path("data"))
    amounts = {task.id: (s.episodes, s.steps) for tasks, s in planned for task in tasks}
    assert sum(len(tasks) for tasks, _ in planned) == len(amounts)
    assert set(amounts) == {task.id for suite in HARD_TASKS for task in list_tasks(suite)}
    assert amounts["metaworld-reach"] == (80, None)
    assert amounts["metaworld-assembly"] == (160, None)
    assert amounts["babyai-go-to-obj"] == (None, 24_000)
    assert amounts["babyai-put-next"] == (None, 48_000)
    assert len(mini_settings(*FOLDERS).datasets) == len(amounts)


def test_held_out_tasks_are_encoded_and_not_trained_on() -> None:
    settings = held_out_settings(*FOLDERS)
    assert settings.datasets == mini_settings(*FOLDERS).datasets
    assert not set(HELD_OUT) & set(settings.tasks)
    assert all(f"data/gato/{task}-v0" in settings.datasets for task in HELD_OUT)


class Run:
    """Notes what a run is asked to do."""

    def __init__(self, settings: TrainSettings, console: Any = None) -> None:
        self.settings = settings

    def train(self) -> None:
        STEPS.append(f"train {self.settings.steps}")

    def export(self, checkpoint: Path) -> None:
        STEPS.append(f"export {checkpoint}")


STEPS: list[str] = []


def test_stages_run_in_order_and_processes_of_torchrun_train_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(gato_mini, "TrainRun", Run)
    monkeypatch.setattr(gato_mini.subprocess, "run", lambda c, **_: commands.append(c))
    monkeypatch.setattr(gato_mini, "collect", lambda tasks, *_, **__: STEPS.append("collect"))
    monkeypatch.setattr("sys.argv", ["gato_mini", "--steps", "7", "--to", "export"])
    STEPS.clear()
    tyro.cli(make)
    assert STEPS == ["collect"] * 4 + ["export runs/gato-mini/checkpoint"]
    (command,) = commands
    started = command[command.index("benchmarks.studies.gato_mini") + 1 :]
    monkeypatch.setenv("LOCAL_RANK", "0")
    STEPS.clear()
    tyro.cli(make, args=started)
    assert STEPS == ["train 7"]
