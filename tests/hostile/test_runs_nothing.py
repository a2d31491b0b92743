"""No file runs code, whatever it names: every reader is given files that would."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from environments import KIND, Pair
from hostile import DATASET, change_metadata, write_dataset
from safetensors.numpy import save_file
from small import SMALL, state_plan

from benchmarks.studies.few_shot import make_environments
from benchmarks.studies.scaling import ScalingRun
from benchmarks.studies.settings import ScalingSettings
from gato_gym import read_minari
from gato_gym.episodes.minari_datasets import environment_of, find_minari
from policies import GatoPolicy
from policies.expert_training.training_state import load_state
from policies.experts.store import SHIPPED, load_expert
from policies.gato.checkpoint import load_checkpoint
from policies.model.network import GatoNetwork
from policies.registry import make_policy
from policies.training.checkpoint_scorer import PlayedTask
from policies.training.data.datasets import find_tasks
from policies.training.data.shards import TaskShard, save_arrays

MODULE = "module_of_a_stranger"


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the stranger's code ran: imported, called or unpickled."""
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')\ndef make(*_, **__):\n    open({str(marker)!r}, 'w')\n"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{MODULE}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return marker


def env_spec(name: str, **values: Any) -> str:
    spec = json.loads(gym.spec("CartPole-v1").to_json())
    return json.dumps({**spec, "id": name, **values})


@pytest.mark.parametrize(
    "name", ["Strangers-v0", f"{MODULE}:Strangers-v0", f"{MODULE}:CartPole-v1"]
)
def test_an_environment_that_only_a_dataset_names_is_not_made(
    tmp_path: Path, marker: Path, name: str
) -> None:
    dataset = write_dataset(tmp_path)
    change_metadata(dataset, env_spec=env_spec(name, entry_point=f"{MODULE}:make"))
    (task,) = find_tasks([dataset])
    assert environment_of(find_minari(dataset)) is None
    with pytest.raises(ValueError, match=r"names no environment that is registered here.*--env"):
        make_environments(task, 1)
    assert not marker.exists()


def test_of_a_registered_environment_the_id_alone_is_taken(tmp_path: Path, marker: Path) -> None:
    dataset = write_dataset(tmp_path)
    wrapper = {"name": "Strangers", "entry_point": f"{MODULE}:make", "kwargs": {}}
    stranger = env_spec(
        "CartPole-v1", entry_point=f"{MODULE}:make", vector_entry_point=f"{MODULE}:make",
        additional_wrappers=[wrapper], kwargs={"sutton_barto_reward": True},
    )  # fmt: skip
    change_metadata(dataset, env_spec=stranger)
    (task,) = find_tasks([dataset])
    (env,) = make_environments(task, 1)
    assert env.spec == gym.make("CartPole-v1").spec
    assert not marker.exists()


def test_a_module_is_imported_where_the_user_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, module = "Users-v0", "module_of_the_user"
    code = f"import gymnasium\ngymnasium.register({name!r}, entry_point={KIND!r})\n"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = write_dataset(tmp_path)
    change_metadata(dataset, env_spec=env_spec(name))
    (task,) = find_tasks([dataset])
    study = object.__new__(ScalingRun)
    study.tasks = {task.id: task}
    study.settings = ScalingSettings((), tmp_path, environments=1, env=(f"{module}:{name}",))
    try:
        ((task_id, (env,)),) = study._environments.items()
        assert (task_id, env.spec.id) == (name, name)
    finally:
        gym.registry.pop(name, None)
        sys.modules.pop(module, None)


