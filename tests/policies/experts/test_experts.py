"""Experts and chance: the same contract in one environment and in vector environments."""

from __future__ import annotations

import functools
import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from gato_gym.tasks import MissingPackageError, get_task, list_tasks
from gato_gym.wrappers import GatoTokenize
from policies.base import Policy
from policies.experts import babyai as bots
from policies.experts import make_expert
from policies.random_policy import RandomPolicy

LOCAL = "babyai-go-to-local"
REACH = "metaworld-reach"
TRAINED = "mujoco-reacher"


def play(env: gym.Env[Any, Any], policy: Policy, seed: int, steps: int = 10_000) -> Any:
    """Actions, return and last info of an episode in one environment."""
    observation, _ = env.reset(seed=seed)
    state, actions, total, info = None, [], 0.0, {}
    for _ in range(steps):
        action, state = policy.predict(observation, state)
        assert env.action_space.contains(action)
        actions.append(action)
        observation, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        if terminated or truncated:
            break
    return np.array(actions), total, info


@functools.cache
def one(task: str) -> gym.Env[Any, Any]:
    """An environment to use again and again: Meta-World's take a second to make."""
    return get_task(task).make()


def make_policy(kind: str, task: str, env: Any) -> Policy:
    if kind == "expert":
        return make_expert(task, env)
    single = one(task)
    return RandomPolicy(single.observation_space, single.action_space, seed=3)


# ---------------------------------------------------------------- the contract, in any batch


@pytest.mark.parametrize("task", [LOCAL, REACH, TRAINED])
@pytest.mark.parametrize("kind", ["expert", "random"])
def test_rows_of_a_batch_play_as_they_would_alone(kind: str, task: str) -> None:
    seeds, steps = [11, 12, 13], 8
    env = one(task)
    alone = [play(env, make_policy(kind, task, env), seed, steps)[0] for seed in seeds]
    envs = SyncVectorEnv([get_task(task).make] * 3, autoreset_mode=AutoresetMode.DISABLED)
    policy = make_policy(kind, task, envs)
    observations, _ = envs.reset(seed=seeds)
    state, starts = None, np.ones(3, np.bool_)
    for step in range(min(map(len, alone))):
        actions, state = policy.predict(observations, state, starts)
        for row in range(3):
            np.testing.assert_array_equal(actions[row], alone[row][step])
        assert envs.action_space.contains(actions)
        observations, *_ = envs.step(actions)
        starts = np.zeros(3, np.bool_)


@pytest.mark.parametrize("task", [LOCAL, REACH, TRAINED])
@pytest.mark.parametrize("kind", ["expert", "random"])
def test_stable_baselines_vector_environments(kind: str, task: str) -> None:
    envs = DummyVecEnv([get_task(task).make] * 2)
    envs.seed(20)
    policy = make_policy(kind, task, envs)
    observations = envs.reset()
    state, starts = None, np.ones(2, np.bool_)
    for _ in range(30):
        actions, state = policy.predict(observations, state, starts)
        assert len(actions) == 2
        assert all(envs.action_space.contains(action) for action in actions)
        observations, _, starts, _ = envs.step(actions)


def test_the_bot_starts_anew_at_every_episode_of_a_vector() -> None:
    """Four environments in Gymnasium's usual mode: every episode that ends is a success."""
    envs = SyncVectorEnv([get_task(LOCAL).make] * 4)  # resets itself the step after an end
    policy = make_expert(LOCAL, envs)
    observations, _ = envs.reset(seed=30)
    state, starts, ended = None, np.ones(4, np.bool_), 0
    over = np.zeros(4, np.bool_)
    for _ in range(60):
        actions, state = policy.predict(observations, state, starts)
        starts = over
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        over = terminated | truncated
        assert (rewards[over] > 0.5).all()
        ended += int(over.sum())
    assert ended > 12


# ---------------------------------------------------------------- BabyAI's bot


@pytest.mark.parametrize("task", ["go-to-local", "open-door", "put-next-local", "pickup-loc"])
def test_the_bot_follows_instructions(task: str) -> None:
    env = get_task(f"babyai-{task}").make()
    expert = make_expert(f"babyai-{task}", env)
    for seed in range(5):
        _, total, info = play(env, expert, seed)
        assert info["success"]
        assert total > 0.5


