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
from policies.collection.record import play_returns, record_episodes
from policies.training import memory_choice
from policies.training.memory_choice import Trial, prepare_run
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command that trains on a registered environment in which memory is needed."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory_choice, "TRIAL_SHARE", 0.25)
    gym.register("Recall-v0", entry_point="environments:Recall")
    with gym.make("Recall-v0") as env:
        returns = record_episodes(env, Recalling(), 40, "my/recall-v0")
    assert returns == [1.0] * 40
    yield [
        "train", "--dataset", "my/recall-v0", "--output", "run", "--preset", "0.4m",
        "--rows", "4", "--length", "64", "--steps", "240", "--score-every", "0",
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
    assert "2 trials of 60 updates, of the 240 there are, show what Recall-v0 should rem" in said
    shown = "returns 1.00 in 10 episodes" if played else "has a held-out loss of 0."
    assert f"observations {shown}" in said
    assert "'observations' it is" in said
    config = json.loads(Path("run/training/config.json").read_text())
    assert config["steps"] == 120, "what the trials have left"
    policy = GatoPolicy.load("run", env=Recall())
    assert policy.plan.options.memory == "observations"
    assert play_returns(Recall(), policy, 10) == [1.0] * 10
    assert main(train) == 0, "it is resumed"
    assert "trials of" not in capsys.readouterr().out
    assert main([*train[:-4], "--steps", "300"]) == 2
    assert "steps: 120 there, 300 now" in capsys.readouterr().err


def test_nothing_is_tried_where_the_memory_is_named_or_the_run_is_short(train: list[str]) -> None:
    asked = TrainSettings(
        ("my/recall-v0",), Path("run"), preset="0.4m", steps=240, rows=2, length=64
    )
    for changes in ({"memory": "all"}, {"options": {"memory": "all"}}, {"steps": 100}):
        run = prepare_run(TrainSettings(**{**vars(asked), **changes}))
        assert run.config.steps == changes.get("steps", 240)
        assert not Path("run/trials").exists()


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
    monkeypatch.setattr(TrainRun, "_steps", lambda run, config: run.settings.steps or 240)
    timed = [*train[:-4], "--minutes", "1"]
    assert main(timed) == 130
    assert json.loads(Path("run/training/memory.json").read_text()) == {
        "steps": 240, "memories": {},
    }  # fmt: skip
    monkeypatch.setattr(TrainRun, "_steps", lambda run, config: run.settings.steps or 999)
    assert main([*timed, "--score-every", "0"]) == 0
    assert trained[1:] == [
        ("observations", 60), ("none", 60), ("observations", 60), ("run", 120),
    ]  # fmt: skip


def test_a_difference_that_may_be_chance_changes_nothing() -> None:
    usual, lucky, better = (np.array(r, float) for r in ([1, 2, 3, 4], [2, 1, 5, 4], [3, 4, 6, 6]))
    # gains 1, -1, 2, 0 have the mean 0.5 and the standard error 0.65; 2, 2, 3, 2 have 2.25 and 0.25
    for other, chosen in ((lucky, "none"), (better, "observations")):
        tried = {"none": Trial(usual), "observations": Trial(other)}
        assert memory_choice._better(tried, "none") == chosen
    no_play = np.zeros(0)
    for loss, chosen in ((0.96, "none"), (0.94, "observations"), (float("nan"), "none")):
        tried = {"none": Trial(no_play, 1.0), "observations": Trial(no_play, loss)}
        assert memory_choice._better(tried, "none") == chosen
