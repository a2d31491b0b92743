"""Rows of the JAT dataset's schema become episodes, by hand and through files of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import get_task
from gato_gym.episodes.jat import RowSpaces, episode_of_row, import_rows, read_rows
from gato_gym.episodes.minari_datasets import find_minari, read_minari
from policies.training.data.datasets import find_tasks


def arm_row(number: int = 0, steps: int = 3) -> dict[str, Any]:
    numbers = np.arange(steps * 4).reshape(steps, 4) + number
    return {
        "continuous_observations": numbers.tolist(),
        "continuous_actions": (numbers[:, :2] / 10).tolist(),
        "rewards": [1.0] * steps,
    }


def grid_row() -> dict[str, Any]:
    symbols = np.zeros((2, 148), np.int64)
    symbols[:, 0] = (3, 1)
    symbols[1, 1 + (2 * 7 + 5) * 3 : 1 + (2 * 7 + 5) * 3 + 3] = (6, 2, 0)  # column 2, row 5
    return {
        "text_observations": ["go to the ball"] * 2,
        "discrete_observations": symbols.tolist(),
        "discrete_actions": [2, 1],
        "rewards": [0.0, 0.9],
    }


def test_numbers() -> None:
    episode = episode_of_row(arm_row(), task="arm")
    assert episode.observations.dtype == np.float32
    assert episode.observations.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], *[[8, 9, 10, 11]] * 2]
    assert np.allclose(episode.actions, [[0, 0.1], [0.4, 0.5], [0.8, 0.9]])
    assert episode.total_return == 3.0
    assert episode.truncations.tolist() == [False, False, True]
    assert episode.info == {"last_observation": "repeated"}


def test_a_grid_and_its_instruction_are_the_tasks(tmp_path: Path) -> None:
    episode = episode_of_row(grid_row())
    assert episode.observations["direction"].tolist() == [3, 1, 1]
    assert episode.observations["image"].shape == (3, 7, 7, 3)
    assert episode.observations["image"][1, 2, 5].tolist() == [6, 2, 0]
    assert episode.observations["mission"] == ["go to the ball"] * 3
    env = get_task("babyai-go-to-obj").make()
    assert import_rows([grid_row()], "jat/go-to-obj-v0", env=env, root=tmp_path) == pytest.approx(
        [0.9]
    )
    (read,) = read_minari("jat/go-to-obj-v0", root=tmp_path)
    assert read.actions.tolist() == [2, 1]
    assert read.observations["mission"] == ["go to the ball"] * 3


def test_four_channels_are_a_stack_of_frames() -> None:
    images = np.arange(2 * 8 * 6 * 4, dtype=np.uint8).reshape(2, 8, 6, 4)
    row = {"image_observations": list(images), "discrete_actions": [0, 4], "rewards": [0.0, 1.0]}
    episode = episode_of_row(row)
    assert episode.observations.shape == (3, 4, 8, 6)
    assert np.array_equal(episode.observations[1, 3], images[1, :, :, 3])
    both_spaces = RowSpaces(episode)
    assert both_spaces.action_space == spaces.Discrete(5)
    assert both_spaces.observation_space == spaces.Box(0, 255, (4, 8, 6), np.uint8)


def test_what_is_no_row_is_refused(tmp_path: Path) -> None:
    for wrong, said in (
        ({"rewards": [1.0]}, r"expected 'continuous_observations'"),
        ({**arm_row(), "rewards": [1.0]}, r"lengths \{'rewards': 1, 'actions': 3"),
        ({**grid_row(), "discrete_observations": [[0] * 9] * 2}, r"expected \[T, 148\]"),
        ({"image_observations": [np.zeros((8, 8, 3))]}, r"expected \[height, width, 4\]"),
    ):
        with pytest.raises(ValueError, match=said):
            episode_of_row(wrong)
    with (
        gym.make("CartPole-v1") as env,
        pytest.raises(ValueError, match=r"row 0 has observations \[4\] and actions of shape \(2,"),
    ):
        import_rows([arm_row()], "jat/arm-v0", env=env, root=tmp_path)
    assert not list(tmp_path.rglob("*.hdf5"))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, with its cache in the test's folder."""
    package = pytest.importorskip("datasets")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return package


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "folder"])
def test_files_of_the_schema(tmp_path: Path, datasets: Any, kind: str) -> None:
    features = datasets.Features(
        continuous_observations=datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
        continuous_actions=datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
        rewards=datasets.Sequence(datasets.Value("float32")),
    )
    dataset = datasets.Dataset.from_list([arm_row(0), arm_row(5, steps=2)], features=features)
    path = tmp_path / f"rows.{kind}"
    if kind == "folder":
        dataset.save_to_disk(str(path))
    else:
        (dataset.to_parquet if kind == "parquet" else dataset.to_json)(str(path))
    assert import_rows(read_rows(path), "jat/arm-v0", root=tmp_path) == [3.0, 2.0]
    first, second = read_minari("jat/arm-v0", root=tmp_path)
    assert first.observations[:3].tolist() == arm_row()["continuous_observations"]
    assert second.length == 2
    spec = find_minari(tmp_path / "jat/arm-v0").spec
    assert spec.action_space == spaces.Box(-1, 1, (2,), np.float32)