def test_the_quick_bot_decides_as_minigrids_own() -> None:
    from minigrid.utils.baby_ai_bot import BabyAIBot

    generator = np.random.default_rng(0)
    for task in ("babyai-boss-level", "babyai-unlock", "babyai-put-next"):
        env = get_task(task).make()
        env.reset(seed=4)
        ours, theirs = bots.GuardedBot(env.unwrapped), BabyAIBot(env.unwrapped)
        executed, done, steps = None, False, 0
        while not done and steps < 100:
            choice = ours.choose(executed)
            assert choice == int(theirs.replan(executed))
            executed = int(generator.integers(3)) if generator.random() < 0.2 else choice
            _, _, terminated, truncated, _ = env.step(executed)
            done, steps = terminated or truncated, steps + 1


@pytest.mark.parametrize("seed", [4, 7, 9])
def test_the_quick_bot_goes_to_the_door_whose_key_it_has_seen(seed: int) -> None:
    """MiniGrid's bot would go to the nearest locked door, whose key is behind the other."""
    env = get_task("babyai-unlock-to-unlock").make()
    _, total, info = play(env, make_expert("babyai-unlock-to-unlock", env), seed)
    assert info["success"]
    assert total > 0.9


class Endless:
    """A subgoal that never says what to do, nor makes way for another."""

    def update_agent_attributes(self) -> None: ...

    def replan_after_action(self, action: int | None) -> None: ...

    def is_exploratory(self) -> bool:
        return False

    def replan_before_action(self) -> None: ...


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_a_bot_that_plans_without_end_gives_up(in_a_thread: bool) -> None:
    """In any thread; the other row of the batch plays on."""
    outcomes = []

    def run() -> None:
        task = get_task("babyai-go-to")
        envs = SyncVectorEnv([task.make] * 2, autoreset_mode=AutoresetMode.DISABLED)
        policy = make_expert(task.id, envs)
        observations, _ = envs.reset(seed=[0, 1])
        _, state = policy.predict(observations)
        state[0].bot._stack.append(Endless())
        for _ in range(2):
            actions, state = policy.predict(observations, state)
            outcomes.append(
                (actions[0], policy.failure_of(state, 0), actions[1], policy.failure_of(state, 1))
            )

    if in_a_thread:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    assert len(outcomes) == 2
    for action, failure, others_action, others_failure in outcomes:
        assert action == bots.DONE != others_action
        assert "subgoals for one decision" in str(failure)
        assert others_failure is None


@pytest.mark.parametrize("error", [AssertionError("lost"), AttributeError("None"), IndexError()])
def test_a_bot_that_raises_gives_up(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    env = get_task(LOCAL).make()
    policy = make_expert(LOCAL, env)
    observation, _ = env.reset(seed=0)
    _, state = policy.predict(observation)

    def fail(action: int | None) -> int:
        raise error

    monkeypatch.setattr(state[0].bot._bot, "replan", fail)
    action, state = policy.predict(observation, state)
    assert action == bots.DONE
    assert type(error).__name__ in str(policy.failure_of(state, 0))
    env.reset(seed=1)
    _, state = policy.predict(observation, state, np.array([True]))
    assert policy.failure_of(state, 0) is None  # a new episode, a new bot


def test_a_search_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bots, "MAX_VISITS", 5)
    env = get_task("babyai-go-to").make()
    _, total, info = play(env, make_expert("babyai-go-to", env), 0, steps=40)
    assert total == 0.0
    assert not info["success"]


def test_the_bot_is_told_what_was_executed() -> None:
    """Turned away from its path by others, it still arrives; untold, it would be lost."""
    env = get_task("babyai-go-to-obj").make()
    policy = make_expert("babyai-go-to-obj", env)
    generator = np.random.default_rng(0)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        state, done, info = None, False, {}
        while not done:
            action, state = policy.predict(observation, state)
            if generator.random() < 0.4:
                action = np.int64(generator.integers(3))
                policy.execute(state, 0, action)
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        assert info["success"]


# ---------------------------------------------------------------- Meta-World's scripts


@pytest.mark.parametrize("task", [REACH, "metaworld-drawer-close"])
def test_scripts_succeed(task: str) -> None:
    env = one(task)
    expert = make_expert(task, env)
    observation, _ = env.reset(seed=0)
    state, success = None, False
    for _ in range(150):
        action, state = expert.predict(observation, state)
        assert np.abs(action).max() <= 1.0
        observation, _, _, _, info = env.step(action)
        success = success or info["success"]
    assert success
    assert state is None


