"""GatoPolicy: rows on their own, any batch, any loop, and Stable-Baselines3's evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SMALL, WORDS, Talker, state_plan, talking_plan

from gato_gym import PlanOptions, Vocabulary, compile_plan
from policies import GatoPolicy, MultiTaskPolicy
from policies.gato.sampling import Sampler
from policies.model.network import GatoNetwork


@pytest.fixture(scope="module")
def policy() -> GatoPolicy:
    torch.manual_seed(1)
    return GatoPolicy(GatoNetwork(SMALL), talking_plan(), seed=7)


def streams(rows: int, steps: int) -> list[list[dict[str, Any]]]:
    """Observations of ``rows`` independent episodes, each under its own text."""
    generator = np.random.default_rng(3)
    return [
        [
            {"state": generator.uniform(-1, 1, 3).astype(np.float32), "words": WORDS[row % 3]}
            for _ in range(steps)
        ]
        for row in range(rows)
    ]


def batch(observations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "state": np.stack([o["state"] for o in observations]),
        "words": tuple(o["words"] for o in observations),
    }


def alone(policy: GatoPolicy, stream: list[dict[str, Any]], *, deterministic: bool) -> list[int]:
    state, chosen = None, []
    for observation in stream:
        action, state = policy.predict(observation, state, deterministic=deterministic)
        chosen.append(int(action))
    return chosen


def test_its_repr_says_how_large_it_is_and_what_it_plays(policy: GatoPolicy) -> None:
    weights = sum(parameter.numel() for parameter in policy.network.parameters())
    said = repr(policy)
    assert said.startswith(f"GatoPolicy({weights:,} parameters, float32 on cpu, task=None, ")
    assert repr(MultiTaskPolicy([policy, policy])) == f"MultiTaskPolicy([{said}, {said}])"


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("rows", [2, 5, 19])
def test_a_row_of_a_batch_acts_as_it_does_alone(
    policy: GatoPolicy, rows: int, deterministic: bool
) -> None:
    seen = streams(rows, 12)
    expected = [alone(policy, stream, deterministic=deterministic) for stream in seen]
    state, chosen = None, []
    for step in range(12):
        actions, state = policy.predict(
            batch([stream[step] for stream in seen]), state, deterministic=deterministic
        )
        chosen.append(actions)
    assert np.stack(chosen, 1).tolist() == expected
    _, first = policy.predict(batch([stream[0] for stream in seen]))
    for row, stream in enumerate(seen):
        _, single = policy.predict(stream[0])
        layer = single.cache.keys[0, 0], first.cache.keys[0, row]
        assert torch.equal(*layer), "what enters the network is the same to the last bit"
    if not deterministic:
        assert len({tuple(row) for row in expected}) == rows


def test_another_rows_text_does_not_matter(policy: GatoPolicy) -> None:
    seen = streams(3, 6)
    other = [[{**o, "words": WORDS[2]} for o in stream] for stream in seen]
    other[0] = seen[0]
    hidden = [[], []]
    for which, rows in enumerate((seen, other)):
        state = None
        for step in range(6):
            observation = batch([stream[step] for stream in rows])
            actions, state = policy.predict(observation, state, deterministic=True)
            hidden[which].append((actions.tolist(), state.cache.keys[:, :3].clone()))
    for (_, first), (_, second) in zip(*hidden, strict=True):
        assert torch.equal(first[:, 0], second[:, 0])
        assert not torch.equal(first[:, 1], second[:, 1])


def test_its_own_text_matters(policy: GatoPolicy) -> None:
    observation = streams(1, 1)[0][0]
    keys = []
    for words in WORDS[:2]:
        _, state = policy.predict({**observation, "words": words}, deterministic=True)
        keys.append(state.cache.keys[:, 0].clone())
    assert not torch.equal(keys[0], keys[1])


def test_two_loops_share_a_policy(policy: GatoPolicy) -> None:
    first, second = streams(2, 8)
    expected = [alone(policy, s, deterministic=False) for s in (first, second)]
    states: list[Any] = [None, None]
    chosen: list[list[int]] = [[], []]
    for step in range(8):
        for which, stream in enumerate((first, second)):
            action, states[which] = policy.predict(stream[step], states[which])
            chosen[which].append(int(action))
    assert chosen == expected


@pytest.mark.parametrize("memory", ["all", "observations", "none"])
def test_one_forward_for_each_action_token_and_none_besides(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    action_space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3))
    options = PlanOptions(memory=memory, vector_size=16, text_refresh=3)
    plan = compile_plan(talking_plan().observation_space, action_space, options)
    policy = GatoPolicy(GatoNetwork(SMALL), plan)
    calls = []
    original = policy.network.backbone.step

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(len(arguments[1]))
        return original(*arguments, **named)

    monkeypatch.setattr(policy.network.backbone, "step", counted)
    seen, state = streams(5, 9), None
    for step in range(9):
        starts = np.arange(5) == step % 5  # rows with a text, with an action pending, with neither
        observation = batch([stream[step] for stream in seen])
        _, state = policy.predict(observation, state, starts)
    assert len(calls) == 9 * plan.num_actions
    assert [calls[i] for i in range(len(calls)) if i % 3] == [5] * 18


def test_sampling_depends_on_the_seed(policy: GatoPolicy) -> None:
    stream = streams(1, 20)[0]
    other = GatoPolicy(policy.network, policy.plan, seed=8)
    assert alone(policy, stream, deterministic=False) == alone(policy, stream, deterministic=False)
    assert alone(policy, stream, deterministic=False) != alone(other, stream, deterministic=False)


def test_long_episodes_need_no_more_memory(policy: GatoPolicy) -> None:
    stream = streams(1, 400)[0]
    _, state = policy.predict(stream[0])
    before = state.cache.nbytes
    for observation in stream[1:]:
        _, state = policy.predict(observation, state)
    assert state.cache.nbytes == before
    assert int(state.next_positions[0]) > 400


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Box(np.array([-2.0, 0.1]), np.array([-1.5, 0.3]), dtype=np.float64),
        spaces.MultiDiscrete([3, 2]),
        spaces.Discrete(3, start=-1),
        spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple([spaces.Box(-1, 1, (2,))])),
    ],
    ids=str,
)
def test_untrained_actions_are_members(action_space: gym.Space[Any]) -> None:
    torch.manual_seed(0)
    plan = compile_plan(spaces.Box(-1, 1, (3,)), action_space, PlanOptions(vector_size=16))
    policy = GatoPolicy(GatoNetwork(SMALL), plan, sampler=Sampler(temperature=50.0))
    generator = np.random.default_rng(0)
    state = None
    for _ in range(60):
        action, state = policy.predict(generator.uniform(-1, 1, 3).astype(np.float32), state)
        assert action_space.contains(action)


def test_wrong_state_is_refused(policy: GatoPolicy) -> None:
    seen = streams(3, 2)
    _, state = policy.predict(batch([s[0] for s in seen]))
    with pytest.raises(ValueError, match="3 rows and the observation has 2 rows"):
        policy.predict(batch([s[1] for s in seen[:2]]), state)
    with pytest.raises(ValueError, match="episode_start has 1 entries for 3"):
        policy.predict(batch([s[1] for s in seen]), state, np.array([True]))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Gato/babyai-go-to-obj"])
def test_evaluate_policy_runs_unmodified(name: str) -> None:
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    env = Monitor(gym.make(name))
    policy = GatoPolicy.create(env, config=SMALL_GRID, options=options_for(name))
    mean, deviation = evaluate_policy(policy, env, n_eval_episodes=2)
    assert np.isfinite([mean, deviation]).all()


SMALL_GRID = SMALL


def options_for(name: str) -> PlanOptions:
    if "babyai" in name:
        return PlanOptions(grids=("image",), memory="observations", vector_size=16)
    return PlanOptions(vector_size=16)


@pytest.mark.parametrize("vector", ["sync", "async", "dummy", "subproc"])
def test_vector_environments(policy: GatoPolicy, vector: str) -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    makers = [Plain] * 3
    torch.manual_seed(0)
    plain = GatoPolicy(GatoNetwork(SMALL), state_plan("observations"))
    if vector in ("dummy", "subproc"):
        env: Any = DummyVecEnv(makers) if vector == "dummy" else SubprocVecEnv(makers)
        observation = env.reset()
    else:
        kind = gym.vector.SyncVectorEnv if vector == "sync" else gym.vector.AsyncVectorEnv
        env = kind(makers)
        observation, _ = env.reset(seed=0)
    state, starts = None, np.ones(3, bool)
    for _ in range(20):
        actions, state = plain.predict(observation, state, starts)
        assert actions.shape == (3, 2)
        if vector in ("dummy", "subproc"):
            observation, _, starts, _ = env.step(actions)
        else:
            observation, _, ended, cut, _ = env.step(actions)
            starts = ended | cut
    env.close()


class Plain(gym.Env[Any, Any]):
    """Six-step episodes of random states."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, 0.0, self.steps == 6, False, {}


