"""What a task remembers where nobody says it: trials, in the same number of updates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from environments import Recall, Recalling

from gato_gym.__main__ import main
from policies import GatoPolicy
from policies.collection.record import record_episodes
from policies.training import memory_choice
from policies.training.memory_choice import Trial, prepare_run
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command that trains on a registered environment in which memory is needed."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory_choice, "TRIAL_SHARE", 0.3)
    gym.register("Recall-v0", entry_point="environments:Recall")
    with gym.make("Recall-v0") as env:
        returns = record_episodes(env, Recalling(), 40, "my/recall-v0")
    assert returns == [1.0] * 40
    yield [
        "train", "--dataset", "my/recall-v0", "--output", "run", "--preset", "0.4m",
        "--rows", "4", "--length", "64", "--steps", "200", "--score-every", "0",
    ]  # fmt: skip
    gym.registry.pop("Recall-v0", None)


@pytest.mark.parametrize("played", [True, False])
def test_what_plays_better_or_has_the_lower_held_out_loss_is_kept(
    train: list[str], played: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if not played:
        del gym.registry["Recall-v0"]
    assert main(train) == 0
    said = " ".join(capsys.readouterr().out.split())
    count, shown = (3, "returns 1.00 in 10") if played else (2, "has a held-out loss of 0.")
    assert f"{count} trials of 60 updates show what Recall-v0 should remember" in said
    assert f"observations {shown}" in said
    memories = json.loads(Path("run/training/memory.json").read_text())["memories"]
    assert memories["Recall-v0"] in (("observations", "all") if played else ("observations",))
    assert f"{memories['Recall-v0']!r} it is" in said
    left = 200 - 60 * count
    assert json.loads(Path("run/training/config.json").read_text())["steps"] == left
    policy = GatoPolicy.load("run", env=Recall())
    assert policy.plan.options.memory == memories["Recall-v0"]
    assert main(train) == 0, "it is resumed"
    assert "trials of" not in capsys.readouterr().out
    assert main([*train[:-4], "--steps", "300"]) == 2
    assert f"steps: {left} there, 300 now" in capsys.readouterr().err


def test_nothing_is_tried_where_the_memory_is_named_or_the_run_is_short(train: list[str]) -> None:
    asked = TrainSettings(
        ("my/recall-v0",), Path("run"), preset="0.4m", steps=200, rows=2, length=64
    )
    for changes in ({"memory": "all"}, {"options": {"memory": "all"}}, {"steps": 90}):
        run = prepare_run(TrainSettings(**{**vars(asked), **changes}))
        assert run.config.steps == changes.get("steps", 200)
        assert not Path("run/trials").exists()
    assert run.tasks[0].options.memory == "none"


def test_trials_that_were_stopped_are_taken_up_with_as_many_updates(
    train: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, trained = TrainRun.train, []

    def stopped(run: TrainRun) -> Path:
        trained.append((run.settings.output.name, run.config.steps))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return whole(run)

    monkeypatch.setattr(TrainRun, "train", stopped)
    monkeypatch.setattr(TrainRun, "_steps", lambda run, config: run.settings.steps or 200)
    timed = [*train[:-4], "--minutes", "1"]
    assert main(timed) == 130
    begun = {"steps": 200, "left": 20, "memories": {}}
    assert json.loads(Path("run/training/memory.json").read_text()) == begun
    monkeypatch.setattr(TrainRun, "_steps", lambda run, config: run.settings.steps or 999)
    assert main([*timed, "--score-every", "0"]) == 0
    trials = [(memory, 60) for memory in memory_choice.MEMORIES]
    assert trained == [*trials[:2], *trials, ("run", 20)]


def test_a_difference_that_may_be_chance_changes_nothing() -> None:
    usual, lucky, better = (np.array(r, float) for r in ([1, 2, 3, 4], [2, 1, 5, 4], [3, 4, 6, 6]))
    # gains 1, -1, 2, 0 have the mean 0.5 and the standard error 0.65; 2, 2, 3, 2 have 2.25 and 0.25
    tried = {"none": Trial(usual), "observations": Trial(lucky)}
    assert memory_choice._best(tried, "none") == "none"
    assert memory_choice._best({**tried, "all": Trial(better)}, "none") == "all"
    no_play = np.zeros(0)
    for loss, chosen in ((0.51, "none"), (0.49, "observations"), (float("nan"), "none")):
        tried = {"none": Trial(no_play, 1.0), "observations": Trial(no_play, loss)}
        assert memory_choice._best(tried, "none") == chosen
