"""Training: it learns, it resumes bit for bit, it refuses what it cannot go on with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small import SMALL, random_shard, state_plan, talking_plan

from policies.training.config import TrainConfig
from policies.training.loop import NonFiniteLossError, Trainer
from policies.training.loss import spread_labels
from policies.training.optimiser import OptimiserConfig, orthogonalise, schedule
from policies.training.packing import Mixture
from policies.training.shards import TaskShard


def shards() -> dict[str, TaskShard]:
    made = {"talk": random_shard(talking_plan(), "talk"), "act": random_shard(state_plan(), "act")}
    for shard in made.values():  # an action that the observation decides
        first = shard.arrays["vectors"][:, 0, 1] > 0
        low, high = shard.plan.action_ranges[0]
        shard.arrays["actions"][:, 0] = np.where(first, low, high - 1)
    return made


def config(**changes: object) -> TrainConfig:
    base = TrainConfig(
        network=SMALL,
        mixture=Mixture({"talk": 0.5, "act": 0.5}, prompt_share={"talk": 0.25, "act": 0.25}),
        optimiser=OptimiserConfig(warmup=5, rate=5e-3),
        steps=60,
        rows=4,
        length=96,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def losses(trainer: Trainer, count: int) -> list[float]:
    reports = [trainer.update()[0] for _ in range(count)]
    return [float(report.total / report.scale) for report in reports]


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_the_loss_falls(tmp_path: Path, name: str) -> None:
    optimiser = OptimiserConfig(name=name, warmup=5, rate=5e-3)
    trainer = Trainer(config(optimiser=optimiser), shards(), tmp_path)
    trainer.resume()
    found = losses(trainer, 50)
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])


def test_resuming_gives_the_same_losses(tmp_path: Path) -> None:
    straight = Trainer(config(), shards(), tmp_path / "a")
    straight.resume()
    expected = losses(straight, 16)
    first = Trainer(config(), shards(), tmp_path / "b")
    first.resume()
    assert losses(first, 8) == expected[:8]
    first.save()
    second = Trainer(config(), shards(), tmp_path / "b")
    second.resume()
    assert second.step == 8
    assert losses(second, 8) == expected[8:]


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    Trainer(config(), shards(), tmp_path).resume()
    other = Trainer(config(seed=4), shards(), tmp_path)
    with pytest.raises(ValueError, match=r"seed: 0 there, 4 now"):
        other.resume()


def test_a_loss_that_is_no_number_leaves_the_weights(tmp_path: Path) -> None:
    trainer = Trainer(config(), shards(), tmp_path)
    with torch.no_grad():
        trainer.network.head.bias.fill_(float("nan"))
    before = trainer.network.backbone.blocks[0].qkv.weight.clone()
    with pytest.raises(NonFiniteLossError, match="step 0"):
        trainer.update()
    assert torch.equal(trainer.network.backbone.blocks[0].qkv.weight, before)


def test_run_writes_a_curve_and_a_checkpoint(tmp_path: Path) -> None:
    network = None
    trainer = Trainer(config(steps=50), shards(), tmp_path, every=25)
    trainer.resume()
    trainer.run()
    network = trainer.network
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert rows[0].startswith("step,tokens,minutes,loss")
    assert rows[1].split(",")[:2] == ["50", str(50 * 4 * 96)]
    assert json.loads((tmp_path / "last" / "progress.json").read_text())["step"] == 50
    assert network is not None


def test_spread_labels_are_gaussians_cut_at_the_edges() -> None:
    spread = spread_labels(torch.tensor([0, 5]), 11, 2.0)
    assert torch.allclose(spread.sum(1), torch.ones(2))
    assert float(spread[1, 5] / spread[1, 7]) == pytest.approx(np.exp(0.5), rel=1e-5)
    assert torch.equal(spread[1], spread[1].flip(0))
    assert spread[0].argmax() == 0
    assert spread_labels(torch.tensor([3]), 4, 0.0).tolist() == [[0.0, 0.0, 0.0, 1.0]]


def test_orthogonalised_matrix_has_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((24, 24), (8, 40), (40, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.5


def test_schedule_rises_holds_and_falls_to_nothing() -> None:
    settings = OptimiserConfig(warmup=10, cooldown=0.5)
    shares = [schedule(step, 100, settings) for step in (0, 4, 20, 50, 75, 99)]
    assert shares == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.02])
