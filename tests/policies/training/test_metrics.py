"""What is seen of a run: its metrics, events and scores, which change nothing of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import Balance, Clue, Pair
from rich.console import Console
from small_training import config, shards
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gato_gym.__main__ import main
from policies.collection.record import play_returns, record_episodes
from policies.model.config import preset
from policies.model.transformer import Backbone
from policies.registry import make_policy
from policies.training import metrics
from policies.training.checkpoint_scorer import PlayedTask
from policies.training.metrics import flops_per_token, measured_peak
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings
from policies.training.trainer import Trainer


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run(folder: Path, **more: Any) -> None:
    trainer = Trainer(config(steps=8), shards(), folder, save_every=4, log_every=2, **more)
    trainer.resume()
    trainer.run()


def test_task_losses_add_up_to_the_loss(tmp_path: Path) -> None:
    trainer = Trainer(config(), shards(), tmp_path)
    report, _ = trainer.update()
    assert report.tasks.shape == (2, 2)
    assert float(report.tasks[:, 0].sum()) == pytest.approx(float(report.scale), rel=1e-5)
    assert float(report.tasks[:, 1].sum()) == pytest.approx(float(report.total), rel=1e-5)
    batches, _ = Trainer(config(), shards(), tmp_path)._batches(0)
    act = batches[0].targets.tasks == trainer.packer.numbers["act"]
    targets = batches[0].targets
    act = targets.tasks == trainer.packer.numbers["act"]
    assert torch.equal(act, targets.ids < 33_024), "the only task with continuous actions"
    assert float(report.tasks[0, 0]) == pytest.approx(float(targets.weights[act].sum()))


def test_rows_of_a_run_that_goes_on_are_written_once(tmp_path: Path) -> None:
    run(tmp_path)
    written = rows(tmp_path)
    assert [row["step"] for row in written] == ["2", "4", "6", "8"]
    assert [row["tokens"] for row in written] == [str(n * 4 * 96) for n in (2, 4, 6, 8)]
    assert list(written[0])[:4] == ["step", "tokens", "minutes", "loss"]
    assert {"loss/act", "loss/talk"} <= set(written[0])
    progress = tmp_path / "last" / "progress.json"
    done = json.loads(progress.read_text())
    progress.write_text(json.dumps({**done, "step": 4}))
    again = Trainer(config(steps=8), shards(), tmp_path, log_every=2)
    again.resume()
    next(iter(steps := again.steps()))
    steps.close()
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4"]
    assert rows(tmp_path)[1] == written[1]


TIMES = ("minutes", "tokens_per_second", "peak_share")


def learned(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows(folder)]


class Constant:
    """Scores the step that it is called after."""

    tasks = (PlayedTask("act", "none", 1, 0.0),)

    def __init__(self) -> None:
        self.trainer: Trainer | None = None

    def __call__(self) -> dict[str, float]:
        assert self.trainer is not None
        return {"act": 10.0 * self.trainer.step}

    def describe(self, scores: dict[str, float]) -> str:
        return f"  {scores['act']}"

    def disagreements(self, scores: dict[str, float], losses: dict[str, float]) -> list[str]:
        return []


def part_of_a_run(folder: Path, until: int | None = None, **more: Any) -> Trainer:
    """Rows of three steps, saved each five, and scores each four and at the end."""
    score: Any = Constant()
    trainer = Trainer(
        config(steps=14), shards(), folder, save_every=5, log_every=3, until=until,
        score=score, score_every=4, **more,
    )  # fmt: skip
    score.trainer = trainer
    trainer.resume()
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("whole")
    part_of_a_run(folder).run()
    written = learned(folder)
    assert [row["step"] for row in written] == ["3", "4", "6", "8", "9", "12", "14"]
    assert [row["score/act"] for row in written] == ["", "40", "", "80", "", "120", "140"]
    return written


@pytest.mark.parametrize("step", [2, 5, 8, 11])
def test_a_run_that_was_stopped_has_the_rows_of_one_that_was_not(
    tmp_path: Path, whole: list[dict[str, str]], step: int
) -> None:
    part_of_a_run(tmp_path, until=step).run()
    part_of_a_run(tmp_path).run()
    assert learned(tmp_path) == whole


@pytest.mark.parametrize("step", [8, 12])
def test_a_run_that_is_killed_between_its_save_and_its_row_has_the_row(
    tmp_path: Path, whole: list[dict[str, str]], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = metrics.Metrics.write

    def killed(self: Any, at: int, *arguments: Any) -> str:
        if at == step:
            raise MemoryError
        return write(self, at, *arguments)

    with monkeypatch.context() as context:
        context.setattr(metrics.Metrics, "write", killed)
        first = part_of_a_run(tmp_path)
        with pytest.raises(MemoryError):
            first.run()
    part_of_a_run(tmp_path).run()
    assert learned(tmp_path) == whole


def test_a_run_that_is_stopped_before_it_is_scored_has_the_score(
    tmp_path: Path, whole: list[dict[str, str]]
) -> None:
    """By Ctrl-C: a step of which a row is due, and one of which none would be without a score."""
    for step in (12, 8):
        first = part_of_a_run(tmp_path / str(step))
        update = first.update

        def stop(step: int = step, first: Trainer = first, update: Any = update) -> Any:
            if first.step == step - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return update()

        first.update = stop  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            first.run()
        assert all(row["step"] != str(step) or not row["score/act"] for row in rows(first.output))
        part_of_a_run(tmp_path / str(step)).run()
        assert learned(tmp_path / str(step)) == whole


def test_tensorboard_has_what_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path / "with", tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "with" / "tensorboard"))
    events.Reload()
    for name in ("loss", "loss/act", "tokens_per_second", "peak_share"):
        logged = {event.step: event.value for event in events.Scalars(name)}
        wanted = {int(r["step"]): float(r[name]) for r in rows(tmp_path / "with") if r[name]}
        assert logged == pytest.approx(wanted, rel=1e-4)
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    run(tmp_path / "without", tensorboard=True)
    assert len(rows(tmp_path / "without")) == 4
    assert not (tmp_path / "without" / "tensorboard").exists()
    assert 'pip install "gato-gym[tensorboard]"' in metrics.tensorboard_missing()


WANDB = """
import json, pathlib
class Run:
    def __init__(self, dir, **how):
        self.path = pathlib.Path(dir) / "logged.jsonl"
        self.log({"begun": how})
    def log(self, values, step=None):
        with self.path.open("a") as file:
            file.write(json.dumps([step, values]) + chr(10))
    def finish(self):
        self.log({"finished": True})