def test_single_environment_loop() -> None:
    env = Talker()
    policy = GatoPolicy.create(env, config=SMALL, options=PlanOptions(vector_size=16))
    observation, _ = env.reset(seed=0)
    state, done = None, False
    while not done:
        action, state = policy.predict(observation, state)
        observation, _, done, _, _ = env.step(action)
    assert env.steps == 7


SHIFTED = Vocabulary(continuous=range(32000, 33000), discrete=range(33500, 34500), separator=33200)


def test_a_plan_has_the_ids_of_its_network(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, vocabulary=SHIFTED)
    options = PlanOptions(vector_size=16, layout="paper")
    policy = GatoPolicy.create(Talker(), config=config, options=options)
    assert policy.plan.action_ranges.tolist() == [[33500, 33505]]
    assert policy.plan.encode(Talker().reset(seed=0)[0]).ids.tolist()[-1] == 33200
    action, _ = policy.predict(Talker().reset(seed=0)[0])
    assert Talker.action_space.contains(action)
    policy.save(tmp_path / "saved")
    loaded = GatoPolicy.load(tmp_path / "saved")
    assert loaded.plan.vocabulary == SHIFTED
    assert loaded.with_env(Talker()).plan.vocabulary == SHIFTED


def test_a_plan_with_other_ids_than_the_network_is_refused() -> None:
    network = GatoNetwork(dataclasses.replace(SMALL, vocabulary=SHIFTED))
    with pytest.raises(ValueError, match="compile the plan with vocabulary="):
        GatoPolicy(network, talking_plan())


