"""jat-mini is trained on what gato-mini is trained on, a timestep at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tyro

from benchmarks.studies import gato_mini, jat_mini, recipe_episodes
from benchmarks.studies.jat_mini import jat_settings, main
from policies.jat.config import JatConfig, preset
from policies.jat.network import JatNetwork
from policies.model.network import count_parameters
from policies.training.settings import TrainSettings

ROOT, WORK = Path("data"), Path("runs/jat-mini")
FACTORS = {"mujoco-ant": 2.0}


@pytest.fixture(autouse=True)
def factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_episodes, "emphasis", lambda *_, **__: FACTORS)


def test_it_learns_from_the_same_episodes_drawn_as_often() -> None:
    other = gato_mini.round_settings(ROOT, Path("runs/gato-mini"), number=2, factors=FACTORS)
    settings = jat_settings(ROOT, WORK, rounds=2, steps=7)
    assert settings.family == "jat"
    for name in ("datasets", "weights", "emphasis", "group_by", "keep", "augment"):
        assert getattr(settings, name) == getattr(other, name), name
    assert settings.steps == 7
    assert jat_settings(ROOT, WORK, minutes=3.0).steps is None


def test_it_learns_single_timesteps_and_acts_by_one() -> None:
    settings = jat_settings(ROOT, WORK)
    sizes = JatConfig(**{**preset("mini").__dict__, **settings.network})
    assert settings.length == sizes.context_tokens == 2
    assert count_parameters(JatNetwork(sizes)) < 3_000_000


class Run:
    """Notes what a run is asked to do."""

    asked: TrainSettings

    def __init__(self, settings: TrainSettings) -> None:
        Run.asked = settings

    def train(self) -> None:
        pass


def test_the_command_trains_in_processes_and_plays_every_suite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []
    played: list[tuple[Any, ...]] = []
    monkeypatch.setattr(gato_mini.subprocess, "run", lambda c, **_: commands.append(c))
    monkeypatch.setattr(jat_mini, "bench", lambda *arguments: played.append(arguments))
    monkeypatch.setattr(jat_mini, "TrainRun", Run)
    monkeypatch.setattr("sys.argv", ["jat_mini", "--steps", "7"])
    tyro.cli(main)
    (command,), (arguments,) = commands, played
    assert arguments[0] == WORK / "scores"
    assert str(WORK / "checkpoint") in arguments
    tyro.cli(main, args=command[command.index(jat_mini.MODULE) + 1 :])
    assert Run.asked == jat_settings(ROOT, WORK, steps=7)
    assert len(played) == 1, "only the command that began it plays"
