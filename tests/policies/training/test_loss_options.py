"""Options of the loss and of regularisation: each does what it says, and nothing while acting."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from recorded import make_shard
from small import SMALL, random_shard, state_plan, talking_plan

from gato_gym import PlanOptions, compile_plan
from policies.model.config import NetworkConfig
from policies.model.inputs.sequence import TimestepArrays
from policies.model.network import GatoNetwork, PackedBatch
from policies.model.observation_heads import ObservationHeads
from policies.training.config import TrainConfig, as_begun
from policies.training.data.augmentation import kept_blocks, noisy
from policies.training.data.packing import Mixture, Packer
from policies.training.data.shards import TaskShard
from policies.training.loss import (
    action_loss,
    batch_loss,
    choice_losses,
    continuous_losses,
    observation_loss,
)
from policies.training.optimizer import OptimiserConfig
from policies.training.trainer import Trainer

SEEING = dataclasses.replace(SMALL, observation_heads=True)


def shards() -> dict[str, TaskShard]:
    return {
        "talk": random_shard(talking_plan("all"), "talk"),
        "act": random_shard(state_plan(), "act", seed=1),
    }


def make_packer(
    network: NetworkConfig = SMALL, *, depth_drop: float = 0.0, **mixture: Any
) -> Packer:
    all_shards, share = shards(), {"talk": 0.5, "act": 0.5}
    options = {"length": 128, "seed": 3, "depth_drop": depth_drop}
    return Packer(all_shards, Mixture(share, share, **mixture), network, rows=4, **options)  # type: ignore[arg-type]


def config(**changes: Any) -> TrainConfig:
    mixture = Mixture({"talk": 0.5, "act": 0.5}, **changes.pop("mixture", {}))
    base = TrainConfig(
        SMALL, mixture, optimiser=OptimiserConfig(warmup=2), steps=8, rows=4, length=96
    )
    return dataclasses.replace(base, **changes)


def network_of(config: NetworkConfig) -> GatoNetwork:
    torch.manual_seed(0)
    return GatoNetwork(config)


# stochastic depth


def test_stochastic_depth_skips_in_training_alone() -> None:
    network, batch = network_of(SMALL), make_packer(depth_drop=0.5).batch(0)
    plain = dataclasses.replace(batch, residual_mask=None)
    assert batch.residual_mask is not None
    with torch.no_grad():
        network.eval()
        assert torch.equal(network(batch), network(plain))
        network.train()
        assert not torch.equal(network(batch), network(plain))
        ones = dataclasses.replace(batch, residual_mask=torch.ones_like(batch.residual_mask))
        assert torch.equal(network(ones), network(plain))
        none = dataclasses.replace(batch, residual_mask=torch.zeros_like(batch.residual_mask))
        embedded = network.embedding(batch.tokens, network.embedding.encode_texts(batch.texts))
        assert torch.equal(network(none), network.backbone.norm(embedded))


def test_stochastic_depth_skips_the_sub_layer_that_it_names() -> None:
    network, batch = network_of(SMALL), make_packer(depth_drop=0.5).batch(0)
    residual_mask = torch.ones(4, SMALL.layers, 2)
    residual_mask[1, 1, 0] = 0.0  # the second row's attention in the last block
    with torch.no_grad():
        whole = network(dataclasses.replace(batch, residual_mask=None))
        masked = network(dataclasses.replace(batch, residual_mask=residual_mask))
        network.backbone.blocks[1].attention_out.weight.zero_()  # type: ignore[union-attr]
        without = network(dataclasses.replace(batch, residual_mask=None))
    assert torch.allclose(masked[1], without[1], atol=1e-6)
    assert not torch.allclose(masked[1], whole[1], atol=1e-3)
    assert torch.equal(masked[0], whole[0])


def test_what_is_kept_is_scaled_to_the_expectation_of_all() -> None:
    drawn = np.concatenate(
        [kept_blocks(6, 0.1, np.random.default_rng(seed)).reshape(-1) for seed in range(800)]
    )
    assert set(np.unique(drawn).tolist()) == {0.0, float(np.float32(1 / 0.9))}
    assert drawn.mean() == pytest.approx(1.0, abs=0.02)


def test_two_ranks_draw_what_one_does() -> None:
    packer = make_packer(depth_drop=0.3, action_drop=0.5, observation_noise=0.2)
    whole, parts = packer.batch(7), [packer.batch(7, rank=rank, world=2) for rank in range(2)]
    for rank, part in enumerate(parts):
        assert part.residual_mask is not None
        assert whole.residual_mask is not None
        assert torch.equal(part.residual_mask, whole.residual_mask[rank::2])
        assert torch.equal(part.roles.memories, whole.roles.memories[rank::2])
    assert whole.residual_mask is not None
    assert len(whole.residual_mask.unique(dim=0)) > 1, "each row draws its own"
    assert whole.tokens.vectors is not None
    together = torch.cat([p.tokens.vectors.values for p in parts if p.tokens.vectors])
    assert torch.equal(together.sort(0).values, whole.tokens.vectors.values.sort(0).values)


# the next observation


def test_what_is_predicted_is_the_observation_that_follows() -> None:
    packer = make_packer(SEEING)
    batch, act = packer.batch(0), packer.shards["act"]
    assert batch.tokens.vectors is not None
    following = {
        row.tobytes(): (act.arrays["vectors"][i + 1, 0] if i + 1 not in act.ends else None)
        for i, row in enumerate(act.arrays["vectors"][:, 0])
    }
    seen = batch.tokens.vectors
    said = dict(zip(batch.next_parts["vectors"].slots.tolist(), range(10_000), strict=False))
    values = batch.next_parts["vectors"].values.numpy()
    live = batch.roles.prompts.flatten() == 0
    followed = ended = 0
    for slot, vector in zip(seen.slots.tolist(), seen.values.numpy(), strict=True):
        if vector.tobytes() not in following or not live[slot]:
            continue  # of the other task, or of a prompt
        wanted = following[vector.tobytes()]
        if wanted is None:
            ended += 1
            assert slot + 1 not in said
        else:
            followed += 1  # said by the token that predicts the second and last action token
            assert np.array_equal(values[said[slot + 1]], wanted)
    assert followed > 20
    assert ended > 0


def test_a_timestep_s_next_observation_counts_as_much_as_its_actions() -> None:
    """With heads that say 0, the loss of a vector is the mean square of its numbers."""
    network, packer = network_of(SEEING), make_packer(SEEING)
    batch = packer.batch(0)
    parts = batch.next_parts["vectors"]
    assert network.observation_heads is not None
    for parameter in network.observation_heads.parameters():
        torch.nn.init.zeros_(parameter)
    loss = observation_loss(network, network(batch), batch).detach()
    squares = parts.values.double().numpy()[:, :3] ** 2  # 3 numbers, 13 of padding
    assert float(loss) == pytest.approx(squares.mean(1).sum(), rel=1e-5)
    weight = 0.25
    settings = config(network=SEEING, observation_weight=weight)
    whole = batch_loss(network, network(batch), batch, settings)
    actions = action_loss(network, network(batch), batch.targets, sigma=4.0)
    expected = 0.75 * float(actions.total.detach()) + 0.25 * squares.mean(1).sum()
    assert float(whole.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(whole.scale, actions.scale)


def test_the_gradient_reaches_heads_and_backbone() -> None:
    network, batch = network_of(SEEING), make_packer(SEEING).batch(0)
    observation_loss(network, network(batch), batch).backward()
    assert network.observation_heads is not None
    gradient = network.observation_heads.vectors.weight.grad
    assert gradient is not None
    assert gradient[:3].abs().min() > 0
    assert network.backbone.blocks[0].qkv.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert network.head.weight.grad is None  # actions were not asked for


def test_every_kind_of_part_has_its_loss() -> None:
    space = spaces.Dict(
        grid=spaces.Box(0, 9, (5, 5, 2), np.uint8),
        picture=spaces.Box(0, 255, (16, 32, 3), np.uint8),
        number=spaces.Discrete(7),
    )
    options = PlanOptions(grids=("grid",), images=("picture",))
    plan = compile_plan(space, spaces.Discrete(3), options)
    space.seed(0)
    observations = [space.sample() for _ in range(6)]
    shard = make_shard(plan, [(observations, np.full((6, 1), 33024)) for _ in range(2)])
    packer = Packer({"test": shard}, Mixture({"test": 1.0}), SEEING, rows=1, length=64, seed=0)
    batch = packer.batch(0)
    assert {k: tuple(v.values.shape[1:]) for k, v in batch.next_parts.items()} == {
        "ids": (), "grids": (5, 5, 2), "images": (4, 16, 16),
    }  # fmt: skip
    heads = ObservationHeads(SEEING)

    def even(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(len(x), 50_000)

    for parameter in heads.parameters():
        torch.nn.init.zeros_(parameter)
    steps = sum(float(parts.weights.sum()) for parts in batch.next_parts.values())
    assert steps == pytest.approx(round(steps), abs=1e-4)
    assert 0 < round(steps) < len(batch.targets.slots)
    for kind, parts in batch.next_parts.items():
        n = len(parts.slots)
        losses = heads.losses(kind, torch.zeros(n, 32), parts.values, even)
        if kind == "images":
            wanted = parts.values.double().square().mean((1, 2, 3))
        else:
            wanted = torch.full((n,), np.log(50_000 if kind == "ids" else 16), dtype=torch.float64)
        assert torch.allclose(losses.double(), wanted, rtol=1e-5)
    whole = observation_loss(network_of(SEEING), torch.zeros(1, 64, 32), batch)
    assert torch.isfinite(whole)


# noise, and dropped actions


def test_noise_is_on_live_numbers_alone() -> None:
    clean, loud = make_packer().batch(0), make_packer(observation_noise=0.5).batch(0)
    assert clean.tokens.vectors is not None
    assert loud.tokens.vectors is not None
    assert torch.equal(clean.tokens.ids, loud.tokens.ids)
    assert torch.equal(clean.targets.ids, loud.targets.ids)
    change = (loud.tokens.vectors.values - clean.tokens.vectors.values).numpy()
    prompt = clean.roles.prompts.flatten()[clean.tokens.vectors.slots].numpy() == 1
    assert prompt.any()
    assert not change[prompt].any()
    assert not change[:, 3:].any()  # padding
    assert change[~prompt][:, :3].std() == pytest.approx(0.5, rel=0.1)
    assert abs(change[~prompt][:, :3].mean()) < 0.05


def test_noise_keeps_values_and_pixels_in_their_range() -> None:
    space = spaces.Dict(
        arm=spaces.Box(-1, 1, (40,), np.float32),
        picture=spaces.Box(0, 255, (16, 16, 3), np.uint8),
        number=spaces.Discrete(7),
    )
    plan = compile_plan(space, spaces.Discrete(3), PlanOptions(layout="paper"))
    space.seed(1)
    encoded = plan.encode_batch({k: np.stack([v] * 8) for k, v in space.sample().items()})
    before = TimestepArrays(
        encoded.ids, encoded.vectors, encoded.grids, encoded.images, np.zeros((8, 1), np.int32)
    )
    after = noisy(plan, before, 0.3, np.random.default_rng(0))
    values = plan.vocabulary.continuous
    is_value = (before.ids >= values.start) & (before.ids < values.stop)
    assert np.array_equal(after.ids[~is_value], before.ids[~is_value])
    assert after.ids[is_value].min() >= values.start
    assert after.ids[is_value].max() < values.stop
    moved = (after.ids - before.ids)[is_value]
    inside = np.abs(before.ids[is_value] - 32512) < 100  # far from both ends
    assert moved[inside].std() == pytest.approx(0.3 * 512, rel=0.3)
    assert after.images.dtype == np.uint8
    assert not np.array_equal(after.images, before.images)
    assert not np.array_equal(after.images[0], after.images[1])


def test_dropped_actions_are_hidden_from_later_timesteps() -> None:
    whole, dropped = make_packer().batch(0), make_packer(action_drop=0.4).batch(0)
    assert torch.equal(whole.tokens.ids, dropped.tokens.ids)
    assert torch.equal(whole.roles.positions, dropped.roles.positions)
    differs = whole.roles.memories != dropped.roles.memories
    past = (whole.roles.memories == 0) & (whole.roles.actions == 1) & (whole.roles.documents >= 0)
    assert not differs[~past].any()  # the other task, and what is no action
    assert not differs[whole.roles.prompts == 1].any()
    assert set(dropped.roles.memories[differs].tolist()) == {1}
    live = past & (whole.roles.prompts == 0)
    assert float(differs[live].float().mean()) == pytest.approx(0.4, abs=0.12)


# the whole run


def test_numeric_features_can_be_left_out(tmp_path: Path) -> None:
    plain = network_of(dataclasses.replace(SMALL, numeric_features=False))
    names = set(network_of(SMALL).state_dict()) - set(plain.state_dict())
    assert names == {"embedding.magnitude.weight", "embedding.magnitude.bias"}
    assert plain.embedding.symbol_table() is plain.embedding.symbols.weight
    ids = torch.tensor([32000, 32001, 33023])
    assert torch.equal(
        plain.embedding.embed_symbols(ids), plain.embedding.symbols.weight[ids - 32000]
    )


OPTIONS: dict[str, Any] = {
    "network": dataclasses.replace(SEEING, numeric_features=False),
    "observation_weight": 0.1,
    "depth_drop": 0.2,
    "mixture": {"action_drop": 0.3, "observation_noise": 0.1},
    "sigma": 0.0,
}


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_with_all_options_resumes_bit_for_bit(tmp_path: Path, recompute: bool) -> None:
    def trainer(folder: str) -> Trainer:
        options = {**OPTIONS, "mixture": dict(OPTIONS["mixture"])}
        resumed = Trainer(config(**options, recompute=recompute), shards(), tmp_path / folder)
        resumed.resume()
        return resumed

    def losses(trainer: Trainer, count: int) -> list[float]:
        reports = [trainer.update()[0] for _ in range(count)]
        return [float(report.total / report.scale) for report in reports]

    expected = losses(trainer("a"), 4)
    first = trainer("b")
    assert losses(first, 2) == expected[:2]
    first.save()
    assert losses(trainer("b"), 2) == expected[2:]


def test_a_run_that_knew_no_options_goes_on(tmp_path: Path) -> None:
    Trainer(config(), shards(), tmp_path).resume()
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    for name in ("observation_weight", "depth_drop"):
        del old[name]
    for name in ("action_drop", "observation_noise"):
        del old["mixture"][name]
    for name in ("numeric_features", "observation_heads"):
        del old["network"][name]
    old["mixture"]["smallest"] = 24  # which older versions had
    path.write_text(json.dumps(old))
    trainer = Trainer(config(), shards(), tmp_path)
    trainer.resume()
    assert trainer.packer.mixture.smallest == 24, "its batches are what they would have been"
    with pytest.raises(ValueError, match=r"depth_drop: 0.0 there, 0.1 now\)"):
        Trainer(config(depth_drop=0.1), shards(), tmp_path).resume()
    assert as_begun(config(), tmp_path / "nothing") == config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth_drop": 1.0}, "depth_drop is 1.0: expected 0 or more, less than 1"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"observation_weight": 0.1}, "is 0.1 and the network has no observation_heads"),
        ({"mixture": {"action_drop": 1.5}}, "action_drop is 1.5: expected 0 to 1"),
        ({"mixture": {"observation_noise": -0.1}}, "observation_noise is -0.1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_flex_attention_cannot_be_trained_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"FlexAttention cannot be trained: use 'auto'"):
        Trainer(config(), shards(), tmp_path, device="cpu", attention="flex")
    batch: PackedBatch = make_packer().batch(0)
    assert batch.residual_mask is None
    assert not batch.next_parts


def test_a_choices_label_is_what_the_expert_chose_from() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4)
    logits[:, 3] = float("-inf")  # not legal
    soft = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    labels = torch.tensor([2, 0, 1])
    logs = logits[:, :3].double().log_softmax(1)
    by_hand = [-(logs[0] * soft[0]).sum(), -logs[1, 0], -logs[2, 1]]
    losses = choice_losses(logits, labels, soft)
    assert losses.tolist() == pytest.approx([float(loss) for loss in by_hand], rel=1e-5)
    hard = choice_losses(logits, labels, torch.zeros(3, 0))
    assert hard.tolist() == pytest.approx((-logs[range(3), labels]).tolist(), rel=1e-5)


def test_an_experts_deviation_widens_the_label_of_a_number() -> None:
    torch.manual_seed(0)
    network = GatoNetwork(SMALL)
    hidden, labels = torch.randn(2, SMALL.width), torch.tensor([500, 100])
    predicted = (hidden, torch.arange(2), torch.full((2,), -1))
    soft = torch.tensor([[0.1], [0.0]])  # 51.2 bins, and nothing said
    with torch.no_grad():
        losses, _ = continuous_losses(network, predicted, labels, soft, sigma=4.0)
    ids = network.config.vocabulary.continuous
    with torch.no_grad():
        logs = network.symbol_logits(hidden, ids.start, ids.stop).double().log_softmax(1)
    bins = torch.arange(len(ids), dtype=torch.float64)
    for row, sigma in ((0, 51.2), (1, 4.0)):
        weights = torch.exp(-0.5 * ((bins - labels[row]) / sigma) ** 2)
        by_hand = -(logs[row] * weights / weights.sum()).sum()
        assert float(losses[row]) == pytest.approx(float(by_hand), rel=1e-4)


def test_a_regressed_number_has_hubers_loss() -> None:
    torch.manual_seed(0)
    network = GatoNetwork(dataclasses.replace(SMALL, continuous_head="regression"))
    predicted = (torch.randn(2, SMALL.width), torch.arange(2), torch.full((2,), -1))
    numbers = network.action_heads.numbers(*predicted).detach()
    far = [(float(number) + 1) * 512 for number in numbers]  # the bins that they fall into
    labels = torch.tensor([int(far[0]) + 10, int(far[1]) + 300])
    with torch.no_grad():
        losses, misses = continuous_losses(network, predicted, labels, torch.zeros(2, 0), sigma=4)
    centres = (labels.double() + 0.5) / 512 - 1
    errors = (numbers.double() - centres).abs() / 0.1
    assert float(errors[0]) < 1 < float(errors[1])
    assert float(losses[0]) == pytest.approx(0.5 * float(errors[0]) ** 2, rel=1e-4)
    assert float(losses[1]) == pytest.approx(float(errors[1]) - 0.5, rel=1e-4)
    assert misses.tolist() == pytest.approx((0.1 * errors).tolist(), rel=1e-4)
