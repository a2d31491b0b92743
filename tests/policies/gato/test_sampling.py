"""Choices from logits: legal ones only, in the right proportions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SMALL

from gato_gym import PlanOptions, compile_plan
from policies import GatoPolicy
from policies.gato.sampling import Sampler
from policies.model.network import GatoNetwork


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_policy_chooses_each_token_by_its_kind_and_with_a_number_of_its_own(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    action_space = spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(7)])
    plan = compile_plan(spaces.Box(-1, 1, (3,)), action_space, PlanOptions(vector_size=16))
    policy = GatoPolicy(GatoNetwork(SMALL), plan, seed=7)
    logits: list[torch.Tensor] = []
    original = policy.network.symbol_logits

    def recorded(*arguments: Any) -> torch.Tensor:
        logits.append(3 * original(*arguments))
        return logits[-1]

    monkeypatch.setattr(policy.network, "symbol_logits", recorded)
    state, drawn = policy.seed_episodes([11]), np.random.default_rng([7, 11, 0])
    numbers = np.random.default_rng(0).uniform(-1, 1, (15, 1, 3)).astype(np.float32)
    for observation in numbers:
        action, state = policy.predict(observation, state, deterministic=deterministic)
        randoms = drawn.random(3, np.float32)
        shares = [each[0].double().softmax(0).numpy() for each in logits[-3:]]
        if deterministic:
            means = [round(float(share @ np.arange(1024))) for share in shares[:2]]
            expected = [*means, int(shares[2].argmax())]
        else:
            expected = [
                int(np.searchsorted(share.cumsum(), random))
                for share, random in zip(shares, randoms, strict=True)
            ]
        ids = plan.encode_action((action[0][0], action[1][0])) - plan.action_ranges[:, 0]
        assert ids.tolist() == pytest.approx(expected, abs=1), "float32 may round a bin away"
        assert ids[2] == expected[2]


def test_sampling_follows_the_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    logits = probabilities.log().repeat(10_000, 1)
    uniforms = torch.from_numpy((np.arange(10_000, dtype=np.float32) + 0.5) / 10_000)
    chosen = Sampler().choose(logits, uniforms, continuous=False, deterministic=False)
    frequencies = torch.bincount(chosen, minlength=4) / 10_000
    assert torch.allclose(frequencies, probabilities, atol=1e-3)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_what_cannot_be_is_never_chosen(uniform: float) -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]])
    chosen = Sampler().choose(
        logits, torch.tensor([uniform]), continuous=False, deterministic=False
    )
    assert chosen.tolist() == [1]


def test_temperatures_are_of_their_own_kind() -> None:
    logits = torch.tensor([[0.0, 1.0]]).repeat(1000, 1)
    uniforms = torch.linspace(0, 0.999, 1000)
    sampler = Sampler(temperature=0.1, continuous_temperature=10.0)
    shares = [
        sampler.choose(logits, uniforms, continuous=c, deterministic=False).float().mean().item()
        for c in (False, True)
    ]
    expected = [1 / (1 + np.exp(-10)), 1 / (1 + np.exp(-0.1))]
    assert shares == pytest.approx(expected, abs=2e-3)


def test_deterministic_choices() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0, 1.9]])
    none = torch.zeros(1)
    discrete = Sampler().choose(logits, none, continuous=False, deterministic=True)
    assert discrete.tolist() == [1]
    weights = np.exp([0.0, 2.0, 0.0, 1.9])
    mean = round(float(weights @ np.arange(4) / weights.sum()))
    assert mean == 2
    chosen = Sampler().choose(logits, none, continuous=True, deterministic=True)
    assert chosen.tolist() == [mean]
    mode = Sampler(continuous="mode").choose(logits, none, continuous=True, deterministic=True)
    assert mode.tolist() == [1]
    never = Sampler(continuous_temperature=0.0)
    chosen = never.choose(logits, none, continuous=True, deterministic=False)
    assert chosen.tolist() == [mean]


def test_a_peak_does_not_settle_between_two_ways_to_act() -> None:
    probabilities = torch.full((3, 1024), 1e-9)
    probabilities[0, [100, 110, 900]] = torch.tensor([0.4, 0.2, 0.4])
    probabilities[1, 0] = 1.0  # the window is cut at the edges
    probabilities[2, [0, 900, 964]] = torch.tensor([0.45, 0.25, 0.3])
    peak = Sampler(continuous="peak").choose(
        probabilities.log(), torch.zeros(3), continuous=True, deterministic=True
    )
    # (0.4 * 100 + 0.2 * 110) / 0.6, and (0.25 * 900 + 0.3 * 964) / 0.55
    assert peak.tolist() == [103, 0, 935]


def test_top_p_samples_the_likeliest_alone() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    uniforms = torch.linspace(0, 0.999, 300)
    for top_p, expected in (
        (0.4, {1}),
        (0.5, {1}),
        (0.6, {1, 3}),
        (0.8, {1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ):
        chosen = Sampler(top_p=top_p).choose(
            probabilities.log().expand(300, 4), uniforms, continuous=False, deterministic=False
        )
        assert set(chosen.tolist()) == expected
    # 0.5 and 0.25 are left, of which the first has two thirds
    share = Sampler(top_p=0.6).choose(
        probabilities.log().expand(300, 4), uniforms, continuous=False, deterministic=False
    )
    assert (share == 1).float().mean().item() == pytest.approx(2 / 3, abs=0.01)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0\.0: expected more than 0"):
        Sampler(temperature=0.0)
    with pytest.raises(ValueError, match=r"continuous_temperature is -1\.0: expected 0 or more"):
        Sampler(continuous_temperature=-1.0)
    with pytest.raises(ValueError, match=r"top_p is 0\.0: expected more than 0"):
        Sampler(top_p=0.0)
    with pytest.raises(ValueError, match="choose one of mode, mean"):
        Sampler(continuous="median")
