"""The registry: ids, patterns, Gymnasium ids, and errors that say what to do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

import gato_gym
from gato_gym.tasks import (
    MissingPackageError,
    Suite,
    UnknownTaskError,
    get_suite,
    get_task,
    list_suites,
    list_tasks,
    register_suite,
    resolve,
    task_id_of,
)
from gato_gym.wrappers import GatoTokenize

PUBLISHED = Path(gato_gym.__file__).parents[1] / "benchmarks/references/published.json"


def test_every_task_has_a_name_of_its_own() -> None:
    tasks = list_tasks()
    ids = [task.id for task in tasks]
    assert ids == sorted(set(ids))
    assert len({(task.suite, task.env_id) for task in tasks}) == len(tasks)
    counts = {"atari": 57, "babyai": 39, "dm_control": 28, "metaworld": 50, "mujoco": 11}
    assert {suite: len(list_tasks(suite)) for suite in counts} == counts
    for task in tasks:
        assert task.id.startswith(f"{task.suite}-")
        assert task.suite in list_suites()
        assert get_task(task.id) is task is get_task(f"Gato/{task.id}")


def test_levels_are_those_of_the_published_scores() -> None:
    """A published score is of the same MiniGrid level as the task it is printed beside."""
    text = PUBLISHED.read_text()
    for suite in ("atari", "babyai", "mujoco"):
        assert {task.id for task in list_tasks(suite)} <= set(_keys(json.loads(text)))


def _keys(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [*part, *(key for value in part.values() for key in _keys(value))]
    if isinstance(part, list):
        return [key for value in part for key in _keys(value)]
    return [part] if isinstance(part, str) else []


def test_ids_of_levels_by_hand() -> None:
    by_hand = {
        "babyai-go-to-local": "BabyAI-GoToLocal-v0",
        "babyai-put-next": "BabyAI-PutNextS7N4-v0",
        "babyai-find-obj-s5": "BabyAI-FindObjS5-v0",
        "babyai-move-two-across-s8n9": "BabyAI-MoveTwoAcrossS8N9-v0",
        "babyai-open-doors-order-n4": "BabyAI-OpenDoorsOrderN4-v0",
        "babyai-go-to-red-ball-no-dists": "BabyAI-GoToRedBallNoDists-v0",
        "metaworld-assembly": "assembly-v3",
        "metaworld-button-press-topdown-wall": "button-press-topdown-wall-v3",
    }
    assert {task: get_task(task).env_id for task in by_hand} == by_hand


@pytest.mark.parametrize(
    ("suite", "pattern", "count", "first"),
    [
        ("babyai", None, 39, "babyai-action-obj-door"),
        (None, "metaworld-door-*", 4, "metaworld-door-close"),
        ("metaworld", "door-*", 4, "metaworld-door-close"),
        (None, "*-unlock", 5, "babyai-boss-level-no-unlock"),
        ("babyai", "unlock", 1, "babyai-unlock"),
        (None, "reach, Gato/babyai-unlock,*-unlock", 6, "babyai-boss-level-no-unlock"),
    ],
)
def test_patterns(suite: str | None, pattern: str | None, count: int, first: str) -> None:
    matching = list_tasks(suite, pattern)
    assert (len(matching), matching[0].id) == (count, first)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("babyai-goto-local", "babyai-go-to-local"),
        ("Gato/babyai-go-to-locale", "babyai-go-to-local"),
        ("metaworld-assemble", "metaworld-assembly"),
    ],
)
def test_a_wrong_id_suggests_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownTaskError, match=f"unknown task '{wrong}': did you mean .*{right}"):
        get_task(wrong)


def test_wrong_suites_and_patterns() -> None:
    with pytest.raises(UnknownTaskError, match="suites are atari, babyai, dm_control"):
        get_task("qqq")
    with pytest.raises(UnknownTaskError, match="expected one of atari, babyai"):
        list_tasks("atary")
    with pytest.raises(UnknownTaskError, match=r"did you mean .*go-to-local"):
        list_tasks("babyai", "goto-local")
    with pytest.raises(UnknownTaskError, match=r"no task matches 'rech': did you mean reach"):
        list_tasks("metaworld", "push,rech")
    with pytest.raises(UnknownTaskError, match="pattern of tasks is empty"):
        list_tasks("babyai", " , ")


@pytest.mark.parametrize(
    ("task", "package"), [("babyai-go-to-local", "minigrid"), ("metaworld-reach", "metaworld")]
)
def test_a_missing_package_names_the_command(
    task: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    suite = task.partition("-")[0]
    with pytest.raises(MissingPackageError, match=rf'pip install "gato-gym\[{suite}\]"'):
        get_task(task).make()
    assert issubclass(MissingPackageError, ImportError)


def test_looking_tasks_up_imports_no_simulator() -> None:
    code = (
        "import sys, gato_gym; gato_gym.list_tasks(); gato_gym.get_task('metaworld-reach'); "
        "print([name for name in ('minigrid', 'metaworld', 'ale_py', 'mujoco', "
        "'dm_control', 'torch', 'minari') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gymnasium_ids() -> None:
    env = gym.make("Gato/babyai-go-to-obj")
    observation, _ = env.reset(seed=1)
    assert observation in env.observation_space
    again = gym.make(env.spec)
    np.testing.assert_array_equal(again.reset(seed=1)[0]["image"], observation["image"])


def test_wrappers_are_applied_inside_out() -> None:
    env = gym.make("Gato/babyai-go-to-obj", wrappers=[GatoTokenize])
    assert isinstance(env.action_space, gym.spaces.MultiDiscrete)
    observation, _ = env.reset(seed=1)
    assert observation in env.observation_space


def test_task_id_of_environments() -> None:
    task = get_task("babyai-go-to-obj")
    assert task_id_of(task.make()) == task.id
    assert task_id_of(gym.wrappers.TimeLimit(task.make(), 5)) == task.id
    assert task_id_of(SyncVectorEnv([task.make] * 2)) == task.id
    assert task_id_of(DummyVecEnv([task.make])) == task.id
    assert task_id_of(task.make().spec) in (task.id, None)
    assert task_id_of(gym.make("CartPole-v1")) is None
    assert task_id_of(object()) is None


def test_limits_of_episodes() -> None:
    """BabyAI's levels set their own limit for each episode; nothing cuts them shorter."""
    env = get_task("babyai-go-to-obj").make()
    env.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        *_, terminated, truncated, _ = env.step(6)  # done: stands still
        steps += 1
        assert not terminated
    assert steps == 64 == env.unwrapped.max_steps  # type: ignore[attr-defined]
    assert get_task("metaworld-reach").max_episode_steps == 500


