"""BabyAI levels: MiniGrid's own, bounded, and their symmetries checked by playing both worlds."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj
from stable_baselines3.common.vec_env import DummyVecEnv

from gato_gym.episodes.episode import Episode
from gato_gym.tasks import get_task, levels, list_tasks
from gato_gym.tasks.babyai import COLOURED, COLOURS, InstructionSpace, augment, transform

SIX = np.arange(6)


def play(env: gym.Env[Any, Any], actions: Any, task: str = "babyai-test") -> Episode:
    """The episode that ``actions`` make of an environment that was just reset."""
    level: Any = env.unwrapped
    observations = [level.gen_obs()]
    rewards, ends = [], []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(int(action))
        observations.append(observation)
        rewards.append(float(reward))
        ends.append((terminated, truncated))
        if terminated or truncated:
            break
    return Episode(
        task=task,
        observations={
            "image": np.stack([observation["image"] for observation in observations]),
            "direction": np.array([int(observation["direction"]) for observation in observations]),
            "mission": [str(observation["mission"]) for observation in observations],
        },
        actions=np.asarray(actions[: len(rewards)]),
        rewards=np.asarray(rewards, np.float32),
        terminations=np.array([end[0] for end in ends]),
        truncations=np.array([end[1] for end in ends]),
    )


def bot_actions(task: str, seed: int, *, noise: float) -> list[int]:
    """What MiniGrid's bot executes in a level, with some random actions between."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    generator = np.random.default_rng(seed)
    env = get_task(task).make()
    env.reset(seed=seed)
    bot, executed, done = BabyAIBot(env.unwrapped), [], False
    while not done and len(executed) < 120:
        choice = int(bot.replan(executed[-1] if executed else None))
        executed.append(int(generator.integers(3)) if generator.random() < noise else choice)
        _, _, terminated, truncated, _ = env.step(executed[-1])
        done = terminated or truncated
    return executed


def rebuild(level: Any, order: Any, *, mirrored: bool, turned: int) -> None:
    """Recolour, mirror (top to bottom) and turn a level's world, in place."""
    size = level.grid.width
    assert size == level.grid.height

    def place(x: int, y: int) -> tuple[int, int]:
        y = size - 1 - y if mirrored else y
        for _ in range(turned):
            x, y = size - 1 - y, x
        return x, y

    old, level.grid = level.grid, Grid(size, size)
    recoloured: list[WorldObj] = []
    for x in range(size):
        for y in range(size):
            thing = old.get(x, y)
            level.grid.set(*place(x, y), thing)
            if thing is not None and thing.type != "wall":
                thing.cur_pos = place(x, y)
                thing.init_pos = thing.init_pos and place(*thing.init_pos)
                recoloured.append(thing)
    for thing in recoloured:
        thing.color = COLOURS[order[COLOURS.index(thing.color)]]
    level.agent_pos = np.array(place(*(int(part) for part in level.agent_pos)))
    level.agent_dir = ((-level.agent_dir if mirrored else level.agent_dir) + turned) % 4
    _reword(level.instrs, order, mirrored)
    level.instrs.reset_verifier(level)
    level.mission = level.instrs.surface(level)


def _reword(instruction: Any, order: Any, mirrored: bool) -> None:
    for part in ("instr_a", "instr_b"):
        if hasattr(instruction, part):
            _reword(getattr(instruction, part), order, mirrored)
    for part in ("desc", "desc_move", "desc_fixed"):
        described = getattr(instruction, part, None)
        if described is None:
            continue
        if described.color is not None:
            described.color = COLOURS[order[COLOURS.index(described.color)]]
        if mirrored:
            described.loc = {"left": "right", "right": "left"}.get(described.loc, described.loc)


