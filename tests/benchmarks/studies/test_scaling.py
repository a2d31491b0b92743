"""Sizes trained on the same tokens, measured on the same episodes that none of them saw."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import DATASET, ENV, KIND, Balance
from small import random_shard, state_plan

from benchmarks.studies.scaling import ScalingRun
from benchmarks.studies.settings import ScalingSettings
from gato_gym.__main__ import main
from policies.collection.record import record_episodes
from policies.collection.scores import Scores
from policies.model.config import FAMILY, preset
from policies.model.network import GatoNetwork, count_parameters
from policies.training.loss import mean_losses
from policies.training.trainer import Trainer


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.studies.scaling.MEASURED_BATCHES", 2)
    gym.register(ENV, entry_point=KIND, max_episode_steps=40)
    with gym.make(ENV) as env:
        record_episodes(env, Balance(), 6, DATASET)
    yield tmp_path
    del gym.registry[ENV]


def scaling(*more: str) -> int:
    base = ["scaling", "--dataset", DATASET, "--output", "runs/sizes", "--sizes", "0.4m,0.7m"]
    small = ["--tokens", "512", "--points", "2", "--rows", "2", "--length", "64"]
    return main([*base, *small, "--score-episodes", "1", *more])


def table(root: Path) -> list[dict[str, str]]:
    with (root / "runs/sizes/scaling.csv").open() as file:
        return list(csv.DictReader(file))


def test_sizes_are_named_by_their_parameters() -> None:
    for name in FAMILY:
        count = count_parameters(GatoNetwork(preset(name)))
        assert f"{count / 1e6:.1f}m" == name


def test_a_part_of_a_shard_is_a_shard() -> None:
    shard = random_shard(state_plan(), "test")
    part = shard.part(2, 5)
    assert len(part.ends) == 3
    for index in range(3):
        here = np.arange(part.starts[index], part.ends[index])
        there = np.arange(shard.starts[2 + index], shard.ends[2 + index])
        for name in ("vectors", "actions"):
            actual, expected = (
                getattr(s.timesteps(steps), name) for s, steps in ((part, here), (shard, there))
            )
            assert np.array_equal(actual, expected)


def test_every_size_is_measured_and_the_study_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update, seen = Trainer.update, []

    def stop(self: Trainer) -> Any:
        seen.append(count_parameters(self.network))
        if len(seen) == 6:
            self.save()
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop)
        assert scaling() == 130
    assert len(table(root)) == 2
    assert scaling() == 0
    rows = table(root)
    assert [(row["size"], int(row["tokens"])) for row in rows] == [
        ("0.4m", 256), ("0.4m", 512), ("0.7m", 256), ("0.7m", 512),
    ]  # fmt: skip
    assert [int(row["parameters"]) for row in rows] == [356_616] * 2 + [740_400] * 2
    losses = [float(row["loss"]) for row in rows]
    assert np.log(2) > losses[0] > losses[1], "of two choices, an untrained network knows nothing"
    assert np.log(2) > losses[2] > losses[3]
    for row in rows:
        assert float(row["score_low"]) <= float(row["score"]) <= float(row["score_high"])
    assert (root / "runs/sizes/scaling.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert scaling("--seed", "1") == 2
    assert "seed: 0 there, 1 now" in capsys.readouterr().err


def test_measured_episodes_are_not_trained_on_and_the_loss_is_their_mean(root: Path) -> None:
    settings = ScalingSettings(
        datasets=(DATASET,), output=root / "runs/s", sizes=("0.4m",), tokens=1e5
    )
    run = ScalingRun(settings)
    seen, kept = run.runs["0.4m"].shards[ENV], run.runs["0.4m"].held_out[ENV]
    assert (len(seen.ends), len(kept.ends)) == (4, 2)
    rows = {tuple(row) for row in seen.arrays["vectors"][:, 0].tolist()}
    assert not rows & {tuple(row) for row in kept.arrays["vectors"][:, 0].tolist()}

    network = GatoNetwork(preset("0.4m"))
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    losses = mean_losses(network, run.batches, sigma=4.0)
    assert losses["loss"] == pytest.approx(np.log(2)), "logits of zero: both actions are as likely"
    first = float(np.mean(kept.arrays["actions"] == seen.plan.action_ranges[0, 0]))
    assert losses["discrete_accuracy"] == pytest.approx(first, abs=0.1), "a tie goes to the first"


def test_what_cannot_be_used_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in (
        (("--sizes", "0.4m,giant"), "'giant' is unknown"),
        (("--tokens", "100"), "tokens is 100: expected at least 256"),
        (("--held-out", "1"), "held_out is 1.0"),
    ):
        assert scaling(*more) == 2
        assert said in capsys.readouterr().err
    assert scaling("--dataset", "my/none-v0") == 2
    assert "no Minari dataset" in capsys.readouterr().err


def test_the_score_is_success_or_lies_between_random_and_expert(root: Path) -> None:
    settings = ScalingSettings(
        datasets=(DATASET,), output=root / "runs/s", sizes=("0.4m",), tokens=1e5
    )
    run = ScalingRun(settings)
    run._chance = {ENV: 20.0}
    (task,) = run.tasks.values()
    by_return = run._normalised(ENV, task, Scores((20.0, 30.0, 40.0), None))
    assert by_return.tolist() == [0.0, 0.5, 1.0], "the expert returns 40"
    by_success = run._normalised(ENV, task, Scores((1.0, 2.0), (True, False)))
    assert by_success.tolist() == [1.0, 0.0]
    run._chance = {ENV: 60.0}
    with pytest.raises(ValueError, match="expert's return is 40 and random's 60"):
        run._normalised(ENV, task, Scores((1.0,), None))