init = Run
"""


def test_wandb_has_what_the_file_has_and_a_resumed_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in of the package writes down what it is given."""
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "run"
    run(folder, wandb="mine", until=4)
    run(folder, wandb="mine")
    lines = [json.loads(line) for line in (folder / "logged.jsonl").read_text().splitlines()]
    begun = [values["begun"] for _, values in lines if "begun" in values]
    assert len(begun) == 2
    assert begun[0] == begun[1], "the same run"
    assert sum("finished" in values for _, values in lines) == 2
    assert (begun[0]["project"], begun[0]["name"], begun[0]["resume"]) == ("mine", "run", "allow")
    losses = {step: values["loss"] for step, values in lines if "loss" in values}
    wanted = {int(row["step"]): float(row["loss"]) for row in rows(folder)}
    assert losses == pytest.approx(wanted, rel=1e-4)
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert metrics.wandb_missing() == "W&B is not installed: run pip install wandb"


def test_scores_are_those_of_the_checkpoint_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 2, "my/cartpole-v0")
    train = ["train", "--dataset", "my/cartpole-v0", "--preset", "tiny", "--rows", "2"]
    train += ["--length", "64", "--steps", "6"]
    assert main([*train, "--output", "plain"]) == 0
    scored = ["--score-every", "3", "--score-episodes", "2"]
    assert main([*train, "--output", "scored", *scored]) == 0
    with gym.make("CartPole-v1") as env:
        chance = np.mean(play_returns(env, make_policy("random", env=env), 2))
    said = f"in 2 episodes, random {chance:.2f}, recorded 500.00"
    assert said in capsys.readouterr().out
    ends = [
        (Path(name) / "training" / "last" / "optimiser.safetensors").read_bytes()
        for name in ("plain", "scored")
    ]
    assert ends[0] == ends[1]
    scores = {r["step"]: r["score/CartPole-v1"] for r in rows(tmp_path / "scored" / "training")}
    assert [step for step, score in scores.items() if score] == ["3", "6"]
    with gym.make("CartPole-v1") as env:
        mean = np.mean(play_returns(env, make_policy("scored", env=env), 2))
    assert float(scores["6"]) == pytest.approx(mean)
    assert main([*train, "--output", "other", *scored, "--score-tasks", "Pong"]) == 2
    assert "score_tasks names ['Pong']" in capsys.readouterr().err
    with pytest.raises(ValueError, match="score_every is -1: expected 0 or more"):
        TrainSettings((), tmp_path, score_every=-1)


