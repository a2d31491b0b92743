"""JatPolicy: what a full window does, rewards, modalities, and rows that are each their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from policies.jat.cache import TokenCache
from policies.jat.config import JatConfig
from policies.jat.modalities import JatSpaceError, normalized_captions
from policies.jat.policy import JatPolicy
from policies.rollout.vector_rollout import play_one

SMALL = JatConfig(
    hidden_size=60, num_layers=2, num_heads=2, window_size=6, max_position_embeddings=40,
    vocab_size=300, eos_token_id=299, max_continuous_size=9, max_discrete_value=68, image_size=16,
)  # fmt: skip
STATE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
FORCE = spaces.Box(-0.5, 0.5, (2,), np.float32)
FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)
GRID = spaces.Dict(
    direction=spaces.Discrete(4),
    image=spaces.Box(0, 255, (1, 1, 3), np.uint8),
    mission=spaces.Text(30),
)


class Spaces:
    """What a policy asks of an environment."""

    def __init__(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action


def make(
    observation: gym.Space[Any] = STATE, action: gym.Space[Any] = FORCE, **options: Any
) -> JatPolicy:
    policy = JatPolicy.create(Spaces(observation, action), config=SMALL, **options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.network.named_parameters():  # so that order and context show
        parameter.data = torch.randn(parameter.shape, generator=generator) * (
            0.5 if "wpe" in name else 0.15
        )
    return policy


def walk(steps: int, rows: int | None = None) -> NDArray[np.float32]:
    shape = (steps, 3) if rows is None else (steps, rows, 3)
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


class Tokens:
    """The embeddings of an episode, one after another, made apart from the policy."""

    def __init__(self, policy: JatPolicy) -> None:
        self.network, self.tokens = policy.network, [torch.zeros(0)] * 0

    def observe(self, observation: NDArray[np.float32], reward: float = 0.0) -> None:
        self._append(np.append(observation, np.float32(reward)))

    def _append(self, numbers: NDArray[np.float32]) -> None:
        repeated = np.resize(numbers, 9).astype(np.float32)
        self.tokens.append(self.network.continuous_encoder(torch.from_numpy(repeated)))

    def act(self, tokens: Tensor) -> NDArray[np.float32]:
        """The action after tokens ``[T, D]``, which is then a token itself."""
        hidden = self.network.transformer(tokens[None])[0, -1]
        return self.decode(hidden)

    def decode(self, hidden: Tensor) -> NDArray[np.float32]:
        action = self.network.continuous_decoder(hidden)[:2].numpy()
        self._append(action)
        return action


@pytest.mark.parametrize(("stride", "held"), [(1, 12), (3, 12), (None, 12), (1, 4), (1, 2)])
def test_exact_sliding_is_the_sequence_in_the_window(stride: int | None, held: int) -> None:
    """Each action is that of the window's tokens alone, at positions from 0 on."""
    policy = make(window=held, stride=stride)
    leaving = stride or held // 4
    sequence, state, sizes = Tokens(policy), None, []
    for observation in walk(25):
        action, state = policy.predict(observation, state)
        sequence.observe(observation)
        while len(sequence.tokens) > held:
            del sequence.tokens[: 2 * leaving]
        sizes.append(len(sequence.tokens))
        expected = sequence.act(torch.stack(sequence.tokens))
        np.testing.assert_allclose(action, expected.clip(-0.5, 0.5), atol=1e-5)
    assert max(sizes) == held - 1
    assert min(sizes[6:]) == held + 1 - 2 * leaving
    if stride == 1:
        assert sizes[6:] == [held - 1] * 19


def test_a_checkpoint_says_how_much_context_it_takes(tmp_path: Path) -> None:
    make().save(tmp_path / "before")
    config = replace(SMALL, context_tokens=2)
    JatPolicy.create(Spaces(STATE, FORCE), config=config).save(tmp_path / "after")
    windows = [
        JatPolicy.load(tmp_path / name, env=Spaces(STATE, FORCE), window=window).decoder.window
        for name, window in (("before", None), ("after", None), ("after", 8))
    ]
    assert windows == [40, 2, 8], "the most that there are positions for; the checkpoint's; asked"


