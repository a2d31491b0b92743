"""A checkpoint in Stable-Baselines3: it acts as the checkpoint, learns, and is one again."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SMALL, Talker
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from gato_gym import Episode, PlanOptions, compile_plan
from policies import GatoPolicy
from policies.gato.checkpoint import save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.model.config import fitted
from policies.model.network import GatoNetwork
from policies.sb3 import GatoActorCriticPolicy, history_env

GRID = spaces.Dict(
    direction=spaces.Discrete(4),
    image=spaces.Box(0, 10, (7, 7, 3), np.uint8),
    mission=spaces.Text(40),
)
MISSIONS = ("go to the red ball", "open a blue door", "", "pick up the key")


class Random(gym.Env[Any, Any]):
    """Twelve-step episodes of random observations; the mission changes every five steps."""

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space = copy.deepcopy(observation_space)  # each draws its own
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        return self._observe(), 1.0, False, self.steps == 12, {}

    def _observe(self) -> Any:
        seen = self.observation_space.sample()
        if isinstance(self.observation_space, spaces.Dict):
            seen["mission"] = MISSIONS[self.steps // 5 % len(MISSIONS)]
        return seen


VECTOR, BOX = spaces.Box(-9, 9, (5,)), spaces.Box(-2, 3, (2,), np.float32)
CASES: dict[str, tuple[gym.Space[Any], gym.Space[Any], PlanOptions, str]] = {
    "box": (VECTOR, BOX, PlanOptions(memory="none", vector_size=16), "bins"),
    "box, regressed": (
        VECTOR, BOX, PlanOptions(memory="none", vector_size=16, actions="parallel"), "regression"),
    "box, remembered": (VECTOR, BOX, PlanOptions(memory="all", vector_size=16), "bins"),
    "unbounded box": (
        VECTOR, spaces.Box(-np.inf, np.inf, (2,)), PlanOptions(memory="none", vector_size=16),
        "bins"),
    "discrete, grid and text": (
        GRID, spaces.Discrete(7),
        PlanOptions(grids=("image",), memory="observations", text_refresh=4, vector_size=16),
        "bins"),
    "several, side by side": (
        GRID, spaces.MultiDiscrete([3, 3, 5]),
        PlanOptions(grids=("image",), memory="observations", actions="parallel", vector_size=16),
        "bins"),
    "several, after another": (
        VECTOR, spaces.MultiDiscrete([3, 4]), PlanOptions(memory="all", vector_size=16), "bins"),
    "picture": (
        spaces.Box(0, 255, (20, 33, 3), np.uint8), spaces.Discrete(3),
        PlanOptions(memory="observations", vector_size=16), "bins"),
    "frames": (
        spaces.Box(0, 255, (4, 40, 40), np.uint8), spaces.Discrete(3),
        PlanOptions(memory="none", image_size=20, stacks=("",), actions="parallel",
                    vector_size=16), "bins"),
}  # fmt: skip


def checkpoint(
    folder: Path, env: gym.Env[Any, Any], options: PlanOptions, head: str = "bins", *,
    prompted: bool = False, sampler: Sampler | None = None,
) -> Path:  # fmt: skip
    """A checkpoint of fresh weights for the environment, as the only task."""
    torch.manual_seed(0)
    plan = compile_plan(env.observation_space, env.action_space, options)
    sizes = dataclasses.replace(SMALL, continuous_head=head, tasks=("other", "test"))
    network = GatoNetwork(fitted(sizes, [plan]))
    with torch.no_grad():  # logits that differ
        network.head.weight.mul_(8)
    prompt = prompt_from_episode(plan, _episode(env), capacity=16, cut="end") if prompted else None
    record = TaskRecord.of(plan, prompt, prompted=prompted)
    sampler = sampler or Sampler(continuous_temperature=1.0 if head == "bins" else 0.0)
    save_checkpoint(folder, network, {"test": record}, sampler, dtype=torch.float32)
    return folder


def _episode(env: gym.Env[Any, Any]) -> Episode:
    env.action_space.seed(0)
    seen = [env.reset(seed=5)[0]]
    actions = [env.action_space.sample() for _ in range(12)]
    seen += [env.step(action)[0] for action in actions]
    return Episode(
        task="test",
        observations=_stacked(env.observation_space, seen),
        actions=np.stack(actions),
        rewards=np.ones(12, np.float32),
        terminations=np.zeros(12, bool),
        truncations=np.arange(12) == 11,
    )


def _stacked(space: gym.Space[Any], members: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {k: _stacked(part, [m[k] for m in members]) for k, part in space.spaces.items()}
    return members if isinstance(space, spaces.Text) else np.stack(members)


class Recording(Sampler):
    """Keeps the logits that it was given."""

    def choose(self, logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(logits.clone())
        return super().choose(logits, *args, **kwargs)


seen: list[torch.Tensor] = []


def agent_of(folder: Path, env: gym.Env[Any, Any], *, rows: int = 2, **more: Any) -> PPO:
    """PPO in copies of the environment."""
    copies = [lambda: history_env(type(env)(*_made_of(env)), folder)] * rows
    settings = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "seed": 0, **more}
    kwargs = {"checkpoint": folder, **settings.pop("policy_kwargs", {})}
    return PPO(
        GatoActorCriticPolicy, DummyVecEnv(copies), device="cpu", policy_kwargs=kwargs, **settings
    )


def _made_of(env: gym.Env[Any, Any]) -> tuple[Any, ...]:
    return (env.observation_space, env.action_space) if isinstance(env, Random) else ()


@pytest.mark.parametrize("case", CASES)
def test_what_is_evaluated_is_what_was_collected(case: str, tmp_path: Path) -> None:
    observation_space, action_space, options, head = CASES[case]
    env = Random(observation_space, action_space)
    agent = agent_of(checkpoint(tmp_path / "c", env, options, head), env)
    agent.learn(0)  # sets up
    agent.collect_rollouts(agent.env, _Quiet(), agent.rollout_buffer, 16)
    (rollout,) = agent.rollout_buffer.get(32)
    values, logs, entropy = agent.policy.evaluate_actions(rollout.observations, rollout.actions)
    torch.testing.assert_close(logs, rollout.old_log_prob, atol=1e-5, rtol=0)
    torch.testing.assert_close(values[:, 0], rollout.old_values, atol=1e-5, rtol=0)
    legal = np.log(np.diff(compile_plan(observation_space, action_space, options).action_ranges))
    assert (entropy > 0).all()
    assert (entropy <= legal.sum() + 1e-4).all()
    assert logs.std() > 0


@pytest.mark.parametrize("prompted", [False, True], ids=["task embedding", "prompt"])
@pytest.mark.parametrize("case", CASES)
def test_acts_as_the_checkpoint_does(case: str, prompted: bool, tmp_path: Path) -> None:
    """In an episode that fits the history, logits and best actions are GatoPolicy's own."""
    observation_space, action_space, options, head = CASES[case]
    env = Random(observation_space, action_space)
    folder = checkpoint(tmp_path / "c", env, options, head, prompted=prompted)
    played = GatoPolicy.load(folder, env=env, task="test", sampler=Recording(continuous="mode"))
    wrapped = history_env(Random(observation_space, action_space), folder, task="test")
    agent = PPO(
        GatoActorCriticPolicy, wrapped, n_steps=8, batch_size=8, device="cpu",
        policy_kwargs={"checkpoint": folder},
    )  # fmt: skip
    agent.policy.sampler = Sampler(continuous="mode")
    observation, state = env.reset(seed=3)[0], None
    history, _ = wrapped.reset(seed=3)
    remembers = wrapped.observation_space.plan.options.memory != "none"
    for _ in range(min(12, wrapped.observation_space.timesteps) if remembers else 12):
        seen.clear()
        action, state = played.predict(observation, state, deterministic=True)
        offsets, _ = agent.predict(history, deterministic=True)
        plan = played.plan
        assert (offsets + plan.action_ranges[:, 0] == plan.encode_action(action)).all()
        tensors = {name: torch.as_tensor(part)[None] for name, part in history.items()}
        choices, _ = agent.policy._choices(tensors, torch.as_tensor(offsets)[None])
        if head == "bins":
            theirs = torch.cat([logits[: _positions(plan, logits)].flatten() for logits in seen])
            ours = torch.cat([choice.logits.flatten() for choice in choices.choices])
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        observation, *_ = env.step(action)
        history, *_ = wrapped.step(offsets)
    assert prompted == (agent.policy.prompt is not None)


