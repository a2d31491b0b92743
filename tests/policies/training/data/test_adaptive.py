"""Shares that follow what is measured: by hand, and through a training that stops and resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import BABYAI, OPEN, write_invented
from rich.console import Console
from safetensors.torch import load_file
from small import SMALL, random_shard, state_plan
from small_training import config, shards

from gato_gym.files.bounded_io import read_json
from policies.training.checkpoint_scorer import CheckpointScorer, PlayedTask
from policies.training.data.adaptive import Adaptive, TaskShares
from policies.training.data.packing import Mixture, Packer
from policies.training.data.shards import TaskShard
from policies.training.distributed import ProcessGroup
from policies.training.run import TrainRun
from policies.training.settings import FamilyName, TrainSettings
from policies.training.trainer import Trainer


def test_shares_follow_smoothed_distances_above_a_floor() -> None:
    shares = TaskShares(Adaptive("scores", every=10, smoothing=0.5), ["a", "b", "c"])
    assert shares.factors == {}
    shares.measure(10, {"a": 1.0, "b": 0.0})
    assert shares.factors == {"a": 4.0, "b": 1.0, "c": 2.5}  # c is not played: as the others' mean
    shares.measure(20, {"a": 0.5, "b": 0.0})
    assert shares.factors == {"a": 1 + 3 * 0.75, "b": 1.0, "c": 1 + 3 * 0.375}
    assert not shares.is_due(20)
    assert not shares.is_due(25)
    assert shares.is_due(30)
    again = TaskShares(shares.adaptive, shares.tasks)
    again.load(shares.to_json())
    assert (again.factors, again.step) == (shares.factors, 20)


def test_what_is_left_of_the_first_loss() -> None:
    shares = TaskShares(Adaptive("loss", every=2, smoothing=0.0, most=3.0), ["a", "b"])

    def update(step: int, a: tuple[float, float], b: tuple[float, float]) -> bool:
        return shares.add_losses(step, torch.tensor([a, b, (9.0, 9.0)]))  # the last is a text's

    assert [update(1, (1, 4), (1, 2)), update(2, (3, 8), (0, 0))] == [False, True]
    assert shares.factors == {"a": 3.0, "b": 3.0}  # all of both is left
    assert [update(3, (2, 3), (1, 1)), update(4, (2, 3), (1, 4))] == [False, True]
    # a's mean fell from 12 / 4 to 6 / 4; b's rose from 2 to 5 / 2
    assert shares.factors == {"a": 2.0, "b": 3.0}


def test_the_distance_to_the_recorded_policy() -> None:
    tasks = [PlayedTask(name, None, 9, 10.0) for name in ("far", "near", "beyond", "useless")]
    scorer = CheckpointScorer(Path(), tasks, 1, ProcessGroup.join())
    scorer.chance = {"far": 0.0, "near": 0.0, "beyond": 0.0, "useless": 10.0}
    scores = {"far": -3.0, "near": 7.5, "beyond": 12.0, "useless": 10.0}
    assert scorer.distances(scores) == {"far": 1.0, "near": 0.25, "beyond": 0.0}


def one_group() -> dict[str, TaskShard]:
    return grouped(shards())


def grouped(by_task: dict[str, TaskShard]) -> dict[str, TaskShard]:
    return {name: dataclasses.replace(shard, group="both") for name, shard in by_task.items()}


def test_documents_are_drawn_in_the_new_shares() -> None:
    by_task = grouped({name: random_shard(state_plan(), name) for name in ("a", "b")})
    packer = Packer(by_task, Mixture({"both": 1.0}), SMALL, rows=2, length=64, seed=0)
    np.testing.assert_allclose(packer.probabilities, [0.5, 0.5])
    packer.reweigh({"a": 4.0, "b": 1.0})
    np.testing.assert_allclose(packer.probabilities, [0.8, 0.2])


class Told(CheckpointScorer):
    """Plays nothing: its distances are those of the step in the checkpoint."""

    def __init__(self) -> None:
        self.tasks, self.chance = (PlayedTask("act", None, 9, 1.0),), {"act": 0.0}
        self.episodes, self.trainer, self._first_losses = 1, None, {}
        self.calls: list[int] = []

    def __call__(self) -> dict[str, float]:
        assert self.trainer is not None
        self.calls.append(self.trainer.step)
        return {"act": 1.0 / self.calls[-1]}

    def distances(self, scores: Mapping[str, float]) -> dict[str, float]:
        return {"act": 1.0, "talk": 1.0 - scores["act"]}


def trainer_of(folder: Path, adaptive: Adaptive, **more: Any) -> Trainer:
    values = config(mixture=Mixture({"both": 1.0}), steps=24, adaptive=adaptive)
    scored = {"score": Told(), "score_every": adaptive.every} if adaptive.by == "scores" else {}
    trainer = Trainer(
        values, one_group(), folder, device="cpu", save_every=100, log_every=5, **scored, **more
    )
    if trainer.score is not None:
        trainer.score.trainer = trainer
    trainer.resume()
    return trainer


@pytest.mark.parametrize("by", ["loss", "scores"])
def test_a_resumed_run_draws_the_same_batches(by: str, tmp_path: Path) -> None:
    adaptive = Adaptive(by, every=6, smoothing=0.3, episodes=int(by == "scores"))
    whole = trainer_of(tmp_path / "whole", adaptive)
    whole.run()
    for stop in (9, 12):  # between two changes, and where one falls
        trainer_of(tmp_path / "parts", adaptive, until=stop).run()
    last = trainer_of(tmp_path / "parts", adaptive)
    last.run()
    assert last.shares is not None
    assert whole.shares is not None
    assert last.shares.factors == whole.shares.factors
    assert len(set(whole.shares.factors.values())) == 2
    one, other = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    recorded = read_json(tmp_path / "parts" / "last" / "progress.json")["shares"]
    assert recorded["step"] == (24 if by == "loss" else 18)


def test_a_run_killed_after_its_scores_measures_them_again(tmp_path: Path) -> None:
    """The checkpoint of a scored step is written before the step is scored."""
    adaptive = Adaptive("scores", every=6, episodes=1)
    run = trainer_of(tmp_path, adaptive)
    steps = run.steps()
    for _ in range(7):  # the sixth step was saved, scored and its row written
        next(steps)
    steps.close()
    resumed = trainer_of(tmp_path, adaptive)
    assert resumed.step == 6
    assert resumed.shares is not None
    assert resumed.shares.factors == {}
    next(resumed.steps())
    assert isinstance(resumed.score, Told)
    assert resumed.score.calls == [6]
    assert run.shares is not None
    assert resumed.shares.factors == run.shares.factors


def test_uniform_shares_stay_what_they_were(tmp_path: Path) -> None:
    """Without the option nothing is asked for, and nothing is recorded."""
    values = config()
    assert values.adaptive is None
    assert values.to_json()["adaptive"] is None
    trainer = Trainer(values, shards(), tmp_path, device="cpu")
    assert trainer.shares is None
    with pytest.raises(ValueError, match="adaptive is 'luck': expected one of scores, loss"):
        Adaptive("luck", every=1)


def test_a_group_of_one_has_nothing_to_share(tmp_path: Path) -> None:
    write_invented(tmp_path / "data")
    names = tuple(str(tmp_path / "data" / "gato" / f"{task}-v0") for task in (BABYAI, OPEN))
    settings = TrainSettings(names, tmp_path / "run", preset="tiny", steps=2, adaptive="loss")
    with pytest.raises(ValueError, match="adaptive is 'loss' and each task is a group of its own"):
        TrainRun(settings, Console(quiet=True))
    usual = dataclasses.replace(settings, adaptive=None)
    assert TrainRun(usual, Console(quiet=True)).config.adaptive is None


@pytest.mark.parametrize("family", ["gato", "jat"])
def test_shares_in_a_group_of_several_follow_the_loss_unless_told_otherwise(
    family: FamilyName, tmp_path: Path
) -> None:
    write_invented(tmp_path / "data")
    names = tuple(str(tmp_path / "data" / "gato" / f"{task}-v0") for task in (BABYAI, OPEN))
    settings = TrainSettings(
        names, tmp_path / "run", family=family, preset="tiny", steps=3, rows=2, score_every=0,
        group_by="suite",
    )  # fmt: skip
    console = Console(file=StringIO(), width=200)
    run = TrainRun(settings, console)
    assert run.config.adaptive == Adaptive("loss", every=1)
    run.describe()
    assert isinstance(console.file, StringIO)
    assert "follows what is left of its loss, from step 1 on" in console.file.getvalue()
    run.train()
    distances = read_json(run.state / "last" / "progress.json")["shares"]["distances"]
    assert distances.keys() == {BABYAI, OPEN}
    plain = dataclasses.replace(settings, output=tmp_path / "plain", adaptive="none")
    assert TrainRun(plain, Console(quiet=True)).config.adaptive is None