@pytest.mark.parametrize(
    "vocabulary",
    [
        Vocabulary.paper(),
        Vocabulary(continuous=range(32001, 33025)),
        Vocabulary(discrete=range(33000, 34024)),
        Vocabulary(text=range(1, 32000), separator=0),
    ],
    ids=["discrete among text", "gap after text", "discrete among continuous", "separator first"],
)
def test_a_network_refuses_ids_in_another_order(vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="right after the text's"):
        dataclasses.replace(SMALL, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("shape", "channels"), [((64, 64, 13), 13), ((16, 84, 84), 16), ((40, 84, 84), 40)]
)
def test_an_image_of_too_many_channels_is_named_with_what_to_do(
    shape: tuple[int, ...], channels: int
) -> None:
    seen = spaces.Dict(camera=spaces.Box(0, 255, shape, np.uint8), speed=spaces.Box(-1, 1, (2,)))
    env = spaces_only(seen)
    complaint = (
        rf"'camera' is an image of {channels} channels: the network takes at most 4.*"
        r"stacks=\('camera',\).*skip=\('camera',\)"
    )
    with pytest.raises(ValueError, match=complaint):
        GatoPolicy.create(env, config=SMALL)
    options = PlanOptions(vector_size=16, skip=("camera",))
    action, _ = GatoPolicy.create(env, config=SMALL, options=options).predict(seen.sample())
    assert env.action_space.contains(action)


def test_a_grid_larger_than_the_networks_is_named_with_what_to_do() -> None:
    env = spaces_only(spaces.Dict(chars=spaces.Box(0, 255, (21, 79), np.uint8)))
    both_spaces = env.observation_space, env.action_space
    plan = compile_plan(*both_spaces, PlanOptions(vector_size=16, grids=("chars",)))
    with pytest.raises(ValueError, match=r"grids names \['chars'\] of size \(21, 79, 1\).*skip="):
        GatoPolicy(GatoNetwork(SMALL), plan)
    wide = dataclasses.replace(SMALL, window=104)  # 21 * 79 numbers, 16 in each token
    numbers = GatoPolicy.create(env, config=wide, options=PlanOptions(vector_size=16))
    assert numbers.plan.vector_length == 21 * 79