def test_a_suite_is_registered_once_and_under_its_name() -> None:
    register_suite(get_suite("mujoco"))  # the same again
    with pytest.raises(ValueError, match="a suite 'mujoco' of 11 tasks is registered already"):
        register_suite(dataclasses.replace(get_suite("mujoco"), title="Another"))
    task = get_suite("mujoco").tasks[0]
    with pytest.raises(ValueError, match="in suite 'chess': expected an id 'chess-…' and suite="):
        Suite("chess", (task,))
    for name in ("all", "my-suite", ""):
        with pytest.raises(ValueError, match="expected lower-case letters, digits and _, and not"):
            Suite(name, (task,))
    with pytest.raises(ValueError, match="has no tasks"):
        Suite("chess", ())


UNTRAINED = ("procgen", "sokoban")
"""Suites with neither experts nor recipes, so that nothing normalises their scores."""


@pytest.mark.parametrize("suite", [name for name in list_suites() if name not in UNTRAINED])
def test_what_a_suite_names_is_there(suite: str) -> None:
    """Modules and files are named by strings, which no type checker follows."""
    its = get_suite(suite)
    assert its.expert is None or callable(resolve(its.expert))
    assert resolve(its.recipes).keys() >= {task.id for task in its.tasks if its.expert is None}, (
        "an expert or a recipe for every task"
    )
    assert its.references_path is not None
    assert suite in json.loads(its.references_path.read_text())["suites"]
