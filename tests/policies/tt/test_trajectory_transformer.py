"""The Trajectory Transformer's equations, its search against one that is written out, its cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import random_shard, state_plan, talking_plan

from gato_gym import compile_plan
from policies.model.config import NetworkConfig
from policies.training.families.tt import bins_for, transitions_of, tt_batch
from policies.tt.discretizer import Discretizer
from policies.tt.network import TtConfig, TtNetwork
from policies.tt.policy import TOGETHER, TtPolicy, check_plan, fitted
from policies.tt.search import Search, plan

BLOCKS = NetworkConfig(width=24, layers=2, heads=2, head_size=8, feed_forward=16)
SIZES = fitted(TtConfig(BLOCKS, observations=3, actions=2, bins=6, context=5, discount=0.9))


def network() -> TtNetwork:
    torch.manual_seed(0)
    net = TtNetwork(SIZES).eval().requires_grad_(False)
    torch.nn.init.normal_(net.table.weight)
    torch.nn.init.normal_(net.heads, std=0.3)
    net.edges[:] = torch.linspace(-1, 1, 7)
    return net


def tokens_of(rows: int, transitions: int, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(6, (rows, 7 * transitions), generator=generator)


def test_every_number_is_predicted_from_those_before_it_by_its_own_layer() -> None:
    net, tokens = network(), tokens_of(2, 3)
    logits = net(tokens)
    for stop in (1, 4, 7, 13, 20):  # cut after a token: what comes later is not seen
        x = net.backbone(
            net.embed(tokens[:, :stop], torch.arange(stop) % 7),
            torch.arange(stop).expand(2, stop),
            torch.ones(1, 1, stop, stop, dtype=torch.bool).tril(),
        )
        dimension = stop % 7
        expected = x[:, -1] @ net.heads[dimension].T + net.biases[dimension]
        torch.testing.assert_close(logits[:, stop - 1], expected, atol=2e-5, rtol=1e-4)


def test_the_loss_is_the_cross_entropy_of_all_tokens_but_the_first() -> None:
    net, tokens = network(), tokens_of(2, 2)
    batch = tt_batch(
        tokens.view(4, 7).numpy(), random_shard(state_plan(), "act"), [range(2), range(2, 3)]
    )
    errors, misses = net.errors(batch)
    assert batch.mask.sum(1).tolist() == [14, 7]
    logits = net(batch.tokens).double().numpy()
    for row, place in ((0, 0), (0, 12), (1, 5)):
        shares = np.exp(logits[row, place]) / np.exp(logits[row, place]).sum()
        following = int(batch.tokens[row, place + 1])
        assert float(errors[row, place]) == pytest.approx(-np.log(shares[following]), rel=1e-4)
        assert bool(misses[row, place]) == (shares.argmax() != following)


def test_returns_are_predicted_and_never_read() -> None:
    net, tokens = network(), tokens_of(2, 3)
    others = tokens.clone()
    others[:, 6::7] = (tokens[:, 6::7] + 1) % 6
    assert torch.equal(net(tokens), net(others))
    others[:, 5] = (tokens[:, 5] + 1) % 6
    assert not torch.equal(net(tokens), net(others))


def test_steps_against_the_cache_equal_the_whole_sequence() -> None:
    net, tokens = network(), tokens_of(3, 4)
    cache = net.empty_cache(3)
    whole = net(tokens)
    for first, stop in ((0, 9), (9, 10), (10, 17), (17, 28)):
        got = net.step(tokens[:, first:stop], first, cache)
        torch.testing.assert_close(got, whole[:, stop - 1], atol=2e-5, rtol=1e-4)


def reference(
    net: TtNetwork, bins: Discretizer, context: list[int], search: Search, seed: int
) -> tuple[list[int], float]:
    """The search without a cache: whole sequences, one beam after another."""
    generator = np.random.default_rng(seed)

    def shares(sequence: list[int]) -> Any:
        return net(torch.tensor([sequence]))[0, -1].double().softmax(-1).numpy()

    def drawn(beams: list[list[int]]) -> list[int]:
        chosen, uniforms = [], generator.random(len(beams))
        for beam, uniform in zip(beams, uniforms, strict=True):
            each = shares(beam)
            likeliest = sorted(range(6), key=lambda b: -each[b])
            kept: list[int] = []
            for bin_ in likeliest:
                kept.append(bin_)
                if sum(each[k] for k in kept) >= search.action_share:
                    break
            rest = uniform * sum(each[k] for k in kept)
            for bin_ in kept:
                rest -= each[bin_]
                if rest <= 0:
                    break
            chosen.append(bin_)
        return chosen

    middle = [(bins.edges[d, :-1].astype(float) + bins.edges[d, 1:]) / 2 for d in range(7)]
    beams, earned, values = [list(context)], [0.0], [0.0]
    for depth in range(search.horizon):
        copies = search.draws * (search.beams if depth == 0 else 1)
        beams = [list(beam) for beam in beams for _ in range(copies)]
        earned = [value for value in earned for _ in range(copies)]
        for _ in range(2):
            for beam, token in zip(beams, drawn(beams), strict=True):
                beam.append(token)
        values = []
        for number, beam in enumerate(beams):
            each = shares(beam)
            reward = float(each @ middle[5])
            beam.append(int(each.argmax()))
            values.append(earned[number] + 0.9**depth * float(shares(beam) @ middle[6]))
            earned[number] += 0.9**depth * reward
        best = sorted(range(len(beams)), key=lambda n: -values[n])[: search.beams]
        beams, earned, values = ([part[n] for n in best] for part in (beams, earned, values))
        if depth + 1 < search.horizon:
            for beam in beams:
                beam.append(0)
                for _ in range(3):
                    beam.append(int(shares(beam).argmax()))
    at = len(context)
    return beams[0][at : at + 2], values[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_is_the_one_that_is_written_out(seed: int) -> None:
    net = network()
    bins = Discretizer(net.edges.numpy())
    search = Search(horizon=3, beams=3, draws=2, action_share=0.7, history=2)
    context = tokens_of(1, 2)[0, :10].numpy()
    contexts = np.stack([context, tokens_of(1, 2, seed=seed + 5)[0, :10].numpy()])
    seeds = seed, seed + 7
    generators = [np.random.default_rng(each) for each in seeds]
    actions, values = plan(net, bins, contexts, search, generators)
    for row in range(2):
        expected, worth = reference(net, bins, contexts[row].tolist(), search, seeds[row])
        assert actions[row].tolist() == expected
        assert values[row] == pytest.approx(worth, rel=1e-4)


def test_the_cost_that_is_printed_is_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    policy = TtPolicy(net, state_plan(), search=Search(horizon=3, beams=4, draws=2, history=2))
    passes: list[int] = []
    step = net.backbone.step
    monkeypatch.setattr(net.backbone, "step", lambda x, *a: passes.append(len(x)) or step(x, *a))
    state, counts = None, []
    for _ in range(5):
        passes.clear()
        _, state = policy.predict(np.zeros(3, np.float32), state)
        counts.append((len(passes), sum(passes)))
    expected = policy.search.cost(SIZES)
    assert counts[2:] == [expected] * 3  # constant once the history is full
    assert f"{expected[0]} forward passes of {expected[1]} tokens a step" in policy.describe()


def test_a_row_plans_alike_in_any_batch_and_beside_younger_episodes() -> None:
    policy = TtPolicy(network(), state_plan(), search=Search(horizon=2, beams=3, history=2))
    rows = TOGETHER + 3
    seen = np.random.default_rng(0).uniform(-1, 1, (4, rows, 3)).astype(np.float32)
    starts = np.zeros((4, rows), np.bool_)
    starts[0], starts[2, ::3] = True, True  # some episodes begin later
    state, actions = policy.seed_episodes(range(rows)), []
    for observations, begun in zip(seen, starts, strict=True):
        chosen, state = policy.predict(observations, state, begun)
        actions.append(chosen)
    for row in (0, 4, rows - 1):
        alone = policy.seed_episodes([row])
        for step in range(4):
            chosen, alone = policy.predict(seen[step, row], alone, starts[step, [row]])
            np.testing.assert_array_equal(chosen, actions[step][row])


def test_the_history_holds_what_happened() -> None:
    policy = TtPolicy(network(), state_plan(), search=Search(horizon=1, beams=2, history=2))
    seen = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
    _, state = policy.predict(seen[0])
    bins, first = policy.bins, state.actions[0].copy()
    policy.observe_reward(state, 0, 0.5)
    _, state = policy.predict(seen[1], state)
    values = (first + 0.5) / 512 - 1
    expected = [*bins.encode(seen[0]), *bins.encode(np.r_[values, 0.5], 3), 0]
    assert state.past[0, -1].tolist() == expected
    _, state = policy.predict(seen[2], state, np.array([True]))
    assert state.lengths.tolist() == [1]
    assert state.observed[0].tolist() == bins.encode(seen[2]).tolist()


def test_bins_hold_as_many_values_as_each_other_and_come_back_close() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 3)) ** 3
    bins = Discretizer.of(values, 50)
    tokens = bins.encode(values)
    for dimension in range(3):
        counts = np.bincount(tokens[:, dimension], minlength=50)
        assert counts.min() >= 19
        assert counts.max() <= 21
    widths = np.diff(bins.edges, axis=1)
    errors = np.abs(bins.decode(tokens) - values)
    assert (errors <= np.take_along_axis(widths.T, tokens, 0) / 2 + 1e-5).all()


def test_transitions_are_observation_action_reward_and_discounted_return() -> None:
    shard = random_shard(state_plan(), "act", episodes=3)
    rewards = np.random.default_rng(2).normal(size=shard.num_steps).astype(np.float32)
    shard.arrays["rewards"] = rewards
    numbers = transitions_of(shard, 0.9)
    start, stop = int(shard.starts[1]), int(shard.ends[1])
    expected = sum(0.9**k * float(rewards[start + k]) for k in range(stop - start))
    assert numbers[start, -1] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(numbers[:, -2], rewards)
    np.testing.assert_array_equal(numbers[:, :3], shard.arrays["vectors"][:, 0, :3])
    ids = shard.arrays["actions"] - np.asarray(shard.plan.action_ranges)[:, 0]
    np.testing.assert_allclose(numbers[:, 3:5], (ids + 0.5) / 512 - 1, atol=1e-6)
    choice = compile_plan(state_plan().observation_space, spaces.Discrete(3))
    chosen = random_shard(choice, "choice")
    chosen.arrays["rewards"] = np.zeros(chosen.num_steps, np.float32)
    numbers = transitions_of(chosen, 0.9)
    sizes = TtConfig(BLOCKS, observations=3, actions=1, bins=6)
    tokens = bins_for(chosen, numbers, sizes).encode(numbers)
    assert set(tokens[:, 3].tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(tokens[:, 3], numbers[:, 3])


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a Box of numbers, in the layout lean"):
        check_plan(talking_plan())
    with pytest.raises(ValueError, match=r"expected at most 5 transitions together"):
        TtPolicy(network(), state_plan(), search=Search(horizon=3, history=3))
    with pytest.raises(ValueError, match="has 7 choices: expected at most 6"):
        Discretizer(network().edges.numpy()).with_choices(3, 7)