def test_published_positions_are_the_published_loop() -> None:
    """Against transformers' GPT-Neo, whose cache is cut as the published loop cuts it."""
    from transformers import DynamicCache, GPTNeoConfig, GPTNeoModel

    window = 12
    policy = make(window=window, positions="published")
    model = GPTNeoModel(
        GPTNeoConfig(
            vocab_size=300, max_position_embeddings=40, hidden_size=60, num_layers=2, num_heads=2,
            attention_types=[[["global", "local"], 1]], window_size=6, bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()  # fmt: skip
    model.load_state_dict(policy.network.transformer.state_dict())
    sequence, state, cache = Tokens(policy), None, DynamicCache(config=model.config)
    fake = policy.network.embed_numbers(torch.zeros(2))
    clipped = 0
    for observation in walk(25):
        action, state = policy.predict(observation, state)
        sequence.observe(observation)
        inputs = torch.stack([*sequence.tokens[-3:], fake])[None]
        past = cache.get_seq_length()
        with torch.no_grad():
            out = model(
                inputs_embeds=inputs,
                past_key_values=cache,
                position_ids=torch.arange(past, past + inputs.shape[1])[None],
                use_cache=True,
            )
        for layer in cache.layers:  # without the two newest, and at most the context's
            layer.keys, layer.values = layer.keys[:, :, :-2], layer.values[:, :, :-2]
            layer.keys, layer.values = layer.keys[:, :, -window:], layer.values[:, :, -window:]
        expected = sequence.decode(out.last_hidden_state[0, -2])
        clipped += bool((np.abs(expected) > 0.5).any())
        np.testing.assert_allclose(action, expected.clip(-0.5, 0.5), atol=1e-5)
    assert cache.get_seq_length() == window
    assert clipped < 20, "clipped actions would hide differences"


def test_both_are_the_same_until_the_window_is_full() -> None:
    policies = [make(window=12), make(window=12, positions="published")]
    states: list[Any] = [None, None]
    differences = []
    for observation in walk(20):
        actions = []
        for place, policy in enumerate(policies):
            action, states[place] = policy.predict(observation, states[place])
            actions.append(action)
        differences.append(float(np.abs(actions[0] - actions[1]).max()))
    assert max(differences[:6]) < 1e-6
    assert max(differences[8:]) > 1e-4


@pytest.mark.parametrize(("positions", "window"), [("exact", 12), ("exact", 2), ("published", 12)])
def test_rows_of_any_age_act_as_alone(positions: str, window: int) -> None:
    """Bit for bit: rows begin anew at different times, before and after their window is full."""
    policy = make(window=window, positions=positions)
    observations = walk(30, rows=3)
    begins = {0: (0, 1, 2), 4: (1,), 11: (2,), 20: (0, 1)}
    state, actions = None, []
    for step, observation in enumerate(observations):
        starts = np.isin(np.arange(3), begins.get(step, ()))
        action, state = policy.predict(observation, state, starts)
        actions.append(action)
    for row in range(3):
        alone = None
        for step in range(30):
            if row in begins.get(step, ()):
                alone = None
            action, alone = policy.predict(observations[step, row], alone)
            np.testing.assert_array_equal(action, actions[step][row])


@pytest.mark.parametrize(("positions", "stride"), [("exact", None), ("exact", 1), ("published", 1)])
def test_the_cost_of_a_step_does_not_grow(
    positions: str, stride: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens encoded in a stretch of steps, and bytes kept, are the same early and late."""
    policy = make(window=12, positions=positions, stride=stride)
    encoded = 0
    step = type(policy.network.transformer).step

    def counting(self: Any, x_BTD: Tensor, *rest: Any, **options: Any) -> Tensor:
        nonlocal encoded
        encoded += x_BTD.shape[1]
        return step(self, x_BTD, *rest, **options)

    monkeypatch.setattr(type(policy.network.transformer), "step", counting)
    state, totals, sizes = None, [], set()
    for number, observation in enumerate(walk(60)):
        _, state = policy.predict(observation, state)
        totals.append(encoded)
        assert isinstance(state.cache, TokenCache)
        sizes.add((state.cache.nbytes, state.inputs.nbytes))
        assert number < 59 or len(sizes) == 1
    stretches = np.diff(np.array(totals)[11::12])
    assert len(set(stretches.tolist())) == 1
    assert stretches[0] <= 12 * (12 if stride == 1 else 4)


def test_rewards_are_read() -> None:
    policy = make()
    first, second = walk(2)
    sequence = Tokens(policy)
    _, state = policy.predict(first)
    sequence.observe(first)
    sequence.act(torch.stack(sequence.tokens))
    policy.observe_reward(state, 0, 3.0)
    action, _ = policy.predict(second, state)
    sequence.observe(second, 3.0)
    expected = sequence.act(torch.stack(sequence.tokens))
    np.testing.assert_allclose(action, expected.clip(-0.5, 0.5), atol=1e-5)
    _, other = policy.predict(first)
    assert np.abs(policy.predict(second, other)[0] - action).max() > 1e-4


class Paying(gym.Env[Any, Any]):
    """Five steps, each with another reward; keeps the actions."""

    observation_space, action_space = STATE, FORCE

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.actions: list[Any] = []
        return walk(6)[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        count = len(self.actions)
        return walk(6)[count], 2.0 * count, count == 5, False, {}


def test_rollouts_tell_rewards() -> None:
    env, policy = Paying(), make()
    play_one(env, policy, 0, deterministic=True)
    state: Any = None
    for step in range(5):
        action, state = policy.predict(walk(6)[step], state)
        np.testing.assert_array_equal(env.actions[step], action)
        policy.observe_reward(state, 0, 2.0 * (step + 1))


def test_images_are_of_minus_one_to_one() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 84, 84)).astype(np.uint8)
    policy = make(FRAMES, spaces.Discrete(5, start=2))
    assert policy.decoder.window == 32
    action, _ = policy.predict(frames, deterministic=True)
    x = policy.network.embed_images((torch.from_numpy(frames[None]).float() / 255 - 0.5) / 0.5)
    logits = policy.network.logits(policy.network.transformer(x[None])[0, 0])[:5]
    assert action == 2 + int(logits.argmax())
    last = make(spaces.Box(0, 255, (84, 84, 4), np.uint8), spaces.Discrete(5, start=2))
    _, state = policy.predict(frames)
    _, other = last.predict(frames.transpose(1, 2, 0))
    assert torch.equal(state.inputs, other.inputs)


def test_choices_are_drawn_with_their_probabilities() -> None:
    """4,000 rows of one observation: shares within four deviations of the softmax."""
    policy = make(action=spaces.Discrete(4))
    observation = walk(1)
    state = policy.seed_episodes(range(4000))
    actions, state = policy.predict(np.repeat(observation, 4000, 0), state)
    numbers = torch.from_numpy(np.resize(np.append(observation, 0), 9).astype(np.float32))
    x = policy.network.continuous_encoder(numbers)
    logits = policy.network.logits(policy.network.transformer(x[None, None])[0, 0])[:4]
    shares = np.bincount(actions, minlength=4) / 4000
    assert np.abs(shares - logits.softmax(0).numpy()).max() < 4 * np.sqrt(0.25 / 4000)
    likely, _ = policy.predict(observation[0], deterministic=True)
    assert likely == int(logits.argmax())


def test_discrete_observations_end_with_64_tokens_of_text() -> None:
    policy = make(GRID, spaces.Discrete(3))
    image = np.array([[[5, 6, 7]]], np.uint8)
    observation = {"direction": 3, "image": image, "mission": "go!"}
    _, state = policy.predict(observation)
    symbols = torch.tensor([3, 5, 6, 7, 70, 78, 0, *[299] * 61])
    expected = policy.network.embed_symbols(symbols, torch.tensor(0.0))
    torch.testing.assert_close(state.inputs[0, 0], expected)
    longer = {**observation, "mission": "go!" * 30}
    _, state = policy.predict(longer)
    symbols = torch.tensor([3, 5, 6, 7, *([70, 78, 0] * 30)[:64]])
    torch.testing.assert_close(
        state.inputs[0, 0], policy.network.embed_symbols(symbols, torch.tensor(0.0))
    )


def test_captions_are_normalised_as_clips() -> None:
    images = np.zeros((1, 16, 16, 3), np.uint8)
    images[..., 1] = 255
    pixels = normalized_captions(images)
    assert pixels.shape == (1, 3, 16, 16)
    expected = [-0.48145466 / 0.26862954, (1 - 0.4578275) / 0.26130258, -0.40821073 / 0.27577711]
    np.testing.assert_allclose(pixels[0, :, 3, 4], expected, rtol=1e-6)


def test_whole_numbers_of_a_box_are_rounded() -> None:
    policy = make(action=spaces.Box(-3, 3, (2,), np.int8))
    chosen = policy.decoder.modalities.actions_of(np.array([[0.6, -7.2]], np.float32))
    assert chosen.dtype == np.int8
    assert chosen.tolist() == [[1, -3]]


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(0, 1, (9,)), FORCE, "a Box of at most 8 numbers"),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), FORCE, "four frames of 84 x 84"),
        (spaces.Dict(a=STATE), FORCE, "a Dict of direction, image, mission"),
        (STATE, spaces.MultiDiscrete([2, 2]), "actions are of MultiDiscrete"),
        (STATE, spaces.Discrete(301), "expected Discrete"),
        (
            spaces.Dict(
                direction=spaces.Discrete(4), image=spaces.Box(0, 9, (2, 2, 3), np.uint8),
                mission=spaces.Text(9),
            ),
            FORCE, "observations have 77 symbols with their text: expected 68",
        ),
    ],
)  # fmt: skip
def test_spaces_without_a_modality(
    observation: gym.Space[Any], action: gym.Space[Any], message: str
) -> None:
    with pytest.raises(JatSpaceError, match=message):
        make(observation, action)


def test_a_text_needs_a_tokenizer() -> None:
    policy = make(GRID, FORCE)
    with pytest.raises(JatSpaceError, match=r"expected tokenizer\.json, or vocab\.json and merges"):
        JatPolicy(policy.network, GRID, FORCE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "rolling"}, "positions is 'rolling': expected one of"),
        ({"window": 11}, "window is 11 tokens: expected an even number of 2 to 40"),
        ({"window": 42}, "window is 42 tokens: expected an even number of 2 to 40"),
        ({"window": 40, "positions": "published"}, "an even number of 4 to 36"),
        ({"window": 2, "positions": "published"}, "expected an even number of 4 to 36"),
        ({"window": 8, "stride": 4}, "stride is 4 timesteps: expected 1 to 3"),
        ({"window": 2, "stride": 2}, "stride is 2 timesteps: expected 1 to 1"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_observations_that_are_no_numbers() -> None:
    observation = walk(2)
    observation[1, 2] = np.nan
    with pytest.raises(ValueError, match="observation has nan in row 1, number 2"):
        make().predict(observation)


def test_a_state_of_other_rows_is_refused() -> None:
    policy = make()
    _, state = policy.predict(walk(2))
    with pytest.raises(ValueError, match="state is 2 rows and the observation has 3 rows"):
        policy.predict(walk(3), state)
    with pytest.raises(ValueError, match="state is list"):
        policy.predict(walk(3), [1, 2, 3])


@pytest.mark.parametrize(
    "other",
    [{"window": 8}, {"positions": "published"}, {"action": spaces.Discrete(2)}],
    ids=["window", "positions", "actions"],
)
def test_a_state_of_another_policy_is_refused(other: dict[str, Any]) -> None:
    _, state = make(**other).predict(walk(2))
    with pytest.raises(ValueError, match="state is of another network, window or action space"):
        make().predict(walk(2), state)