def test_scripts_look_at_the_observation_alone() -> None:
    """The same observation, the same action: whatever the policy saw before."""
    env = one(REACH)  # every task has its spaces
    seen = [env.reset(seed=seed)[0] for seed in range(3)]
    for task in list_tasks("metaworld")[::7]:
        expert = make_expert(task.id, env)
        first = [expert.predict(observation)[0] for observation in seen]
        again = [expert.predict(observation)[0] for observation in reversed(seen)][::-1]
        batch, _ = expert.predict(np.stack(seen))
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, batch)
        assert batch.dtype == np.float32


# ---------------------------------------------------------------- chance

SPACES: list[gym.Space[Any]] = [
    spaces.Box(-1.0, 2.0, (2, 3), np.float32),
    spaces.Box(-np.inf, np.inf, (1,), np.float64),
    spaces.Box(0, 255, (4,), np.uint8),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([[3, 4], [5, 6]], start=[[1, 1], [0, -3]]),
    spaces.MultiBinary([2, 3]),
    spaces.Text(6),
    spaces.Tuple([spaces.Discrete(3), spaces.Text(4), spaces.Box(0, 1, (2,))]),
    spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Dict({"c": spaces.MultiBinary(2)})}),
    spaces.Sequence(spaces.Discrete(3)),
    spaces.OneOf([spaces.Discrete(3), spaces.Box(0, 1, (2,))]),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_chance_draws_members_of_any_space(space: gym.Space[Any]) -> None:
    observation_space = spaces.Box(-1, 1, (2,))
    policy = RandomPolicy(observation_space, space, seed=1)
    observation, state = np.zeros(2, np.float32), None
    for _ in range(20):
        action, state = policy.predict(observation, state)
        assert space.contains(action)


@pytest.mark.parametrize("space", SPACES[:9], ids=lambda space: type(space).__name__)
def test_chance_is_dealt_to_the_episode_not_to_the_batch(space: gym.Space[Any]) -> None:
    observation_space = spaces.Box(-1, 1, (2,))
    starts = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)

    def deal(rows: Any) -> list[list[str]]:
        policy, state, dealt = RandomPolicy(observation_space, space, seed=1), None, []
        for _ in range(4):
            actions, state = policy.predict(starts[rows], state)
            members = gym.vector.utils.iterate(
                gym.vector.utils.batch_space(space, len(rows)), actions
            )
            dealt.append([repr(member) for member in members])
        return list(map(list, zip(*dealt, strict=True)))

    together = deal([0, 1, 2, 3])
    assert deal([2]) == together[2:3]
    assert deal([3, 1]) == [together[3], together[1]]
    assert len({str(row) for row in together}) == 4


def test_chance_depends_on_its_seed() -> None:
    space, box = spaces.Box(-1, 1, (2,)), spaces.Box(0, 1, (3,))
    first, again, other = (
        RandomPolicy(space, box, seed=seed).predict(np.zeros((1, 2), np.float32))[0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# ---------------------------------------------------------------- what is refused


def test_unknown_tasks_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean babyai-go-to-local"):
        make_expert("babyai-goto-local", None)


@pytest.mark.parametrize(("task", "package"), [(LOCAL, "minigrid"), (REACH, "metaworld")])
def test_a_missing_package_names_the_command(
    task: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = one(task)
    for name in (package, "minigrid.utils.baby_ai_bot", "metaworld.policies"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    bots.quick_bot.cache_clear()
    suite = task.partition("-")[0]
    with pytest.raises(MissingPackageError, match=rf'pip install "gato-gym\[{suite}\]"'):
        make_expert(task, env)


@pytest.mark.parametrize("task", [LOCAL, REACH])
def test_wrapped_environments_are_refused(task: str) -> None:
    with pytest.raises(ValueError, match="without GatoTokenize"):
        make_expert(task, GatoTokenize(one(task)))


def test_environments_out_of_reach_are_refused() -> None:
    envs = AsyncVectorEnv([get_task(LOCAL).make], context="spawn")
    try:
        with pytest.raises(ValueError, match="SyncVectorEnv or DummyVecEnv"):
            make_expert(LOCAL, envs)
    finally:
        envs.close()


def test_another_number_of_environments_is_refused() -> None:
    envs = SyncVectorEnv([get_task(LOCAL).make] * 2)
    policy = make_expert(LOCAL, envs)
    observation, _ = get_task(LOCAL).make().reset(seed=0)
    with pytest.raises(ValueError, match="1 observations for 2 environments"):
        policy.predict(observation)
    single = get_task(LOCAL).make()
    chance = RandomPolicy(single.observation_space, single.action_space)
    observations, _ = envs.reset(seed=0)
    _, state = chance.predict(observations)
    with pytest.raises(ValueError, match="state has 2 rows for 1 observations"):
        chance.predict(observation, state)
