"""Training: it learns, it resumes bit for bit, it refuses what it cannot go on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import config, losses, shards

from policies.training.optimizer import OptimiserConfig, orthogonalise, published, schedule
from policies.training.trainer import NonFiniteLossError, Trainer


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_the_loss_falls(tmp_path: Path, name: str) -> None:
    optimiser = OptimiserConfig(name=name, warmup=5, rate=5e-3)
    trainer = Trainer(config(optimiser=optimiser), shards(), tmp_path)
    trainer.resume()
    curve = losses(trainer, 50)
    assert np.mean(curve[-5:]) < 0.8 * np.mean(curve[:5])


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


def test_a_checkpoint_of_unknown_configuration_is_refused(tmp_path: Path) -> None:
    begun = Trainer(config(), shards(), tmp_path)
    begun.resume()
    begun.save()
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="not known: put the file back"):
        Trainer(config(), shards(), tmp_path).resume()
    assert not (tmp_path / "config.json").exists()


def test_a_loss_that_is_no_number_leaves_the_weights(tmp_path: Path) -> None:
    trainer = Trainer(config(), shards(), tmp_path)
    trainer.resume()
    trainer.update()
    trainer.save()
    with torch.no_grad():
        trainer.network.head.bias.fill_(float("nan"))
    before = trainer.network.backbone.blocks[0].qkv.weight.clone()
    with pytest.raises(NonFiniteLossError) as error:
        trainer.update()
    assert torch.equal(trainer.network.backbone.blocks[0].qkv.weight, before)
    for part in ("loss is nan at step 1", "batch of act, talk", f"checkpoint is {tmp_path}/last"):
        assert part in str(error.value)


def test_a_gradient_that_is_no_number_leaves_the_weights(tmp_path: Path) -> None:
    trainer = Trainer(config(), shards(), tmp_path)
    before = trainer.network.head.weight.clone()
    trainer.network.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        NonFiniteLossError, match=r"norm is (nan|inf) at step 0.*there is no checkpoint"
    ):
        trainer.update()
    assert torch.equal(trainer.network.head.weight, before)


def first_gradient(folder: Path, **changes: object) -> tuple[float, float, torch.Tensor]:
    """Loss, the gradient's norm, and the weights' change, of one update."""
    trainer = Trainer(config(**changes), shards(), folder)
    before = trainer.network.backbone.blocks[1].qkv.weight.detach().clone()
    report, norm = trainer.update()
    after = trainer.network.backbone.blocks[1].qkv.weight.detach()
    return float(report.total / report.scale), norm, after - before


def test_a_batch_in_parts_or_with_activations_twice_is_the_same_update(tmp_path: Path) -> None:
    trainer = Trainer(config(balance=0.25), shards(), tmp_path)
    (batch,), _ = trainer._batches(0)
    with torch.no_grad():
        whole = trainer._loss(batch)
    loss, norm, change = first_gradient(tmp_path, balance=0.25)
    assert loss == pytest.approx(float(whole.total / whole.scale), rel=1e-6)
    for number, changes in enumerate(({"accumulate": 2}, {"accumulate": 3}, {"recompute": True})):
        update = first_gradient(tmp_path / str(number), balance=0.25, **changes)
        assert update[:2] == pytest.approx((loss, norm), rel=1e-5)
        assert torch.allclose(update[2], change, atol=2e-5)
    with pytest.raises(ValueError, match="accumulate is 5 for 4 rows"):
        config(accumulate=5)


def test_bfloat16_learns_as_float32_does(tmp_path: Path) -> None:
    trainer = Trainer(config(precision="bfloat16"), shards(), tmp_path)
    exact = Trainer(config(), shards(), tmp_path)
    half, wanted = losses(trainer, 12), losses(exact, 12)
    assert half != wanted
    assert half == pytest.approx(wanted, rel=0.05)
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Settings that it did not know are taken to have had their defaults."""
    Trainer(config(), shards(), tmp_path).resume()
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    for name in ("accumulate", "recompute", "precision"):
        del old[name]
    for name in ("shape", "first", "last"):
        del old["optimiser"][name]
    path.write_text(json.dumps(old))
    Trainer(config(), shards(), tmp_path).resume()
    with pytest.raises(ValueError, match="accumulate: 1 there, 2 now"):
        Trainer(config(accumulate=2), shards(), tmp_path).resume()


def test_averaged_weights_are_an_exponential_average(tmp_path: Path) -> None:
    settings = config(optimiser=OptimiserConfig(warmup=1, average=0.5))
    trainer = Trainer(settings, shards(), tmp_path)
    average = trainer.network.head.bias.detach().double().clone()
    for step in range(4):
        trainer.update()
        decay = min(0.5, (step + 1) / (step + 10))
        average = decay * average + (1 - decay) * trainer.network.head.bias.detach().double()
    assert torch.allclose(trainer.optimiser.average["head.bias"].double(), average, atol=1e-6)


def test_run_writes_a_curve_and_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(config(steps=6), shards(), tmp_path, save_every=3, log_every=6)
    trainer.resume()
    trainer.run()
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("step,tokens,minutes,loss")
    assert rows[1].split(",")[:2] == ["6", str(6 * 4 * 96)]
    assert json.loads((tmp_path / "last" / "progress.json").read_text())["step"] == 6


def test_orthogonalised_matrix_has_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((24, 24), (8, 40), (40, 8)):
        matrix = torch.randn(shape)
        for half in (False, True):
            result = orthogonalise(matrix, half=half)
            values = torch.linalg.svdvals(result)
            assert result.dtype == torch.float32
            assert values.min() > 0.3
            assert values.max() < 1.5


def test_schedule_rises_holds_and_falls_to_nothing() -> None:
    settings = OptimiserConfig(warmup=10, cooldown=0.5)
    shares = [schedule(step, 100, settings) for step in (0, 4, 20, 50, 75, 99)]
    assert shares == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.02])


def test_the_published_schedule() -> None:
    settings = published()
    rates = [1e-4 * schedule(step, 1_000_000, settings) for step in (7_499, 14_999, 999_999)]
    assert rates == pytest.approx([5e-5, 1e-4, 1e-5], rel=2e-3)
    assert 1e-4 * schedule(0, 1_000_000, settings) == pytest.approx(1e-7, rel=0.1)
    middle = 15_000 + (1_000_000 - 15_000) // 2
    assert 1e-4 * schedule(middle, 1_000_000, settings) == pytest.approx(5.5e-5, rel=1e-3)
    assert (settings.name, settings.betas, settings.decay) == ("adamw", (0.9, 0.95), 0.1)
    with pytest.raises(ValueError, match="choose linear or cosine"):
        OptimiserConfig(shape="step")
    with pytest.raises(ValueError, match="choose muon or adamw"):
        OptimiserConfig(name="sgd")