@pytest.mark.parametrize(
    ("task", "seed"),
    [
        ("babyai-go-to-local", 1),
        ("babyai-pickup-loc", 30),
        ("babyai-pickup-loc", 25),
        ("babyai-put-next-local", 3),
        ("babyai-unlock", 4),
        ("babyai-boss-level", 17),
        ("babyai-boss-level", 22),
        ("babyai-open-doors-order-n4", 6),
    ],
)
def test_a_symmetry_is_what_the_changed_world_shows(task: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    actions = bot_actions(task, seed, noise=0.15)
    here, there = get_task(task).make(), get_task(task).make()
    here.reset(seed=seed)
    episode = play(here, actions)
    for mirrored, turned in ((False, 0), (True, 0), (False, 1), (True, 3)):
        order = generator.permutation(6)
        expected = transform(episode, order, mirrored=mirrored, turned=turned)
        there.reset(seed=seed)
        rebuild(there.unwrapped, order, mirrored=mirrored, turned=turned)
        real = play(there, expected.actions)
        np.testing.assert_array_equal(real.observations["image"], expected.observations["image"])
        np.testing.assert_array_equal(
            real.observations["direction"], expected.observations["direction"]
        )
        assert real.observations["mission"] == expected.observations["mission"]
        np.testing.assert_array_equal(real.rewards, expected.rewards)
        np.testing.assert_array_equal(real.terminations, expected.terminations)


def test_what_the_expert_chose_from_is_mirrored_too() -> None:
    env = get_task("babyai-go-to-obj").make()
    env.reset(seed=0)
    actions = np.arange(7)
    episode = play(env, actions)
    certain = np.eye(7, dtype=np.float16)[episode.actions]
    episode = dataclasses.replace(episode, distribution=certain)
    for mirrored in (False, True):
        there = transform(episode, SIX, mirrored=mirrored, turned=1)
        assert there.distribution is not None
        np.testing.assert_array_equal(there.distribution.argmax(1), there.actions)
    assert there.actions[0] != episode.actions[0]


def test_left_and_right_occur_in_what_is_mirrored() -> None:
    missions = " ".join(
        get_task("babyai-pickup-loc").make().reset(seed=seed)[0]["mission"] for seed in (25, 30)
    )
    assert re.findall(r"\b(?:left|right)\b", missions) == ["right", "left"]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_the_inverse_gives_the_original(mirrored: bool, turned: int) -> None:
    env = get_task("babyai-synth-loc").make()
    env.reset(seed=3)
    episode = play(env, np.random.default_rng(0).integers(0, 7, 60))
    episode = dataclasses.replace(episode, executed=(episode.actions + 1) % 7)
    before = copy.deepcopy(episode)
    order = np.random.default_rng(turned).permutation(6)
    there = transform(episode, order, mirrored=mirrored, turned=turned)
    # A mirror and a turn do not commute: the turn comes undone first, the other way round.
    back = transform(there, SIX, mirrored=False, turned=-turned)
    back = transform(back, np.argsort(order), mirrored=mirrored, turned=0)
    for same in (back, episode):  # the second: nothing was changed in place
        np.testing.assert_array_equal(same.observations["image"], before.observations["image"])
        np.testing.assert_array_equal(
            same.observations["direction"], before.observations["direction"]
        )
        assert same.observations["mission"] == before.observations["mission"]
        np.testing.assert_array_equal(same.actions, before.actions)
        np.testing.assert_array_equal(same.executed, before.executed)


def test_mission_and_grid_agree_in_colours() -> None:
    """What the instruction names is in view, in its colour, before and after."""
    task, generator, seen = get_task("babyai-go-to-local"), np.random.default_rng(0), 0
    env = task.make()
    for seed in range(30):
        env.reset(seed=seed)
        episode = play(env, [0, 0, 0, 0])  # looks around
        colour, kind = re.fullmatch(r"go to (?:the|a) (\w+) (\w+)", _mission(episode)).groups()  # type: ignore[union-attr]
        if not _shows(episode, colour, kind):
            continue  # behind something
        seen += 1
        other = augment(episode, generator)
        colour, kind = re.fullmatch(r"go to (?:the|a) (\w+) (\w+)", _mission(other)).groups()  # type: ignore[union-attr]
        assert _shows(other, colour, kind)
    assert seen > 20


def _mission(episode: Episode) -> str:
    return str(episode.observations["mission"][0])


def _shows(episode: Episode, colour: str, kind: str) -> bool:
    cells = episode.observations["image"].reshape(-1, 3)
    return bool(
        ((cells[:, 0] == OBJECT_TO_IDX[kind]) & (cells[:, 1] == COLOR_TO_IDX[colour])).any()
    )


def test_symbols_are_those_of_minigrid() -> None:
    assert {colour: index for index, colour in enumerate(COLOURS)} == COLOR_TO_IDX
    assert sorted(COLOURED) == sorted(
        OBJECT_TO_IDX[kind] for kind in ("door", "key", "ball", "box")
    )
    # Every object whose colour is left alone has one colour only.
    assert WorldObj.decode(OBJECT_TO_IDX["wall"], 5, 0).encode() == (2, COLOR_TO_IDX["grey"], 0)


def test_walls_and_floor_keep_their_colour() -> None:
    env = get_task("babyai-go-to-local").make()
    env.reset(seed=0)
    episode = play(env, [0] * 4)
    image = transform(episode, np.roll(SIX, 1), mirrored=False, turned=0).observations["image"]
    before = episode.observations["image"]
    plain = ~np.isin(before[..., 0], COLOURED)
    np.testing.assert_array_equal(image[plain], before[plain])
    np.testing.assert_array_equal(image[~plain][:, 1], np.roll(SIX, 1)[before[~plain][:, 1]])


def test_augment_depends_on_the_generator_alone() -> None:
    env = get_task("babyai-go-to").make()
    env.reset(seed=0)
    episode = play(env, [0, 1, 2, 2])
    first, again = (augment(episode, np.random.default_rng(5)) for _ in range(2))
    assert first.observations["mission"] == again.observations["mission"]
    np.testing.assert_array_equal(first.observations["image"], again.observations["image"])
    drawn = {
        str(augment(episode, np.random.default_rng(n)).observations["image"]) for n in range(8)
    }
    assert len(drawn) == 8


@pytest.mark.parametrize("task", list_tasks("babyai"), ids=lambda task: task.id)
def test_a_level_is_minigrids_own(task: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed gives MiniGrid's level, and its quick view is MiniGrid's view."""
    env = task.make()
    original = gym.make(task.env_id, disable_env_checker=True).unwrapped
    seeds = (0,) if task.id == "babyai-go-to-imp-unlock" else (0, 1)
    generator = np.random.default_rng(0)
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        assert capsys.readouterr().out == ""
        expected, _ = original.reset(seed=seed)
        capsys.readouterr()  # which layouts MiniGrid rejected
        for _ in range(25):
            assert observation["mission"] == expected["mission"]
            assert observation["direction"] == expected["direction"]
            np.testing.assert_array_equal(observation["image"], expected["image"])
            assert observation in env.observation_space
            action = int(generator.choice([0, 1, 2, 2, 3, 4, 5]))
            observation, *result, info = env.step(action)
            expected, *rest, _ = original.step(action)
            assert result == rest
            assert info["success"] == (float(rest[0]) > 0)
            if result[1] or result[2]:
                break


def test_a_generator_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    env = get_task("babyai-go-to-obj").make()
    monkeypatch.setattr(levels, "MAX_DRAWS", 3)
    with pytest.raises(levels.LevelGenerationError, match="GoToObj made no level in 10 attempts"):
        env.reset(seed=0)
    monkeypatch.undo()
    env.reset(seed=0)  # none the worse


def test_a_seed_decides_the_level_through_stopped_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts, make = 0, get_task("babyai-go-to-local").make
    unstopped = make().reset(seed=0)[0]  # draws 94 numbers

    def count(self: Any, low: int, high: int) -> int:
        nonlocal attempts
        attempts += self._draws == 0
        return draw(self, low, high)

    draw = levels.BoundedLevel._rand_int
    monkeypatch.setattr(levels.BoundedLevel, "_rand_int", count)
    monkeypatch.setattr(levels, "MAX_ATTEMPTS", 100)
    monkeypatch.setattr(levels, "MAX_DRAWS", 70)
    first, second = make(), make()
    second.reset(seed=9)
    attempts = 0
    seen = first.reset(seed=0)[0]
    assert attempts > 1
    again = second.reset(seed=0)[0]
    np.testing.assert_array_equal(seen["image"], again["image"])
    assert seen["mission"] == again["mission"]
    assert not np.array_equal(seen["image"], unstopped["image"])


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_instructions_keep_to_their_rows(kind: str) -> None:
    task = get_task("babyai-go-to-obj")
    envs: Any = SyncVectorEnv([task.make] * 3)
    if kind == "async":
        envs = AsyncVectorEnv([task.make] * 3, context="spawn")
    seeds = [5, 6, 7]
    observations, _ = envs.reset(seed=seeds)
    envs.close()
    alone = [task.make().reset(seed=seed)[0] for seed in seeds]
    assert len({observation["mission"] for observation in alone}) == 3
    assert [str(mission) for mission in observations["mission"]] == [
        observation["mission"] for observation in alone
    ]
    np.testing.assert_array_equal(
        observations["image"], [observation["image"] for observation in alone]
    )


def test_stable_baselines_batches_instructions() -> None:
    task = get_task("babyai-go-to-obj")
    envs = DummyVecEnv([task.make] * 2)
    envs.seed(5)
    observations = envs.reset()
    expected = [task.make().reset(seed=seed)[0]["mission"] for seed in (5, 6)]
    assert observations["mission"].tolist() == expected


def test_instruction_space_samples_are_members() -> None:
    space = InstructionSpace()
    space.seed(0)
    assert all(space.sample() in space for _ in range(5))
    assert "Go to the red ball" not in space
    assert space == InstructionSpace()
