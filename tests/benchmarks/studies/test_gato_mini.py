"""The recipe collects what it says, and its rounds are those of ``gato-gym train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from benchmarks.references import measured
from benchmarks.studies import gato_mini, recipe_episodes
from benchmarks.studies.gato_mini import ROUNDS, make, round_settings
from benchmarks.studies.held_out import HELD_OUT, held_out_settings
from benchmarks.studies.recipe_episodes import (
    MOST_EMPHASIS,
    SUITES,
    collections,
    datasets,
    emphasis,
    evenly,
    known_tasks,
    labelled_collections,
    labelled_folder,
    labelled_suites,
)
from policies.experts import has_expert
from policies.gato.checkpoint import read_tasks
from policies.gato.checkpoint_folder import locate_checkpoint
from policies.training.optimizer import OptimiserConfig
from policies.training.settings import TrainSettings

ROOT, WORK = Path("data"), Path("runs/gato-mini")
CALLS: list[str] = []


def test_every_task_with_an_expert_is_collected_once_and_trained_on() -> None:
    planned = [task.id for tasks, _ in collections(ROOT) for task in tasks]
    assert len(set(planned)) == len(planned)
    assert {task.split("-")[0] for task in planned} == set(SUITES)
    assert all(map(has_expert, planned))
    first = round_settings(ROOT, WORK)
    assert {Path(path).name.removesuffix("-v0") for path in first.datasets} == set(planned)
    assert first.start is None


def test_later_rounds_learn_from_what_the_network_before_came_to() -> None:
    player = str(WORK / "round-0" / "checkpoint")
    labelled = labelled_collections(ROOT, 1, player)
    for tasks, settings in labelled:
        assert settings.record.player == player
        assert settings.root == labelled_folder(ROOT, 1)
        assert tasks
    second = round_settings(ROOT, WORK, number=2)
    count = len(datasets(ROOT))
    assert len(second.datasets) == count + 2 * sum(len(tasks) for tasks, _ in labelled)
    assert second.datasets[:count] == round_settings(ROOT, WORK).datasets
    assert second.start == str(WORK / "round-1" / "checkpoint")
    assert second.optimiser_options["rate"] < OptimiserConfig().rate


def test_the_longest_round_after_the_first_has_labels_of_atari() -> None:
    number = int(np.argmax(gato_mini.STEPS))
    longest = round_settings(ROOT, WORK, number=number)
    assert longest.start == str(WORK / f"round-{number - 1}" / "checkpoint")
    assert not longest.optimiser_options, "at full rates"
    labelled = [Path(path) for path in longest.datasets if "gato-labelled/atari" in path]
    assert len(labelled) == len(known_tasks("atari"))
    assert {path.parents[1].name for path in labelled} == {f"round-{number}"}


def test_the_last_round_remembers_more_in_as_many_tokens() -> None:
    before, last = (round_settings(ROOT, WORK, number=n) for n in (ROUNDS - 1, ROUNDS))
    assert (last.length, last.rows) == (512, 12)
    assert (before.length, before.rows) == (128, 48)
    every = [tasks[0].suite for tasks, _ in labelled_collections(ROOT, ROUNDS, "gato-mini")]
    assert sorted(every) == sorted(SUITES)


def test_a_part_of_the_tasks_is_spread_over_each_suite() -> None:
    tasks = known_tasks("metaworld")
    assert [task.id for task in evenly(tasks, 3)] == [tasks[i].id for i in (0, 16, 33)]
    assert evenly(tasks, 100) == evenly(tasks, None) == tasks
    paths = datasets(ROOT, 1, ("babyai", "metaworld"), most_tasks=3)
    assert len(paths) == 6 + 3
    names = [Path(path).name for path in paths]
    assert names[:3] == names[6:], "the labelled episodes are of the same tasks"


def test_larger_batches_of_later_rounds_take_larger_steps() -> None:
    rates = [
        round_settings(ROOT, WORK, number=1, rows=rows).optimiser_options for rows in (48, 96, 960)
    ]
    assert [each["rate"] for each in rates] == pytest.approx([1e-3, 2**0.5 * 1e-3, 2e-3])
    assert [each["matrix_rate"] for each in rates] == pytest.approx([2e-3, 2**0.5 * 2e-3, 4e-3])


def test_a_round_can_be_collected_and_described_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gato_mini, "TrainRun", Run)
    monkeypatch.setattr(gato_mini, "emphasis", lambda *_, **__: {})
    monkeypatch.setattr(
        gato_mini, "collect", lambda tasks, plays, **_: CALLS.append(str(plays.record.player))
    )
    CALLS.clear()
    tyro.cli(make, args=["--only-round", "1", "--collect-only"])
    assert [str(WORK / "round-0" / "checkpoint")] * len(labelled_suites(1)) == CALLS
    CALLS.clear()
    tyro.cli(make, args=["--only-round", "0", "--collect-only"])
    assert ["None"] * len(SUITES) == CALLS
    CALLS.clear()
    tyro.cli(make, args=["--first-round", "4", "--player", "gato-mini", "--collect-only"])
    assert ["None"] * len(SUITES) + ["gato-mini"] * len(labelled_suites(4)) == CALLS
    CALLS.clear()
    tyro.cli(make, args=["--only-round", "1", "--dry-run"])
    assert CALLS == ["describe round-1 800"]


def test_an_earlier_network_plays_what_it_knows_before_the_first_round() -> None:
    labelled = labelled_collections(ROOT, 0, "gato-mini")
    played = [task.id for tasks, _ in labelled for task in tasks]
    known = {task.id for suite in labelled_suites(0) for task in known_tasks(suite)}
    assert set(played) == known & set(read_tasks(locate_checkpoint("gato-mini")))
    settings = round_settings(ROOT, WORK, player="gato-mini")
    assert settings.start is None
    extra = settings.datasets[len(datasets(ROOT)) :]
    assert len(extra) == len(played)
    assert all(path.startswith("data/round-0/gato-labelled/") for path in extra)
    again = round_settings(ROOT, WORK, number=1, player="gato-mini")
    assert again.datasets[: len(settings.datasets)] == settings.datasets
    assert emphasis(ROOT, 0) == {}


def test_a_later_round_may_be_the_first_and_goes_on_from_the_player() -> None:
    settings = round_settings(ROOT, WORK, number=ROUNDS, player="gato-mini", first=ROUNDS)
    assert settings.start == "gato-mini"
    extra = [Path(path) for path in settings.datasets[len(datasets(ROOT)) :]]
    assert {path.parents[1].name for path in extra} == {f"round-{ROUNDS}"}
    known = [task.id for suite in SUITES for task in known_tasks(suite)]
    played = read_tasks(locate_checkpoint("gato-mini"))
    assert [path.name for path in extra] == [f"{task}-v0" for task in known if task in played]
    after = round_settings(ROOT, WORK, number=ROUNDS + 1, player="gato-mini", first=ROUNDS)
    assert after.start == str(WORK / f"round-{ROUNDS}" / "checkpoint")
    assert after.datasets[: len(settings.datasets)] == settings.datasets


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first_round": 4}, "first_round is 4 and there is no player"),
        ({"first_round": 5, "player": "gato-mini"}, "first_round is 5: expected 0 to 4"),
    ],
)
def test_rounds_that_cannot_be_the_first(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**arguments)


def test_what_is_far_from_its_expert_is_drawn_more(monkeypatch: pytest.MonkeyPatch) -> None:
    references = measured("mujoco")["mujoco-hopper"]
    assert references.random is not None
    assert references.expert is not None
    low, high = references.random.mean, references.expert.mean
    balance = measured("dm_control")["dm_control-cartpole-balance"].random
    assert balance is not None
    start = balance.mean / 4
    returns = {"hopper": [low, low], "walker": [0.0], "reach": [1e9]}

    def of(name: Path) -> Any:
        return np.array(next((r for key, r in returns.items() if f"-{key}-v0" in str(name)), []))

    def returned(name: Path, most_steps: int | None = None) -> Any:
        if "cartpole-balance-v0" in str(name):  # two thirds of the way, in a quarter of the steps
            high = float(most_steps or 0) if "labelled" not in str(name) else None
            return np.array([start / 3 + 500 / 3 if high is None else high])
        return of(name) if len(of(name)) else np.array([1e9])

    monkeypatch.setattr(recipe_episodes, "find_minari", lambda name: name)
    monkeypatch.setattr(recipe_episodes, "returns_of", returned)
    assert emphasis(ROOT, 1)["mujoco-hopper"] == MOST_EMPHASIS
    assert emphasis(ROOT, 1)["mujoco-ant"] == 1.0
    assert emphasis(ROOT, 1)["dm_control-cartpole-balance"] == pytest.approx(MOST_EMPHASIS - 2)
    returns["hopper"] = [low, high]
    assert emphasis(ROOT, 1)["mujoco-hopper"] == pytest.approx((1 + MOST_EMPHASIS) / 2)


def test_held_out_tasks_are_encoded_and_not_trained_on() -> None:
    settings = held_out_settings(ROOT, Path("shards"), Path("run"))
    assert settings.datasets == datasets(ROOT, suites=("babyai", "metaworld"))
    assert not set(HELD_OUT) & set(settings.tasks)
    assert all(f"data/gato/{task}-v0" in settings.datasets for task in HELD_OUT)


class Run:
    """Notes what a run is asked to do."""

    def __init__(self, settings: TrainSettings, console: Any = None) -> None:
        self.settings = settings

    def describe(self) -> None:
        CALLS.append(f"describe {self.settings.output.name} {self.settings.steps}")

    def train(self) -> None:
        CALLS.append(f"train {self.settings.output.name} {self.settings.steps}")


def test_rounds_run_in_order_and_processes_of_torchrun_train_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(gato_mini, "TrainRun", Run)
    monkeypatch.setattr(gato_mini, "emphasis", lambda root, number, **_: {"mujoco-ant": 2.0})
    monkeypatch.setattr(gato_mini.subprocess, "run", lambda c, **_: commands.append(c))
    monkeypatch.setattr(gato_mini, "collect", lambda tasks, *_, **__: CALLS.append("collect"))
    monkeypatch.setattr("sys.argv", ["gato_mini", "--steps", "7", "9", "--rounds", "1"])
    CALLS.clear()
    tyro.cli(make)
    assert ["collect"] * (len(SUITES) + len(labelled_suites(1))) == CALLS
    *trainings, played = commands
    assert len(trainings) == 2
    assert played[played.index("--suite") + 1] == "all"
    assert str(WORK / "round-1") in played
    CALLS.clear()
    for training in trainings:
        tyro.cli(make, args=training[training.index("benchmarks.studies.gato_mini") + 1 :])
    assert CALLS == ["train round-0 7", "train round-1 9"]
    assert known_tasks("metaworld")