def test_images_of_the_schema(tmp_path: Path, datasets: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 4), dtype=np.uint8)
    features = datasets.Features(
        image_observations=datasets.Sequence(datasets.Image()),
        discrete_actions=datasets.Sequence(datasets.Value("int64")),
        rewards=datasets.Sequence(datasets.Value("float32")),
    )
    row = {
        "image_observations": [image.fromarray(frame, "RGBA") for frame in frames],
        "discrete_actions": [0, 3],
        "rewards": [0.0, 1.0],
    }
    dataset = datasets.Dataset.from_list([row], features=features)
    dataset.to_parquet(str(tmp_path / "pong.parquet"))
    (episode,) = read_rows(tmp_path / "pong.parquet")
    assert np.array_equal(episode_of_row(episode).observations[0], frames[0].transpose(2, 0, 1))


def frames_row(steps: int = 3) -> dict[str, Any]:
    image = pytest.importorskip("PIL.Image")
    frames = np.random.default_rng(steps).integers(0, 256, (steps, 84, 84, 4), dtype=np.uint8)
    return {
        "image_observations": [image.fromarray(frame, "RGBA") for frame in frames],
        "discrete_actions": [3] * steps,
        "rewards": [1.0] * steps,
    }


@pytest.fixture
def hub(tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dataset's layout as a folder: four configurations, one of which cannot be read."""
    numbers = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
    whole = datasets.Sequence(datasets.Value("int64"))
    features = {
        "mujoco-ant": {"continuous_observations": numbers, "continuous_actions": numbers},
        "babyai-go-to-obj": {
            "text_observations": datasets.Sequence(datasets.Value("string")),
            "discrete_observations": datasets.Sequence(whole),
            "discrete_actions": whole,
        },
        "atari-pong": {
            "image_observations": datasets.Sequence(datasets.Image()), "discrete_actions": whole,
        },
    }  # fmt: skip
    wild = {**arm_row(7), "continuous_actions": [[0.5, -2.5]] * 3}
    rows = {
        "mujoco-ant": [arm_row(0), arm_row(5), wild, arm_row(9)],
        "babyai-go-to-obj": [grid_row(), grid_row()],
        "atari-pong": [frames_row(3), frames_row(4)],
    }
    folder = tmp_path / "hub"
    configurations = []
    for name in (*rows, "mujoco-broken"):
        path = folder / name / "train-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        configurations.append(f"- config_name: {name}\n  data_files: {name}/*.parquet\n")
        if name not in rows:
            path.write_bytes(b"no parquet")
            continue
        kinds = {**features[name], "rewards": datasets.Sequence(datasets.Value("float32"))}
        datasets.Dataset.from_list(rows[name], features=datasets.Features(kinds)).to_parquet(path)
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configurations) + "---\n")
    monkeypatch.setattr("gato_gym.episodes.jat.HUB_DATASET", str(folder))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    return folder


def test_configurations_are_streamed_by_name(hub: Path, tmp_path: Path) -> None:
    names = ["jat:mujoco-ant", "jat:babyai-go-to-obj", "jat-project/jat-dataset:atari-pong:1"]
    pong, level, ant = find_tasks(names, share=0.0)
    assert (level.id, pong.id) == ("babyai-go-to-obj", "atari-pong"), "registered tasks"
    assert level.action_space == spaces.Discrete(7)
    assert pong.action_space == spaces.Discrete(6)
    assert [task.counts for task in (ant, level, pong)] == [(4, 4), (2, 2), (1, 1)]
    assert ant.action_space == spaces.Box(-2.5, 2.5, (2,), np.float32), "its largest number"
    (episode,) = pong.episodes()
    frames = np.asarray(frames_row(3)["image_observations"][2])
    assert np.array_equal(episode.observations[2], frames.transpose(2, 0, 1))
    assert not list((tmp_path / "cache").rglob("*.arrow")), "nothing is downloaded whole"
    for path in hub.rglob("*.parquet"):
        path.unlink()
    assert [task.id for task in find_tasks(names, share=0.0)] == [t.id for t in (pong, level, ant)]


def test_no_more_rows_are_asked_for_than_needed(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "gato_gym.episodes.jat.episode_of_row",
        lambda row, **more: (asked.append(row), episode_of_row(row, **more))[1],
    )
    (ant,) = find_tasks(["jat:mujoco-ant:2"], share=0.0)
    assert (ant.id, len(asked)) == ("jat/mujoco-ant-first-2-v0", 2)
    assert ant.action_space == spaces.Box(-1.4, 1.4, (2,), np.float32)
    with pytest.raises(ValueError, match="mujoco-cow"):
        find_tasks(["jat:mujoco-cow"])


def test_images_on_the_hub_that_name_files_are_refused(hub: Path, datasets: Any) -> None:
    path = hub / "atari-pong" / "train-00000-of-00001.parquet"
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    rows = table.to_pylist()
    rows[0]["image_observations"] = [{"bytes": None, "path": "/etc/hostname"}] * 3
    kinds = {
        "image_observations": datasets.Sequence(datasets.Image(decode=False)),
        "discrete_actions": datasets.Sequence(datasets.Value("int64")),
        "rewards": datasets.Sequence(datasets.Value("float32")),
    }
    datasets.Dataset.from_list(rows, features=datasets.Features(kinds)).to_parquet(path)
    with pytest.raises(ValueError, match="'image_observations' name files, expected their content"):
        find_tasks(["jat:atari-pong"])