@pytest.fixture
def recorded_clues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command that trains on episodes of an environment in which scoring always fails."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    gym.register("Clue-v0", entry_point="environments:Clue")
    try:
        with gym.make("Clue-v0") as env:
            record_episodes(env, Clue(), 20, "my/clue-v0")
        train = ["train", "--dataset", "my/clue-v0", "--output", "run", "--preset", "0.4m"]
        yield [*train, "--rows", "2", "--length", "32", "--memory", "none"]
    finally:
        del gym.registry["Clue-v0"]


def test_a_task_is_played_by_default_and_says_when_loss_and_play_disagree(
    recorded_clues: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*recorded_clues, "--steps", "50"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "every 13 steps the network plays 3 episodes of Clue-v0; --score-every 0" in said
    assert "Clue-v0 scores 0.00 in 3 episodes, random 0.00, recorded 1.00" in said
    played = [r["step"] for r in rows(Path("run/training")) if r["score/Clue-v0"]]
    assert played == ["13", "26", "39", "50"], "every quarter, and at the end"
    assert said.count("play and loss disagree on 'Clue-v0'") == 2, "at 39 and 50, late in the run"
    assert "returns 0.00 where random play returns 0.00 and the recorded policy 1.00" in said
    assert "--memory observations" in said


def test_nothing_is_played_with_score_every_0(
    recorded_clues: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*recorded_clues, "--steps", "50", "--score-every", "0"]) == 0
    assert "plays" not in capsys.readouterr().out
    assert "score/Clue-v0" not in rows(Path("run/training"))[0]


def test_a_task_that_cannot_be_played_as_it_was_recorded_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    with gym.make("CartPole-v1") as env:
        timed = gym.wrappers.TimeAwareObservation(env)
        record_episodes(timed, make_policy("random", env=timed), 2, "my/timed-v0")
    env = Pair()
    record_episodes(env, make_policy("random", env=env), 2, "my/pair-v0")
    asked = TrainSettings(
        ("my/timed-v0", "my/pair-v0"), tmp_path / "run", preset="0.4m", steps=50, rows=2, length=64
    )
    console = Console(record=True, width=400)
    assert TrainRun(asked, console)._scorer() is None
    said = console.export_text()
    assert "task 'CartPole-v1' cannot be played in training: its environment has" in said
    assert "as if it was recorded in a wrapper" in said
    assert "task 'my/pair-v0' cannot be played in training: its environment cannot be made" in said
    explicit = dataclasses.replace(asked, score_tasks=("my/pair-v0",))
    with pytest.raises(ValueError, match="leave it out of --score-tasks"):
        TrainRun(explicit, console)._scorer()


def test_operations_of_a_token_are_those_that_torch_counts() -> None:
    config, length = preset("tiny"), 64
    x = torch.randn(1, length, config.width, requires_grad=True)
    positions = torch.arange(length)[None]
    mask = torch.ones(1, 1, length, length, dtype=torch.bool)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        Backbone(config)(x, positions, mask).sum().backward()
    assert counter.get_total_flops() / length == flops_per_token(config, length)
    assert measured_peak(torch.device("cpu")) > 1e8
