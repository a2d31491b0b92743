"""The Decision Transformer's equations, and that it acts as it was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import random_shard, state_plan, talking_plan

from gato_gym import PlanOptions, compile_plan
from policies.dt.network import DtBatch, DtConfig, DtNetwork
from policies.dt.policy import DtPolicy
from policies.model.config import NetworkConfig, fitted
from policies.one_task.policy import bins_of, choices_of, values_of
from policies.returns import ReturnScale
from policies.training.data.shards import TaskShard
from policies.training.families.dt import dt_batch

BLOCKS = NetworkConfig(
    width=24, layers=2, heads=2, head_size=8, feed_forward=16, text_rank=4, vector_hidden=16,
    grid_channels=8, grid_groups=2, vector_size=16,
)  # fmt: skip
CONTEXT = 4


def network(plan: Any) -> DtNetwork:
    torch.manual_seed(0)
    return DtNetwork(DtConfig(fitted(BLOCKS, [plan]), choices_of(plan), CONTEXT, longest=9)).eval()


def rewarded_shard(plan: Any) -> TaskShard:
    shard = random_shard(plan, "act", episodes=5)
    rewards = np.random.default_rng(8).normal(size=shard.num_steps)
    shard.arrays["rewards"] = rewards.astype(np.float32)
    return shard


def windows_of(shard: TaskShard) -> list[range]:
    first, second = int(shard.starts[1]), int(shard.ends[2])
    return [range(first, first + 4), range(first + 3, first + 5), range(second - 1, second)]


@pytest.mark.parametrize("plan", [state_plan(), talking_plan()], ids=["numbers", "choices"])
def test_an_action_is_predicted_from_the_returns_states_and_actions_before_it(plan: Any) -> None:
    """Against a sequence that is written out token by token, and cut after the state."""
    shard, net = rewarded_shard(plan), network(plan)
    windows = windows_of(shard)
    batch = dt_batch(shard, windows)
    predicted = net(batch)
    states = net.embed_states(batch.states).unflatten(0, batch.returns.shape)
    for row, window in enumerate(windows):
        tokens: list[torch.Tensor] = []
        for place, step in enumerate(window):
            episode = int(np.searchsorted(shard.ends, step, side="right"))
            rewards = shard.arrays["rewards"][step : shard.ends[episode]].astype(float)
            largest = np.abs(shard.returns_to_go).max()
            number = min(step - int(shard.starts[episode]), 8)
            when = net.embed_timestep.weight[number]
            to_go = torch.tensor([rewards.sum() / largest]).float()
            tokens += [net.embed_return(to_go) + when, states[row, place] + when]
            hidden = net.hidden(torch.stack(tokens)[None])[0, -1]
            expected = net.head(hidden)
            if all(count == 0 for count in net.config.actions):
                expected = expected.tanh()
            torch.testing.assert_close(predicted[row, place], expected, atol=2e-5, rtol=1e-4)
            ids = shard.arrays["actions"][step] - np.asarray(plan.action_ranges)[:, 0]
            encoded = net.encode_actions(torch.from_numpy(ids.astype(np.int64)))
            tokens.append(net.embed_action(encoded) + when)


def test_numbers_have_a_squared_error_and_choices_a_cross_entropy() -> None:
    plan = state_plan()
    shard, net = rewarded_shard(plan), network(plan)
    batch = dt_batch(shard, windows_of(shard))
    errors, off = net.errors(net(batch), batch.actions)
    chosen = values_of(plan, batch.actions.numpy())
    wrong = net(batch).detach().numpy() - chosen
    np.testing.assert_allclose(errors.detach(), (wrong**2).mean(-1), rtol=1e-4)
    np.testing.assert_allclose(off, np.abs(wrong).mean(-1), rtol=1e-4)
    plan = talking_plan()
    shard, net = rewarded_shard(plan), network(plan)
    batch = dt_batch(shard, windows_of(shard))
    logits = net(batch).detach().numpy().astype(float)
    errors, off = net.errors(net(batch), batch.actions)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    picked = np.take_along_axis(shares, batch.actions.numpy(), -1)[..., 0]
    np.testing.assert_allclose(errors.detach(), -np.log(picked), rtol=1e-4)
    np.testing.assert_array_equal(off, logits.argmax(-1) != batch.actions.numpy()[..., 0])


def test_a_window_ends_with_its_episode_and_padding_is_not_predicted() -> None:
    shard = rewarded_shard(state_plan())
    batch = dt_batch(shard, windows_of(shard))
    assert batch.mask.sum(1).tolist() == [4, 2, 1]
    assert batch.timesteps[:2].tolist() == [[0, 1, 2, 3], [3, 4, 4, 4]]
    last = shard.ends[2] - 1
    assert batch.timesteps[2, 0] == last - shard.starts[2]
    assert batch.task_tokens == {"act": 3 * 7}
    to_go = shard.arrays["rewards"][last] / np.abs(shard.returns_to_go).max()
    assert float(batch.returns[2, 0]) == pytest.approx(float(to_go), abs=1e-6)


def test_it_acts_as_it_was_trained_beyond_its_context() -> None:
    """Eleven timesteps of two rows, against the batch of the last four that training would make."""
    plan = state_plan()
    net, generator = network(plan), np.random.default_rng(1)
    policy = DtPolicy(net, plan, returns=ReturnScale(scale=5.0, best=4.0, expert=3.0))
    assert policy.target_return == 4.0
    seen = generator.uniform(-1, 1, (11, 2, 3)).astype(np.float32)
    rewards = generator.normal(size=(11, 2))
    state: Any = None
    actions: list[np.ndarray[Any, Any]] = []
    for step in range(11):
        chosen, state = policy.predict(seen[step], state)
        ids = plan.encode_actions(chosen) - np.asarray(plan.action_ranges)[:, 0]
        actions.append(ids)
        begin = max(0, step + 1 - CONTEXT)
        for row in range(2):
            steps = slice(begin, step + 1)
            arrays = plan.encode_batch(seen[steps, row])
            shard = TaskShard(
                "act", plan,
                {
                    "ids": arrays.ids, "vectors": arrays.vectors, "grids": arrays.grids,
                    "images": arrays.images, "text_index": np.zeros(step + 1 - begin, np.int64),
                    "actions": np.stack(actions[begin:])[:, row]
                    + np.asarray(plan.action_ranges)[:, 0],
                    "rewards": np.zeros(step + 1 - begin, np.float32),
                    "ends": np.array([step + 1 - begin]),
                },
                "act",
            )  # fmt: skip
            batch = dt_batch(shard, [range(step + 1 - begin)])
            left = [(4.0 - rewards[:t, row].sum()) / 5.0 for t in range(begin, step + 1)]
            numbers = torch.arange(begin, step + 1)[None]
            batch = DtBatch(
                batch.states, torch.tensor([left]).float(), batch.actions, numbers, batch.mask
            )
            expected = net(batch)[0, -1].detach().numpy()
            got = values_of(plan, ids[row])
            np.testing.assert_allclose(got, expected, atol=1.1 / 1024)
        for row in range(2):
            policy.observe_reward(state, row, float(rewards[step, row]))


def test_another_return_is_another_view() -> None:
    plan = state_plan()
    policy = DtPolicy(network(plan), plan, returns=ReturnScale(10.0, 8.0, 6.0))
    assert policy.with_return(0.5).target_return == 3.0
    assert policy.with_return(total=2.0).target_return == 2.0
    assert policy.with_return(0.5).network is policy.network
    first = np.zeros(3, np.float32)
    high, low = (policy.with_return(total=total).predict(first)[0] for total in (80.0, -80.0))
    assert not np.array_equal(high, low)


def test_images_and_mixed_actions_have_a_place() -> None:
    seen = spaces.Box(0, 255, (36, 36, 2), np.uint8)
    acted = spaces.Dict(press=spaces.Discrete(3), turn=spaces.Box(-1, 1, (2,), np.float32))
    plan = compile_plan(seen, acted, PlanOptions(image_size=36))
    policy = DtPolicy(network(plan), plan)
    observations = np.random.default_rng(0).integers(0, 256, (3, 36, 36, 2), np.uint8)
    actions, _ = policy.predict(observations)
    assert actions["press"].shape == (3,)
    assert actions["turn"].shape == (3, 2)
    alone, _ = policy.predict(observations[1], deterministic=True)
    together, _ = policy.predict(observations, deterministic=True)
    assert acted.contains(alone)
    assert np.array_equal(alone["turn"], together["turn"][1])


def test_numbers_and_bins_are_inverse() -> None:
    plan = state_plan()
    bins = np.random.default_rng(0).integers(0, 1024, (50, 2))
    assert np.array_equal(bins_of(plan, values_of(plan, bins)), bins)
    assert bins_of(plan, np.array([[-9.0, 9.0]])).tolist() == [[0, 1023]]
    spoken = talking_plan()
    assert bins_of(spoken, np.array([[7.0]])).tolist() == [[4]]