def spaces_only(observed: gym.Space[Any]) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = gym.Env()
    env.observation_space, env.action_space = observed, spaces.Discrete(3)
    return env


NET = spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))


class Varied(gym.Env[Any, Any]):
    """Observations of any length, actions of three kinds."""

    observation_space = spaces.Dict(
        seen=spaces.Sequence(spaces.Dict(kind=spaces.Discrete(3), at=spaces.Box(-1, 1, (2,)))),
        held=spaces.OneOf([spaces.Discrete(2), spaces.Text(3, charset="ab")]),
        net=NET,
    )
    action_space = spaces.OneOf([spaces.Box(-1, 1, (2,)), spaces.Sequence(spaces.Discrete(4)), NET])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.time += 1
        return self._observation(), float(action[0]), self.time == 7, False, {}

    def _observation(self) -> Any:
        drawn = self.np_random
        seen = tuple(
            {
                "kind": np.int64(drawn.integers(3)),
                "at": drawn.uniform(-1, 1, 2).astype(np.float32),
            }
            for _ in range(drawn.integers(4))
        )
        held = (np.int64(0), np.int64(1)) if drawn.random() < 0.5 else (np.int64(1), "ab")
        nodes = drawn.uniform(-1, 1, (drawn.integers(1, 4), 2)).astype(np.float32)
        links = drawn.integers(len(nodes), size=(2, 2), dtype=np.int32)
        net = spaces.GraphInstance(nodes, drawn.integers(3, size=2), links)
        return {"seen": seen, "held": held, "net": net}


def test_sequences_branches_and_graphs_are_played(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = PlanOptions(vector_size=16, sequence_length=3)
    plan = compile_plan(Varied.observation_space, Varied.action_space, options)
    policy = GatoPolicy(GatoNetwork(SMALL), plan, sampler=Sampler(temperature=20.0))
    envs = gym.vector.SyncVectorEnv([Varied] * 3, autoreset_mode="Disabled")
    seen, _ = envs.reset(seed=4)
    state, together = None, []
    for _ in range(7):
        actions, state = policy.predict(seen, state)
        together.append(actions)
        seen, _, ended, _, _ = envs.step(actions)
    assert ended.all()
    for row in range(3):
        env = Varied()
        observation, _ = env.reset(seed=4 + row)
        state = None
        for actions in together:
            action, state = policy.predict(observation, state)
            assert repr(action) == repr(actions[row])
            observation, *_ = env.step(action)
    policy.save(tmp_path / "saved")
    again = GatoPolicy.load(tmp_path / "saved", env=Varied())
    first, _ = Varied().reset(seed=9)
    assert repr(again.predict(first)[0]) == repr(policy.predict(first)[0])
    with pytest.raises(ValueError, match="no task of the checkpoint has these spaces"):
        GatoPolicy.load(tmp_path / "saved", env=gym.make("CartPole-v1"))


def test_a_timestep_longer_than_the_window_is_refused(tmp_path: Path) -> None:
    """96 x 160 pixels are 6 x 10 patches."""

    class Photographed(gym.Env[Any, Any]):
        observation_space = spaces.Box(0, 255, (96, 160, 3), np.uint8)
        action_space = spaces.Discrete(2)

    narrow, options = dataclasses.replace(SMALL, window=59), PlanOptions(vector_size=16)
    said = r"a timestep has 60 tokens \(60 of images\) and the network's window has "
    with pytest.raises(ValueError, match=said + r"59: scale .*NetworkConfig\(window=60\)"):
        GatoPolicy.create(Photographed(), config=narrow, options=options)
    wide = dataclasses.replace(SMALL, window=60)
    GatoPolicy.create(Photographed(), config=wide, options=options).save(tmp_path / "wide")
    assert GatoPolicy.load(tmp_path / "wide", env=Photographed()).plan.num_tokens == 60
    path = tmp_path / "wide" / "config.json"
    path.write_text(path.read_text().replace('"window": 60', '"window": 59'))
    with pytest.raises(ValueError, match=said + "59"):
        GatoPolicy.load(tmp_path / "wide", env=Photographed())
