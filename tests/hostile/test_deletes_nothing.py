"""Nothing is deleted but what the command itself wrote: every writer is pointed at users' files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from environments import Balance
from hostile import DATASET, change_metadata, contents, episode, write_dataset
from small import SMALL, state_plan
from small_training import config, shards

from gato_gym import write_minari
from gato_gym.__main__ import main
from gato_gym.episodes.jat import import_rows
from gato_gym.episodes.metadata import check_dataset_id
from gato_gym.episodes.minari_writing import new_minari
from gato_gym.files.atomic_io import appearing, write_whole
from policies import GatoPolicy
from policies.collection.record import record_episodes
from policies.experts.store import SHIPPED, load_expert, save_expert
from policies.gato.checkpoint import load_checkpoint
from policies.model.network import GatoNetwork
from policies.training.data.datasets import find_tasks
from policies.training.data.encoding import shard_tasks
from policies.training.data.shards import save_arrays
from policies.training.trainer import Trainer

NO_IDS = [
    "", ".", "..", "my", "my/", "my/cart", "my/cart-v", "my/cart-v0/", "-v0/..", "/my/cart-v0",
    "../victim", "../victim-v0", "my/../../victim-v0", "my/../victim-v0", "./my-v0", "my//cart-v0",
    "~/victim-v0", "my/cart-v0\n", "my\\cart-v0", "C:/victim-v0", "my/cart.git-v0", "my/c\0t-v0",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's files, with a folder of datasets among them."""
    for name in ("victim/thesis.tex", "victim-v0/data/notes.txt", "my/letter.txt", "x/a.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "data" / "my").mkdir(parents=True)
    (tmp_path / "data" / "my" / "photo.png").write_text("a photo")
    return tmp_path


@pytest.mark.parametrize("dataset", NO_IDS)
def test_an_id_that_is_none_is_refused_before_anything_is_played(home: Path, dataset: str) -> None:
    before = contents(home)
    with gym.make("CartPole-v1") as env, pytest.raises(ValueError, match="dataset id"):
        record_episodes(env, Balance(), 1, dataset, root=home / "data", replace=True)
    row = {"continuous_observations": [[0.0]], "continuous_actions": [[0.0]], "rewards": [0.0]}
    with pytest.raises(ValueError, match="dataset id"):
        import_rows([row], dataset, root=home / "data", replace=True)
    assert contents(home) == before


@pytest.mark.parametrize("dataset", ["cart-v0", "my/cart-v0", "a/b/c_d-v12", "gato-random/x-v1"])
def test_ids_of_minaris_form_are_taken(dataset: str) -> None:
    check_dataset_id(dataset)


def test_the_command_refuses_an_id_first(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home / "data"))
    before = contents(home)
    arguments = ["record", "CartPole-v1", "--policy", "no-such-policy", "--overwrite"]
    assert main([*arguments, "--dataset", "../victim"]) == 2
    assert "dataset id '../victim': expected names" in capsys.readouterr().err
    assert contents(home) == before


@pytest.mark.parametrize("kept", ["notes.txt", ".git/HEAD", "data/extra.npy", "more-v0/data/x"])
def test_only_a_dataset_is_replaced(tmp_path: Path, kept: str) -> None:
    folder = write_dataset(tmp_path)
    (folder / kept).parent.mkdir(parents=True, exist_ok=True)
    (folder / kept).write_text("mine")
    before = contents(tmp_path)
    with gym.make("CartPole-v1") as env, pytest.raises(FileExistsError, match=kept):
        write_minari(DATASET, [episode()], env=env, root=tmp_path, replace=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("names", [["thesis.tex"], ["data/main_data.hdf5"], ["data/a/b"]])
def test_a_folder_that_is_no_dataset_is_not_replaced(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / DATASET / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / DATASET / name).write_text("mine")
    before = contents(tmp_path)
    with (
        gym.make("CartPole-v1") as env,
        pytest.raises(FileExistsError, match="choose another folder"),
        new_minari(DATASET, env=env, root=tmp_path, metadata={}, replace=True),
    ):
        pytest.fail("nothing may be recorded")
    assert contents(tmp_path) == before


def save_policy(folder: Path) -> None:
    GatoPolicy(GatoNetwork(SMALL), state_plan()).save(folder)


def save_reacher(folder: Path) -> None:
    save_expert(folder, load_expert(SHIPPED / "mujoco-reacher"), {})


def save_shard(folder: Path) -> None:
    save_arrays(folder, {"ids": np.zeros(1)}, {})


def save_state(folder: Path) -> None:
    trainer = Trainer(config(steps=1), shards(), folder.parent)
    trainer.output = folder.parent
    assert folder.name == "last"
    trainer.save()


WRITERS = {
    "checkpoint": save_policy, "expert": save_reacher, "shard": save_shard, "last": save_state,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kept", ["notes.txt", ".git/HEAD", "src/main.py", "more/config.json"])
def test_a_save_replaces_its_own_files_alone(tmp_path: Path, name: str, kept: str) -> None:
    write, folder = WRITERS[name], tmp_path / name
    write(folder)
    write(folder)
    (folder / kept).parent.mkdir(parents=True, exist_ok=True)
    (folder / kept).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=kept):
        write(folder)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("there", ["card.md", "ids.npy", "thesis.tex", "model.safetensors"])
def test_a_folder_of_others_is_not_replaced(tmp_path: Path, name: str, there: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / there).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="choose another folder"):
        WRITERS[name](tmp_path / name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="is a file, expected a folder"):
        WRITERS[name](tmp_path / name)
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_folder_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    WRITERS[name](tmp_path / name)
    assert contents(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name], "no lock and nothing partial"


