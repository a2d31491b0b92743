"""Every policy plays the same episodes in every kind of vector environment as in one alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from every_policy import CASES, MAKERS, TASKS
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from gato_gym import get_task
from policies import Policy

STEPS, ROWS, EPISODES = 5, 3, 2
SEEDS = (11, 12, 13)

GYMNASIUM = {
    f"{kind.__name__} {mode.value}": partial(kind, autoreset_mode=mode)
    for kind in (gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv)
    for mode in AutoresetMode
}
SB3 = {
    "DummyVecEnv": DummyVecEnv,
    # as Gymnasium's; SB3's usual way imports everything anew in each process
    "SubprocVecEnv": partial(SubprocVecEnv, start_method="fork"),
}
SHARED = [case for case in CASES if case != ("expert", TASKS[0])]
"""All but BabyAI's bot, which belongs to the environment that it reads."""
OTHER_PROCESS = ("AsyncVectorEnv", "SubprocVecEnv")


def short(task: str) -> gym.Env[Any, Any]:
    """An environment whose episodes are cut after STEPS."""
    return gym.wrappers.TimeLimit(get_task(task).make(), STEPS)


def out_of_reach(name: str, task: str, vector: str) -> bool:
    """BabyAI's bot reads the level itself, so it plays no environment of another process."""
    return name == "expert" and task.startswith("babyai") and vector.startswith(OTHER_PROCESS)


def comparable(actions: Any) -> list[Any]:
    return np.asarray(actions).tolist()


@pytest.fixture(scope="module")
def alone() -> Callable[[str, str], list[list[Any]]]:
    """Actions of each row's episodes, played in one environment after another."""
    episodes: dict[tuple[str, str], list[list[Any]]] = {}

    def play(name: str, task: str) -> list[list[Any]]:
        if (name, task) not in episodes:
            episodes[name, task] = [play_alone(name, task, seed) for seed in SEEDS]
        return episodes[name, task]

    return play


def play_alone(name: str, task: str, seed: int) -> list[Any]:
    env = short(task)
    policy = MAKERS[name](env)
    actions, state = [], policy.seed_episodes([seed])
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=None if episode else seed)
        start, done = True, False
        while not done:
            action, state = policy.predict(observation, state, np.array([start]))
            actions.append(comparable(action))
            observation, _, ended, cut, _ = env.step(action)
            start, done = False, ended or cut
    env.close()
    return actions


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("vector", GYMNASIUM)
def test_gymnasium(
    vector: str, name: str, task: str, alone: Callable[[str, str], list[list[Any]]]
) -> None:
    envs = GYMNASIUM[vector]([partial(short, task)] * ROWS)
    if out_of_reach(name, task, vector):
        with pytest.raises(ValueError, match="other processes"):
            MAKERS[name](envs)
        envs.close()
        return
    policy = MAKERS[name](envs)
    mode = envs.metadata["autoreset_mode"]
    observation, _ = envs.reset(seed=list(SEEDS))
    state, starts = policy.seed_episodes(SEEDS), np.ones(ROWS, bool)
    dead = np.zeros(ROWS, bool)  # rows whose action Gymnasium ignores: it resets them instead
    played: list[list[Any]] = [[] for _ in range(ROWS)]
    while min(map(len, played)) < EPISODES * STEPS:
        actions, state = policy.predict(observation, state, starts)
        for row in np.flatnonzero(~dead):
            played[row].append(comparable(actions[row]))
        observation, _, ended, cut, _ = envs.step(actions)
        done = ended | cut
        if mode == AutoresetMode.NEXT_STEP:
            starts, dead = dead, done
        elif mode == AutoresetMode.SAME_STEP:
            starts = done
        else:
            starts = done
            if done.any():
                observation, _ = envs.reset(options={"reset_mask": done})
    envs.close()
    assert [row[: EPISODES * STEPS] for row in played] == alone(name, task)


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("vector", SB3)
def test_stable_baselines3(
    vector: str, name: str, task: str, alone: Callable[[str, str], list[list[Any]]]
) -> None:
    envs: Any = SB3[vector]([partial(short, task)] * ROWS)
    if out_of_reach(name, task, vector):
        with pytest.raises(ValueError, match="other processes"):
            MAKERS[name](envs)
        envs.close()
        return
    policy = MAKERS[name](envs)
    envs.seed(SEEDS[0])  # row i gets seed + i
    observation = envs.reset()
    state, starts = policy.seed_episodes(SEEDS), np.ones(ROWS, bool)
    played: list[list[Any]] = [[] for _ in range(ROWS)]
    for _ in range(EPISODES * STEPS):
        actions, state = policy.predict(observation, state, starts)
        for row in range(ROWS):
            played[row].append(comparable(actions[row]))
        observation, _, starts, _ = envs.step(actions)
    envs.close()
    assert played == alone(name, task)


@pytest.mark.parametrize(("name", "task"), SHARED)
def test_two_loops_share_a_policy(
    name: str, task: str, alone: Callable[[str, str], list[list[Any]]]
) -> None:
    """States are the callers': loops that take turns play as each would alone."""
    envs = [short(task) for _ in range(2)]
    policy = MAKERS[name](envs[0])
    observations = [env.reset(seed=SEEDS[i])[0] for i, env in enumerate(envs)]
    states: list[Any] = [policy.seed_episodes([SEEDS[i]]) for i in range(2)]
    played: list[list[Any]] = [[], []]
    for _ in range(STEPS):
        for i, env in enumerate(envs):
            action, states[i] = policy.predict(observations[i], states[i])
            played[i].append(comparable(action))
            observations[i], *_ = env.step(action)
    for env in envs:
        env.close()
    assert played == [row[:STEPS] for row in alone(name, task)[:2]]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_without_a_state_each_call_starts_afresh(name: str, task: str) -> None:
    env = short(task)
    policy = MAKERS[name](env)
    first, _ = env.reset(seed=5)
    action, state = policy.predict(first)
    for _ in range(3):
        _, state = policy.predict(env.step(action)[0], state)
    env.reset(seed=5)
    assert comparable(policy.predict(first)[0]) == comparable(action)
    env.close()


class Counting:
    """Counts the calls of a policy's ``predict``."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.calls = policy, 0

    def predict(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return self.policy.predict(*arguments, **options)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_evaluate_policy_runs_unmodified(name: str, task: str) -> None:
    envs = DummyVecEnv([lambda: gym.wrappers.RecordEpisodeStatistics(short(task))] * ROWS)
    policy = Counting(MAKERS[name](envs))
    returns, lengths = evaluate_policy(
        policy,  # type: ignore[arg-type]
        envs,
        n_eval_episodes=ROWS + 1,
        return_episode_rewards=True,
        warn=False,
    )
    envs.close()
    assert lengths == [STEPS] * (ROWS + 1)
    assert np.isfinite(returns).all()
    assert policy.calls == 2 * STEPS


@pytest.mark.parametrize(("name", "task"), [case for case in CASES if case[0] != "expert"])
def test_copies_act_alike(name: str, task: str) -> None:
    """A policy may be copied, and sent to another process."""
    env = short(task)
    policy = MAKERS[name](env)
    observation, _ = env.reset(seed=5)
    action, state = policy.predict(observation)
    following, *_ = env.step(action)
    expected = comparable(policy.predict(following, copy.deepcopy(state))[0])
    for clone in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert comparable(clone.predict(observation)[0]) == comparable(action)
        kept = pickle.loads(pickle.dumps(state))
        assert comparable(clone.predict(following, kept)[0]) == expected
    env.close()