def _positions(plan: Any, logits: torch.Tensor) -> int:
    """Rows of the logits that are not padding: one a position that is chosen at once."""
    if not plan.has_parallel_actions:
        return 1
    return int((np.diff(plan.action_ranges)[:, 0] == logits.shape[1]).sum())


def test_a_rollout_has_the_frequencies_of_the_checkpoint(tmp_path: Path) -> None:
    """Of 4,000 sampled first actions, by Pearson's chi-squared test."""
    env = Random(VECTOR, spaces.Discrete(4))
    sampler = Sampler(temperature=2.0)
    folder = checkpoint(tmp_path / "c", env, PlanOptions(memory="none", vector_size=16),
                        sampler=sampler)  # fmt: skip
    agent = agent_of(folder, env)
    observation, _ = env.reset(seed=1)
    batch = np.repeat(observation[None], 4_000, 0)
    played = GatoPolicy.load(folder, env=env, task="test")
    theirs = np.bincount(played.predict(batch)[0], minlength=4)
    history, _ = history_env(env, folder, task="test").reset(seed=1)
    many = {name: np.repeat(part[None], 4_000, 0) for name, part in history.items()}
    torch.manual_seed(0)
    ours = np.bincount(agent.predict(many)[0][:, 0], minlength=4)
    both = ours + theirs
    statistic = ((ours - theirs) ** 2 / both.clip(1)).sum()
    assert statistic < 16.27  # 0.999 quantile of chi-squared with 3 degrees of freedom
    assert (both > 40).sum() >= 2