@pytest.mark.parametrize("write", [save_policy, save_reacher])
@pytest.mark.parametrize(
    "content", [{}, {"name": "my-app", "format": 1}, {"model_type": "bert"}, []]
)
def test_a_configuration_of_something_else_is_not_replaced(
    tmp_path: Path, write: Callable[[Path], None], content: object
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.json").write_text(json.dumps(content))
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"config\.json is not"):
        write(tmp_path / "project")
    assert contents(tmp_path) == before


def test_checkpoints_and_experts_do_not_replace_each_other(tmp_path: Path) -> None:
    save_policy(tmp_path / "checkpoint")
    save_reacher(tmp_path / "expert")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_reacher(tmp_path / "checkpoint")
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_policy(tmp_path / "expert")
    assert contents(tmp_path) == before


def test_a_link_in_the_place_of_a_folder_is_replaced_and_what_it_points_to_kept(
    tmp_path: Path,
) -> None:
    save_policy(tmp_path / "best")
    before = contents(tmp_path / "best")
    for left in ("run", ".run.7.partial", ".run.previous"):
        (tmp_path / left).symlink_to(tmp_path / "best")
    save_policy(tmp_path / "run")
    assert contents(tmp_path / "best") == before
    assert not (tmp_path / "run").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"best", "run"}
    assert load_checkpoint(tmp_path / "run").tasks


def test_partial_files_of_others_are_kept(tmp_path: Path) -> None:
    """A name that begins alike is another file's."""
    kept = [".a.b.7.partial", ".a.partial.7", ".a.x.partial", "a.7.partial", ".ab.7.partial"]
    for name in kept:
        (tmp_path / name).write_text("another's")
    (tmp_path / ".a.7.partial").write_text("left by a killed process")
    write_whole(tmp_path / "a", "whole")
    with appearing(tmp_path / "folder" / "a", own=("b",)) as partial:
        (partial / "b").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "folder", *kept}


@pytest.mark.parametrize("name", [".", ".."])
def test_the_id_of_an_environment_is_no_path(tmp_path: Path, name: str) -> None:
    """Shards are in folders of the tasks' ids."""
    dataset = write_dataset(tmp_path)
    spec = json.loads(gym.spec("CartPole-v1").to_json())
    change_metadata(dataset, env_spec=json.dumps({**spec, "id": name}))
    (task,) = find_tasks([dataset])
    assert task.id == name
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    shard_tasks([task], tmp_path / "run" / "shards")
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"
    (shard,) = (tmp_path / "run" / "shards").iterdir()
    assert shard.name == name.replace(".", "%2E")


def test_a_shipped_expert_keeps_its_curve_when_it_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from policies.expert_training import shipping

    folder = shutil.copytree(SHIPPED / "mujoco-reacher", tmp_path / "expert")
    before = contents(folder)
    network = load_expert(folder)
    score = shipping.Evaluation(1.0, 0.0, 1000)
    monkeypatch.setattr(shipping, "score_expert", lambda *_, **__: (network, score))
    monkeypatch.setattr(shipping, "_make_envs", lambda task: [])
    assert shipping._scored(folder, "mujoco-reacher", 1000) == score
    after = contents(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("score") == {"mean": 1.0, "std": 0.0, "episodes": 1000}
    assert {n: c for n, c in after.items() if n != "config.json"} == {
        n: c for n, c in before.items() if n != "config.json"
    }
