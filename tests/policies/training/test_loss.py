"""The loss against plain loops in float64: legal ids, spread labels, weights, and every report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small import SMALL
from small_training import config, shards

from policies.model.network import GatoNetwork, Targets
from policies.training.data.packing import Packer
from policies.training.loss import batch_loss, mean_losses, spread_labels

SIGMA, BALANCE = 3.0, 0.25
CONTINUOUS, DISCRETE = 32_000, 33_024
STOPS = (3, 9, 3, 5, 1024)
"""How many discrete ids are legal at each of the first targets; those after them are of numbers."""


def targets_of(network: GatoNetwork, hidden: torch.Tensor) -> Targets:
    """Five discrete targets, three of them the likeliest legal id, and four continuous ones."""
    generator = np.random.default_rng(1)
    ids = []
    for slot, stop in enumerate(STOPS):
        logits = network.symbol_logits(hidden[0, slot], DISCRETE, DISCRETE + stop)
        ids.append(DISCRETE + int(logits.argmax() if slot in (0, 2, 4) else logits.argmin()))
    ids += [CONTINUOUS + value for value in (0, 1023, 511, 700)]
    continuous = [(CONTINUOUS, CONTINUOUS + 1024)] * 4
    legal = np.array([(DISCRETE, DISCRETE + stop) for stop in STOPS] + continuous)
    return Targets(
        slots=torch.arange(9),
        ids=torch.tensor(ids),
        starts=torch.from_numpy(legal[:, 0]),
        stops=torch.from_numpy(legal[:, 1]),
        places=torch.full((9,), -1),
        soft=torch.zeros(9, 0),
        weights=torch.from_numpy(generator.uniform(0.2, 1.0, 9).astype(np.float32)),
        tasks=torch.tensor([0, 1, 0, 1, 1, 2, 2, 1, 2]),
    )


def by_hand(network: GatoNetwork, hidden: torch.Tensor, targets: Targets) -> np.ndarray:
    """Weight, loss, and hit or error of each target: float64 ``[N, 3]``."""
    rows = []
    names = ("slots", "ids", "starts", "stops", "weights")
    columns = [getattr(targets, name).tolist() for name in names]
    for slot, id_, start, stop, weight in zip(*columns, strict=True):
        with torch.no_grad():
            logits = network.symbol_logits(hidden.flatten(0, 1)[slot], start, stop)
        shares = np.exp(logits.double().numpy())
        shares /= shares.sum()
        places, label = np.arange(stop - start), id_ - start
        if start == DISCRETE:
            said = (places == label).astype(float)
            score = float(shares.argmax() == label)
        else:
            said = np.exp(-((places - label) ** 2) / (2 * SIGMA**2))
            said /= said.sum()
            score = abs(float((shares * places).sum()) - label) / 512
        rows.append((weight, -float((said * np.log(shares)).sum()), score))
    return np.array(rows)


@pytest.fixture(scope="module")
def network() -> GatoNetwork:
    torch.manual_seed(0)
    return GatoNetwork(SMALL)


def test_every_figure_of_a_loss_is_that_of_plain_loops(network: GatoNetwork) -> None:
    settings = config(sigma=SIGMA, balance=BALANCE)
    packer = Packer(shards(), settings.mixture, SMALL, rows=1, length=96, seed=0)
    hidden = 4 * torch.randn(1, 12, SMALL.width)
    targets = targets_of(network, hidden)
    batch = dataclasses.replace(packer.batch(0), targets=targets)
    report = batch_loss(network, hidden, batch, settings, tasks=3)
    expected = by_hand(network, hidden, targets)
    weight, loss = expected[:, 0], expected[:, 1]
    factor = np.where(np.arange(9) < 5, 1.0, BALANCE)
    assert expected[:5, 2].tolist() == [1, 0, 1, 0, 1]
    assert float(report.scale) == pytest.approx((factor * weight).sum(), rel=1e-6)
    assert float(report.total.detach()) == pytest.approx((factor * weight * loss).sum(), rel=1e-5)
    columns = np.stack([weight, weight * loss, weight * expected[:, 2]], axis=1)
    sums = [*columns[:5].sum(0), *columns[5:].sum(0), 0, 0, 0]
    assert report.sums.tolist() == pytest.approx(sums, rel=1e-4)
    by_task = [columns[targets.tasks.numpy() == task, :2].sum(0) for task in range(3)]
    assert np.allclose(report.tasks.numpy(), by_task, rtol=1e-5)


def test_mean_losses_are_over_all_targets_of_all_batches(network: GatoNetwork) -> None:
    settings = config()
    packer = Packer(shards(), settings.mixture, SMALL, rows=1, length=96, seed=0)
    batches = [packer.batch(index) for index in range(3)]
    means = mean_losses(network, batches, sigma=SIGMA, balance=BALANCE)
    assert network.training
    network.eval()
    with torch.no_grad():
        parts = [by_hand(network, network(batch), batch.targets) for batch in batches]
    network.train()
    all_targets = np.concatenate(parts)
    is_discrete = np.concatenate([batch.targets.ids.numpy() >= DISCRETE for batch in batches])
    weight, loss, score = all_targets.T
    factor = np.where(is_discrete, 1.0, BALANCE) * weight
    assert means == pytest.approx(
        {
            "loss": (factor * loss).sum() / factor.sum(),
            "discrete_loss": np.average(loss[is_discrete], weights=weight[is_discrete]),
            "discrete_accuracy": np.average(score[is_discrete], weights=weight[is_discrete]),
            "continuous_loss": np.average(loss[~is_discrete], weights=weight[~is_discrete]),
            "continuous_error": np.average(score[~is_discrete], weights=weight[~is_discrete]),
        },
        rel=1e-4,
    )


def test_spread_labels_are_gaussians_cut_at_the_edges() -> None:
    spread = spread_labels(torch.tensor([0, 5]), 11, 2.0)
    assert torch.allclose(spread.sum(1), torch.ones(2))
    assert float(spread[1, 5] / spread[1, 7]) == pytest.approx(np.exp(0.5), rel=1e-5)
    assert torch.equal(spread[1], spread[1].flip(0))
    assert spread[0].argmax() == 0
    assert spread_labels(torch.tensor([3]), 4, 0.0).tolist() == [[0.0, 0.0, 0.0, 1.0]]