class Bandit(gym.Env[Any, Any]):
    """One step; the first of three actions pays."""

    observation_space, action_space = VECTOR, spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(5, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.ones(5, np.float32), float(action == 0), True, False, {}


def test_learns_what_pays_and_is_a_checkpoint_again(tmp_path: Path) -> None:
    env = Bandit()
    options = PlanOptions(memory="none", vector_size=16)
    folder = checkpoint(tmp_path / "c", env, options)
    agent = agent_of(folder, env, learning_rate=1e-3, n_epochs=4)
    history, _ = history_env(env, folder, task="test").reset(seed=0)
    tensors = {name: torch.as_tensor(part)[None] for name, part in history.items()}

    def chance_of_first() -> float:
        with torch.no_grad():
            _, logs, _ = agent.policy.evaluate_actions(tensors, torch.zeros(1, 1))
        return float(logs.exp())

    before = chance_of_first()
    agent.learn(32)
    once = chance_of_first()
    assert once > before
    agent.learn(512)
    assert chance_of_first() > max(once, 0.8)
    agent.policy.save_checkpoint(tmp_path / "after")
    assert sorted(path.name for path in (tmp_path / "after").iterdir()) == [
        "card.md", "config.json", "model.safetensors", "prompts.safetensors", "text.model"
    ]  # fmt: skip
    again = GatoPolicy.load(tmp_path / "after", env=env, task="test")
    for name, weight in again.network.named_parameters():
        torch.testing.assert_close(weight, dict(agent.policy.network.named_parameters())[name])
    drawn = again.predict(np.ones((1_000, 5), np.float32))[0]
    assert abs(float((drawn == 0).mean()) - chance_of_first()) < 0.05
    with pytest.raises(NotImplementedError, match="pickle"):
        agent.policy.save(str(tmp_path / "policy.pth"))


def test_updates_may_have_bfloat16_products_and_actions_do_not(tmp_path: Path) -> None:
    env = Bandit()
    folder = checkpoint(tmp_path / "c", env, PlanOptions(memory="none", vector_size=16))
    more: dict[str, Any] = {"learning_rate": 1e-3, "n_epochs": 4}
    whole = agent_of(folder, env, **more)
    half = agent_of(folder, env, **more, policy_kwargs={"precision": "bfloat16"})
    history, _ = history_env(env, folder, task="test").reset(seed=0)
    tensors = {name: torch.as_tensor(part)[None] for name, part in history.items()}
    chosen = torch.zeros(1, 1)

    def logs(agent: PPO) -> torch.Tensor:
        return agent.policy.evaluate_actions(tensors, chosen)[1]

    with torch.no_grad():
        assert torch.equal(logs(half), logs(whole))
    assert logs(half).dtype == torch.float32
    assert not torch.equal(logs(half), logs(whole))
    torch.testing.assert_close(logs(half), logs(whole), atol=0.02, rtol=0)
    half.learn(512)
    assert float(logs(half).detach().exp()) > 0.8
    with pytest.raises(ValueError, match="precision is 'int8': expected float32 or bfloat16"):
        agent_of(folder, env, policy_kwargs={"precision": "int8"})


class Target(gym.Env[Any, Any]):
    """One step; a number pays the more, the nearer it is to 0.6."""

    observation_space, action_space = VECTOR, spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(5, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = 1.0 - float((action[0] - 0.6) ** 2)
        return np.ones(5, np.float32), reward, True, False, {}


def test_a_regressed_number_moves_to_where_it_pays(tmp_path: Path) -> None:
    env = Target()
    options = PlanOptions(memory="none", vector_size=16, actions="parallel")
    folder = checkpoint(tmp_path / "c", env, options, "regression")
    agent = agent_of(folder, env, learning_rate=3e-3, n_epochs=4, n_steps=32, batch_size=64)

    def distance(name: Path) -> float:
        policy = GatoPolicy.load(name, env=env, task="test")
        return abs(float(policy.predict(np.ones(5, np.float32))[0][0]) - 0.6)

    agent.learn(1_024)
    agent.policy.save_checkpoint(tmp_path / "after")
    assert distance(tmp_path / "after") < min(0.1, 0.5 * distance(folder))


def test_only_the_value_head_learns_at_first(tmp_path: Path) -> None:
    env = Talker()
    options = PlanOptions(memory="observations", vector_size=16)
    agent = agent_of(checkpoint(tmp_path / "c", env, options), env)
    agent.policy.train_actor(False)
    before = {name: weight.clone() for name, weight in agent.policy.named_parameters()}
    agent.learn(32)
    changed = {
        name for name, weight in agent.policy.named_parameters()
        if not torch.equal(weight, before[name])
    }  # fmt: skip
    assert changed
    assert all(name.startswith("value_head.") for name in changed)


def test_what_begins_from_nothing_has_a_rate_of_its_own(tmp_path: Path) -> None:
    env = Target()
    options = PlanOptions(memory="none", vector_size=16, actions="parallel")
    folder = checkpoint(tmp_path / "c", env, options, "regression")
    agent = agent_of(folder, env, learning_rate=1e-5)
    policy = agent.policy
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
    agent.learn(32)
    steps = {
        name: float((weight - before[name]).detach().abs().max())
        for name, weight in policy.named_parameters()
    }
    updates = max(int(entry["step"]) for entry in policy.optimizer.state.values())
    network = max(step for name, step in steps.items() if name.startswith("network."))
    assert 0 < network < 2e-5 * updates  # a step of Adam is as long as the rate, or little more
    assert steps["log_std"] > 5e-4
    assert max(step for name, step in steps.items() if name.startswith("value_head.")) > 5e-4


def test_says_what_to_write(tmp_path: Path) -> None:
    env = Bandit()
    folder = checkpoint(tmp_path / "c", env, PlanOptions(memory="none", vector_size=16))
    with pytest.raises(ValueError, match=r"history_env\(env, checkpoint\)"):
        PPO(GatoActorCriticPolicy, env, policy_kwargs={"checkpoint": folder})
    with pytest.raises(ValueError, match="timesteps is 0: expected 1 or more"):
        history_env(
            Talker(), checkpoint(tmp_path / "t", Talker(), PlanOptions(vector_size=16)), timesteps=0
        )


def test_a_history_holds_the_last_timesteps_and_their_actions(tmp_path: Path) -> None:
    options = PlanOptions(memory="all", vector_size=16)
    env = history_env(Talker(), checkpoint(tmp_path / "c", Talker(), options), timesteps=3)
    alone = Talker()
    states = [alone.reset(seed=2)[0]["state"]]
    observations = [env.reset(seed=2)[0]]
    for action in (4, 3, 2, 1):
        states.append(alone.step(action)[0]["state"])
        observations.append(env.step([action])[0])
    assert [int(seen["length"][0]) for seen in observations] == [1, 2, 3, 3, 3]
    np.testing.assert_array_equal(observations[1]["vectors"][:, 0, :3], [[0] * 3, *states[:2]])
    np.testing.assert_array_equal(observations[4]["vectors"][:, 0, :3], states[2:5])
    assert observations[1]["actions"].tolist() == [[0], [4], [0]]
    assert observations[4]["actions"].tolist() == [[2], [1], [0]]
    assert all(env.observation_space.contains(seen) for seen in observations)
    again, _ = env.reset(seed=2)
    for name, part in observations[0].items():
        np.testing.assert_array_equal(again[name], part)


class _Quiet:
    """A callback that does nothing."""

    def on_rollout_start(self) -> None: ...
    def on_rollout_end(self) -> None: ...
    def update_locals(self, _: Any) -> None: ...
    def on_step(self) -> bool:
        return True