@pytest.mark.parametrize("lacking", ["observation_space", "action_space"])
def test_no_environment_is_made_to_read_a_dataset(
    tmp_path: Path, marker: Path, lacking: str
) -> None:
    """Minari makes the environment of a dataset that does not hold its spaces."""
    dataset = write_dataset(tmp_path)
    change_metadata(
        dataset, env_spec=env_spec("Strangers-v0", entry_point=f"{MODULE}:make"), **{lacking: None}
    )
    readers: list[Callable[[], object]] = [
        lambda: find_minari(dataset),
        lambda: find_minari(dataset / "data" / "main_data.hdf5"),
        lambda: list(read_minari(DATASET, root=tmp_path)),
    ]
    for read in readers:
        with pytest.raises(ValueError, match=f"holds no {lacking}"):
            read()
    assert not marker.exists()


def test_a_module_that_a_dataset_names_is_not_imported_to_score(marker: Path) -> None:
    with pytest.raises(ValueError, match="its module is not imported"):
        PlayedTask(f"{MODULE}:Strangers-v0", "none", 5, 0.0).make()
    assert not marker.exists()


def pickled(marker: Path) -> bytes:
    return pickle.dumps(Payload(marker))


@pytest.mark.parametrize("file", ["model.safetensors", "prompts.safetensors", "config.json"])
def test_checkpoints_are_never_unpickled(tmp_path: Path, marker: Path, file: str) -> None:
    GatoPolicy(GatoNetwork(SMALL), state_plan()).save(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / file).write_bytes(pickled(marker))
    with pytest.raises(ValueError, match=file):
        load_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=file):
        GatoPolicy.load(tmp_path / "checkpoint", env=Pair())
    assert not marker.exists()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_experts_are_never_unpickled(tmp_path: Path, marker: Path, file: str) -> None:
    shutil.copytree(SHIPPED / "mujoco-reacher", tmp_path / "expert")
    (tmp_path / "expert" / file).write_bytes(pickled(marker))
    with pytest.raises(ValueError, match=f"{file}|does not hold an expert"):
        load_expert(tmp_path / "expert")
    assert not marker.exists()


def test_states_of_trainings_are_never_unpickled(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(pickled(marker))
    with pytest.raises(ValueError, match="is no training that can be resumed"):
        load_state(tmp_path / "state.safetensors")
    header = {"training": pickled(marker).decode("latin-1")}
    save_file({"a": np.zeros(1)}, tmp_path / "state.safetensors", metadata=header)
    with pytest.raises(ValueError, match="is no training that can be resumed"):
        load_state(tmp_path / "state.safetensors")
    assert not marker.exists()


def test_shards_are_never_unpickled(tmp_path: Path, marker: Path) -> None:
    plan = state_plan()
    arrays = {
        name: np.zeros((1, 1), np.int32)
        for name in ("ids", "vectors", "grids", "images", "actions", "labels", "text_index",
                     "ends", "text_ids", "text_ends")
    }  # fmt: skip
    box = (
        '{"type": "Box", "dtype": "float32", "shape": [3], "low": [-1, -1, -1], "high": [1, 1, 1]}'
    )
    meta = {"task": "t", "group": "t", "options": plan.options.to_json(), "spaces": [box, box]}
    save_arrays(tmp_path / "shard", arrays, meta)
    stranger = np.array([Payload(marker)], dtype=object)
    for name in arrays:
        before = (tmp_path / "shard" / f"{name}.npy").read_bytes()
        np.save(tmp_path / "shard" / f"{name}.npy", stranger, allow_pickle=True)
        with pytest.raises(ValueError, match=r"Object arrays|objects"):
            TaskShard.open(tmp_path / "shard")
        (tmp_path / "shard" / f"{name}.npy").write_bytes(before)
    assert not marker.exists()


def test_an_archive_is_not_read_without_trust(tmp_path: Path, marker: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("data", json.dumps({"policy_class": {":serialized:": "gASV"}}))
        archive.writestr("policy.pth", pickled(marker))
    with gym.make("CartPole-v1") as env, pytest.raises(ValueError, match="trust"):
        make_policy(str(tmp_path / "model.zip"), env=env, algorithm="ppo")
    assert not marker.exists()
