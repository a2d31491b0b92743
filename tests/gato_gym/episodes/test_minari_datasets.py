"""Episodes, to Minari datasets and back; Minari itself is the other reader and writer."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer

from gato_gym import Episode, read_minari, write_minari
from gato_gym.episodes.minari_datasets import (
    episodes_of,
    find_minari,
    minari_metadata,
    minari_root,
    returns_of,
    with_steps,
)
from gato_gym.episodes.minari_writing import new_minari
from gato_gym.space_json import read_space, write_space
from gato_gym.tasks import get_task
from policies.gato.prompts import demonstration
from policies.training.data.datasets import Source, find_tasks

NAME = "gato/nested-v0"


class NestedEnv(gym.Env[Any, Any]):
    """Spaces of many kinds; never played."""

    observation_space = spaces.Dict(
        {
            "parts": spaces.Tuple(
                [spaces.Box(-1, 1, (2,), np.float64)]
                + [spaces.Discrete(50, start=index) for index in range(11)]
            ),
            "picture": spaces.Box(0, 255, (48, 48, 3), np.uint8),
            "words": spaces.Text(20, charset="abcdefghijklmnopqrstuvwxyzäé ☃"),
        }
    )
    action_space = spaces.Dict(
        {"move": spaces.Box(-1, 1, (3,), np.float32), "press": spaces.MultiBinary(2)}
    )


@pytest.fixture
def env() -> gym.Env[Any, Any]:
    env = NestedEnv()
    env.spec = EnvSpec("GatoTest/Nested-v0", entry_point="elsewhere:NestedEnv")
    return env


def episode(length: int, *, seed: int | None = 5, executed: bool = False) -> Episode:
    """An episode of random numbers."""
    draw = np.random.default_rng([length, seed or 0])

    def actions() -> dict[str, Any]:
        return {
            "move": draw.uniform(-1, 1, (length, 3)).astype(np.float32),
            "press": draw.integers(0, 2, (length, 2), np.int8),
        }

    words = ["é ☃ ä", "", "go to the ball", "ends in blanks  "]
    last = np.arange(length) == length - 1
    return Episode(
        task="nested",
        observations={
            "parts": (
                draw.uniform(-1, 1, (length + 1, 2)),
                *[draw.integers(index, index + 50, length + 1) for index in range(11)],
            ),
            "picture": draw.integers(0, 256, (length + 1, 48, 48, 3), np.uint8),
            "words": [words[index % 4] for index in range(length + 1)],
        },
        actions=actions(),
        rewards=draw.normal(size=length).astype(np.float32),
        terminations=last,
        truncations=np.zeros(length, np.bool_),
        seed=seed,
        info={"noise": 0.2, "success": True, "who": "é"},
        executed=actions() if executed else None,
        distribution=(
            np.random.default_rng(length).random((length, 3)).astype(np.float16)
            if executed
            else None
        ),
    )


def assert_same(actual: Any, expected: Any) -> None:
    """Equal, of the same types, in the same nesting."""
    if dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(actual, field.name), getattr(expected, field.name))
    elif isinstance(expected, dict):
        assert sorted(actual) == sorted(expected)
        for key, part in expected.items():
            assert_same(actual[key], part)
    elif isinstance(expected, tuple):
        assert isinstance(actual, tuple)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    else:
        assert actual == expected


def test_a_round_trip_changes_nothing(env: gym.Env[Any, Any], tmp_path: Path) -> None:
    episodes = [episode(3), episode(1, executed=True), episode(12, seed=None)]
    write_minari(NAME, iter(episodes), env=env, root=tmp_path, expert_return=2.5)
    episodes_read = list(read_minari(NAME, root=tmp_path))
    for one, other in zip(episodes_read, episodes, strict=True):
        assert_same(one, other)
    assert minari_metadata(NAME, root=tmp_path)["expert_return"] == 2.5
    assert minari_metadata(NAME, root=tmp_path)["total_steps"] == 16


def test_minari_reads_what_is_written(env: gym.Env[Any, Any], tmp_path: Path) -> None:
    episodes = [episode(3, executed=True), episode(5)]
    write_minari(NAME, episodes, env=env, root=tmp_path)
    with minari_root(tmp_path):
        dataset = minari.load_dataset(NAME)
        assert NAME in minari.list_local_datasets()
    assert (dataset.total_episodes, dataset.total_steps) == (2, 8)
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    assert dataset.spec.env_spec is not None
    assert dataset.spec.env_spec.id == "GatoTest/Nested-v0"
    for actual, expected in zip(dataset.iterate_episodes(), episodes, strict=True):
        assert_same(actual.observations["parts"], expected.observations["parts"])
        assert_same(actual.observations["picture"], expected.observations["picture"])
        assert list(actual.observations["words"]) == expected.observations["words"]
        assert_same(actual.actions, expected.actions)
        np.testing.assert_array_equal(actual.rewards, expected.rewards)
        np.testing.assert_array_equal(actual.terminations, expected.terminations)


def test_what_minari_writes_is_read(env: gym.Env[Any, Any], tmp_path: Path) -> None:
    """A dataset that others made with Minari alone, without our notes."""
    expected = episode(4)
    with minari_root(tmp_path):
        minari.create_dataset_from_buffers(
            NAME,
            [
                EpisodeBuffer(
                    id=0,
                    observations=expected.observations,
                    actions=expected.actions,
                    rewards=list(expected.rewards),
                    terminations=list(expected.terminations),
                    truncations=list(expected.truncations),
                )
            ],
            env=env,
            observation_space=env.observation_space,
            action_space=env.action_space,
            algorithm_name="anyone",
            author="anyone",
            author_email="anyone@example.org",
            code_permalink="https://example.org",
            description="without notes",
            eval_env=env,
            jpeg_encoding=False,
        )
    (actual,) = read_minari(NAME, root=tmp_path)
    assert_same(actual, dataclasses.replace(expected, info={}, seed=None))
    assert "expert_return" not in minari_metadata(NAME, root=tmp_path)


@pytest.mark.parametrize("jpeg", [False, True], ids=["own-reader", "minari-reader"])
def test_a_part_of_a_dataset_is_read_as_that_part(
    env: gym.Env[Any, Any], tmp_path: Path, jpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [
        dataclasses.replace(episode(n), rewards=np.full(n, 10.0**n, np.float32))
        for n in range(1, 6)
    ]
    write_minari(NAME, written, env=env, root=tmp_path)
    with minari_root(tmp_path):
        dataset = minari.load_dataset(NAME)
    if jpeg:  # chooses Minari's own reader
        monkeypatch.setattr(type(dataset.storage), "jpeg_encoding", True)
    odd = dataset.filter_episodes(lambda each: len(each.rewards) % 2 == 1)
    assert [part.length for part in episodes_of(odd)] == [1, 3, 5]
    assert [part.length for part in episodes_of(odd, first=2)] == [5]
    assert returns_of(odd).tolist() == [10.0, 3_000.0, 500_000.0]
    parts = minari.split_dataset(dataset, [2, 3], seed=1)
    for part in parts:
        theirs = [len(each.rewards) for each in part.iterate_episodes()]
        assert [each.length for each in episodes_of(part)] == theirs
        assert returns_of(part).tolist() == [length * 10.0**length for length in theirs]
    none = dataset.filter_episodes(lambda each: False)
    assert list(episodes_of(none)) == []
    assert returns_of(none).tolist() == []


def test_environments_can_be_recovered(tmp_path: Path) -> None:
    env = get_task("babyai-go-to-obj").make()
    observation, _ = env.reset(seed=3)
    after, reward, *_ = env.step(2)
    seen = {
        "direction": np.array([observation["direction"], after["direction"]]),
        "image": np.stack([observation["image"], after["image"]]),
        "mission": [observation["mission"], after["mission"]],
    }
    end = np.array([True])
    recorded = Episode(
        "babyai-go-to-obj", seen, np.array([2]), np.array([reward], np.float32), end, ~end, seed=3
    )
    write_minari("gato/babyai-go-to-obj-v0", [recorded], env=env, root=tmp_path)
    (read,) = read_minari("gato/babyai-go-to-obj-v0", root=tmp_path)
    assert_same(read, recorded)
    with minari_root(tmp_path):
        again = minari.load_dataset("gato/babyai-go-to-obj-v0").recover_environment(eval_env=True)
    assert again.spec is not None
    assert again.spec.id == "Gato/babyai-go-to-obj"
    np.testing.assert_array_equal(again.reset(seed=3)[0]["image"], observation["image"])


def test_lengths_and_returns_by_hand() -> None:
    short = dataclasses.replace(episode(4), rewards=np.array([1e8, 1.0, -1e8, 0.5], np.float32))
    assert short.length == 4
    assert short.total_return == 1.5  # float32 would lose the 1.0


def test_empty_and_existing_datasets_are_refused(env: gym.Env[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass at least one"):
        write_minari(NAME, [], env=env, root=tmp_path)
    write_minari(NAME, [episode(2)], env=env, root=tmp_path)
    with pytest.raises(ValueError, match=r"exists in .* --overwrite \(replace=True\)"):
        write_minari(NAME, [episode(3)], env=env, root=tmp_path)
    (kept,) = read_minari(NAME, root=tmp_path)
    assert kept.length == 2
    write_minari(NAME, [episode(3)], env=env, root=tmp_path, replace=True)
    (given,) = read_minari(NAME, root=tmp_path)
    assert given.length == 3


def test_a_dataset_appears_when_it_is_complete(env: gym.Env[Any, Any], tmp_path: Path) -> None:
    def failing() -> Any:
        yield episode(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_minari(NAME, failing(), env=env, root=tmp_path)
    with pytest.raises(FileNotFoundError, match="gato-gym collect"):
        list(read_minari(NAME, root=tmp_path))
    write_minari(NAME, [episode(3)], env=env, root=tmp_path)
    metadata = {"algorithm_name": "expert", "description": "replaced"}
    replacing = new_minari(NAME, env=env, root=tmp_path, metadata=metadata, replace=True)
    with pytest.raises(RuntimeError, match="stop"), replacing:
        raise RuntimeError("stop")
    (kept,) = read_minari(NAME, root=tmp_path)
    assert kept.length == 3
    assert [path.name for path in (tmp_path / "gato").iterdir() if path.name[0] == "."] == []


def test_minaris_own_folder_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", "/somewhere")
    with minari_root(Path("elsewhere")):
        assert os.environ["MINARI_DATASETS_PATH"] == str(Path("elsewhere").resolve())
    with pytest.raises(RuntimeError, match="stop"), minari_root(Path("elsewhere")):
        raise RuntimeError("stop")
    assert os.environ["MINARI_DATASETS_PATH"] == "/somewhere"
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    with minari_root(Path("elsewhere")):
        pass
    assert "MINARI_DATASETS_PATH" not in os.environ


def test_episodes_without_a_step_are_left_out_and_never_written(
    env: gym.Env[Any, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="episode 1 has no step"):
        write_minari(NAME, [episode(3), episode(0)], env=env, root=tmp_path)
    write_minari(NAME, [episode(3), episode(4), episode(2)], env=env, root=tmp_path)
    folder = tmp_path / "gato" / "nested-v0"
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:  # as another program may
        group = file["episode_1"]
        group.attrs["total_steps"] = 0
        for name in ("rewards", "terminations", "truncations"):
            values = group[name][:0]
            del group[name]
            group[name] = values
    dataset = find_minari(folder)
    with pytest.warns(UserWarning, match="1 of 3 episodes of dataset 'gato/nested-v0' have no st"):
        source = Source.of(dataset, 0.0)
    assert [each.length for each in source.episodes()] == [3, 2]
    assert len(source.returns) == 2
    assert with_steps(source.dataset) is source.dataset
    with pytest.raises(ValueError, match="episode 1 of dataset 'gato/nested-v0' has 0 rewards"):
        demonstration(f"{folder}#1")
    assert demonstration(f"{folder}#2").length == 2


@pytest.mark.parametrize(
    "missing", ["dataset_id", "minari_version", "total_episodes", "observation_space", "all"]
)
def test_incomplete_metadata_is_named_by_id_and_by_folder(
    missing: str, env: gym.Env[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_minari(NAME, [episode(3)], env=env)
    path = tmp_path / "gato" / "nested-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata.pop(missing, None)
    metadata.pop("env_spec")
    path.write_text("{" if missing == "all" else json.dumps(metadata))
    for name in (NAME, tmp_path / "gato" / "nested-v0"):
        with pytest.raises(ValueError, match=r"nested-v0.* is no Minari dataset"):
            find_minari(name)
    with pytest.raises(ValueError, match=rf"'{NAME}' is no Minari dataset"):
        list(read_minari(NAME))


def test_a_dataset_of_an_id_without_a_version_is_read(
    env: gym.Env[Any, Any], tmp_path: Path
) -> None:
    write_minari(NAME, [episode(3)], env=env, root=tmp_path)
    path = tmp_path / "gato" / "nested-v0" / "data" / "metadata.json"
    path.write_text(path.read_text().replace(NAME, "x/nested"))
    (task,) = find_tasks([tmp_path / "gato" / "nested-v0"])
    assert [(each.task, each.length) for each in task.episodes()] == [("nested", 3)]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Sequence(spaces.Dict(a=spaces.Discrete(3)), stack=True),
        spaces.OneOf([spaces.Text(3), spaces.Sequence(spaces.Box(0, 1, (2,)))]),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.Dict(net=spaces.Tuple([spaces.Graph(spaces.Discrete(3), spaces.Discrete(4))])),
        spaces.Dict(none=spaces.Dict(), nothing=spaces.Tuple([])),
        spaces.Box(np.array([0, -1.5], np.float32), np.array([1, 2.5], np.float32)),
        spaces.Dict(low=spaces.Box(-np.inf, np.inf, (0, 3)), type=spaces.Box(-1, 1, ())),
    ],
)
def test_spaces_as_json_come_back(space: gym.Space[Any]) -> None:
    assert read_space(write_space(space), "space") == space


def test_a_large_picture_is_a_short_text_and_many_of_them_are_refused() -> None:
    picture = spaces.Box(0, 255, (400, 600, 3), np.uint8)
    text = write_space(spaces.Dict(camera=picture, seen=spaces.Sequence(picture)))
    assert len(text) < 400
    assert read_space(text, "space")["camera"] == picture
    many = json.dumps({"type": "Tuple", "subspaces": [json.loads(write_space(picture))] * 24})
    with pytest.raises(ValueError, match="space is of 17280000, expected 0 to"):
        read_space(many, "space")


def test_a_mission_is_written_as_the_text_it_makes() -> None:
    mission = pytest.importorskip("minigrid.core.mission").MissionSpace(lambda: "get the ball")
    text = read_space(write_space(spaces.Dict(mission=mission)), "space")["mission"]
    assert isinstance(text, spaces.Text)
    assert text.contains("get the ball")
