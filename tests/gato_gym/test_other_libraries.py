"""Wrapped environments in the hands of Gymnasium's checker, its vector modes and SB3's agents."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import gato_gym
from gato_gym import GatoTokenize, GatoTokenizeVector

ONE_OF_EACH_SUITE = {
    "Gato/babyai-go-to-local": "minigrid",
    "Gato/metaworld-reach": "metaworld",
    "HalfCheetah-v5": "mujoco",
    "ale_py:ALE/Pong-v5": "ale_py",
    "dm_control/cartpole-balance-v0": "shimmy",
}


@pytest.mark.parametrize("layout", ["paper", "lean"])
@pytest.mark.parametrize(("name", "package"), ONE_OF_EACH_SUITE.items())
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*:UserWarning")
def test_gymnasiums_checker_passes_in_every_suite(name: str, package: str, layout: str) -> None:
    pytest.importorskip(package)
    env = gato_gym.make(
        name, wrappers=[functools.partial(GatoTokenize, options={"layout": layout})]
    )
    try:
        check_env(env, skip_render_check=True)
    finally:
        env.close()


def tokens_of(envs: Any, steps: int) -> list[dict[str, Any]]:
    """Observations of vector environments under actions that depend on the step alone."""
    observation, _ = envs.reset(seed=5)
    observations = [{name: np.array(part) for name, part in observation.items()}]
    space = envs.single_action_space
    for step in range(steps):
        rng = np.random.default_rng([step, 7])
        action = rng.integers(space.start, space.start + space.nvec, (envs.num_envs, len(space)))
        observation = envs.step(action)[0]
        observations.append({name: np.array(part) for name, part in observation.items()})
    envs.close()
    return observations


def test_shared_memory_serves_babyai_through_the_wrapper() -> None:
    pytest.importorskip("minigrid")

    def envs(kind: Any, **kwargs: Any) -> Any:
        make = functools.partial(gym.make, "Gato/babyai-go-to-local", wrappers=[GatoTokenize])
        return kind([make] * 2, **kwargs)

    shared = tokens_of(envs(AsyncVectorEnv, shared_memory=True, context="spawn"), 12)
    alone = tokens_of(envs(SyncVectorEnv), 12)
    for a, b in zip(shared, alone, strict=True):
        assert a.keys() == b.keys()
        assert all((a[name] == b[name]).all() for name in a)
    assert any((a["grids"] != alone[0]["grids"]).any() for a in alone)


class Countdown(gym.Env[Any, Any]):
    """Ends after three steps; its observation is its seed, its episode and its step."""

    observation_space = spaces.Box(0, 1000, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.draw, self.time = self.np_random.integers(1000), 0
        self.episode += 1
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._observation(), float(action), self.time == 3, False, {}

    def _observation(self) -> Any:
        return np.array([self.draw, self.episode, self.time], np.float32)


@pytest.mark.parametrize("single", [True, False])
def test_all_autoreset_modes_give_the_same_tokens(single: bool) -> None:
    streams = {}
    for mode in AutoresetMode:
        make = (lambda: GatoTokenize(Countdown())) if single else Countdown
        envs: Any = SyncVectorEnv([make] * 2, autoreset_mode=mode)
        streams[mode] = episodes_of(envs if single else GatoTokenizeVector(envs), mode)
    reference = streams[AutoresetMode.NEXT_STEP]
    assert len(reference) == 12
    assert all(stream == reference for stream in streams.values())


def episodes_of(envs: Any, mode: AutoresetMode) -> list[tuple[float, ...]]:
    """What row 1 sees in three episodes, first and final observations included."""
    observation, _ = envs.reset(seed=7)
    seen, over = [observation["vectors"][1]], np.zeros(2, bool)
    action = np.full((2, 1), 33024)
    while len(seen) < 12:
        if mode is AutoresetMode.DISABLED and over.any():
            observation, _ = envs.reset(options={"reset_mask": over})
            seen.append(observation["vectors"][1])
            over = np.zeros(2, bool)
            continue
        observation, _, ended, _, infos = envs.step(action)
        if mode is AutoresetMode.SAME_STEP and ended[1]:
            seen.append(infos["final_obs"][1]["vectors"])
        seen.append(observation["vectors"][1])
        over = ended
    return [tuple(vectors.ravel()[:3].tolist()) for vectors in seen[:12]]


class Nested(gym.Env[Any, Any]):
    """An action space that Stable-Baselines3 refuses bare: a Dict in a Dict."""

    observation_space = spaces.Dict(
        seen=spaces.Tuple([spaces.Box(-1, 1, (3,)), spaces.Discrete(4)]),
        word=spaces.Text(4, charset="ab"),
    )
    action_space = spaces.Dict(
        arm=spaces.Dict(move=spaces.Box(-2, 2, (2,)), hold=spaces.Discrete(2)),
        say=spaces.Text(2, charset="xy"),
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.time += 1
        return self._observation(), float(action["arm"]["hold"]), self.time == 9, False, {}

    def _observation(self) -> Any:
        seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"seen": (seen, np.int64(self.time % 4)), "word": "ab"}


@pytest.mark.parametrize("name", ["Gato/babyai-go-to-local", "nested"])
def test_an_sb3_agent_learns_on_tokens(name: str) -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    bare = Nested() if name == "nested" else gym.make(name)
    env = GatoTokenize(bare, action_offsets=True)
    env.action_space.seed(0)
    agent = stable_baselines3.PPO(
        "MultiInputPolicy", env, n_steps=128, batch_size=64, n_epochs=2, seed=0, device="cpu"
    )
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(256)
    assert agent.num_timesteps == 256
    changed = [
        not bool((a == b).all()) for a, b in zip(before, agent.policy.parameters(), strict=True)
    ]
    assert any(changed)
    action, _ = agent.predict(env.reset(seed=0)[0])
    env.step(action)


def test_offsets_and_ids_are_the_same_actions() -> None:
    ids, offsets = GatoTokenize(Nested()), GatoTokenize(Nested(), action_offsets=True)
    assert offsets.action_space == spaces.MultiDiscrete(ids.action_space.nvec)
    first = ids.action_space.start
    ids.reset(seed=0)
    offsets.reset(seed=0)
    action = np.array([1, 1023, 0, 1, 2])
    for name, part in ids.step(action + first)[0].items():
        assert (offsets.step(action)[0][name].shape) == part.shape
    twin = GatoTokenizeVector(SyncVectorEnv([Nested] * 2), action_offsets=True)
    twin.reset(seed=0)
    assert twin.step(np.stack([action, action]))[1].tolist() == [1.0, 1.0]
    rebuilt = GatoTokenize(Nested(), **offsets._saved_kwargs)
    assert rebuilt.action_space == offsets.action_space
