"""A small file from a stranger takes neither memory, nor disk, nor time without bound."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import huggingface_hub
import numpy as np
import pytest
import torch
from hostile_files import KINDS, inspect_run, limits, play_checkpoint, read_dataset
from PIL import Image
from small import SMALL, talking_plan

from gato_gym.files.bounded_io import read_bytes, read_json, read_text
from gato_gym.space_json import read_space
from policies import GatoPolicy
from policies.gato.tensor_files import CheckpointError
from policies.model.config import PRESETS, NetworkConfig, preset
from policies.model.network import GatoNetwork
from policies.training.data import text_sources
from policies.training.data.text_shards import shard_texts
from policies.training.data.text_sources import find_texts

ROOT = Path(__file__).parents[2]
MANY = 10**9


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a JSON file holds."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json])
def test_a_named_pipe_is_no_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="is a pipe, a socket or a device, expected a regular"):
        read(pipe)


def test_an_endless_device_behind_a_link_is_no_file(tmp_path: Path) -> None:
    link = tmp_path / "book.txt"
    link.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
        read_text(link)
    with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
        shard_texts(find_texts([link], []), tmp_path / "shards")


def test_a_file_that_says_it_is_empty_is_read_to_its_limit() -> None:
    path = Path("/proc/self/status")  # its size is 0
    assert path.stat().st_size == 0
    assert read_bytes(path).startswith(b"Name:")
    with pytest.raises(ValueError, match="has more than 10 bytes, expected at most 10"):
        read_bytes(path, largest=10)


def test_there_is_one_reader_of_json_and_of_texts() -> None:
    reads = re.compile(r"\bjson\.loads?\(|\.read_text\(|\.read_bytes\(")
    places = [
        str(path.relative_to(ROOT))
        for package in ("gato_gym", "policies", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if reads.search(path.read_text())
    ]
    assert places == ["gato_gym/files/bounded_io.py"]


@pytest.mark.parametrize("name", KINDS)
def test_no_file_can_be_a_named_pipe_or_an_endless_device(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it"
    KINDS[name].write(folder)
    unread = {"text.model", "videos.json", "cost.json"}  # or not there, as far as is told
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in unread]
    assert paths
    for path in paths:
        aside = path.rename(tmp_path / "aside")
        for replace in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            replace(path)
            with limits(), pytest.raises((ValueError, FileNotFoundError)) as refused:
                KINDS[name].read(folder)
            assert path.name in str(refused.value)
            path.unlink()
        aside.rename(path)
    KINDS[name].read(folder)


NETWORK = {
    "layers": MANY, "width": 10**7, "text_rank": 10**7, "window": 10**7, "heads": 10**7,
    "prompt_tokens": 10**7, "grid_size": 10**6, "grid_groups": 0, "patch_size": 10**6,
}  # fmt: skip


@pytest.mark.parametrize("field", NETWORK)
def test_a_checkpoint_names_no_size_beyond_any_network(tmp_path: Path, field: str) -> None:
    KINDS["checkpoint"].write(tmp_path / "it")
    change_json(
        tmp_path / "it" / "config.json",
        lambda config: config["network"].update({field: NETWORK[field]}),
    )
    with limits(), pytest.raises(CheckpointError, match=rf"\({field} is \d+: expected \d+ to \d+"):
        play_checkpoint(tmp_path / "it")


@pytest.mark.parametrize(
    "changes",
    [{"width": 65_536}, {"layers": 1024}, {"text_rank": 60_000}, {"grid_size": 60_000},
     {"vector_hidden": 65_536, "vector_size": 65_536}, {"head_size": 65_536, "heads": 65_536},
     {"feed_forward": 65_536}, {"grid_channels": 65_536}, {"patch_channels": 65_536}],
)  # fmt: skip
def test_a_network_is_not_built_without_weights_for_it(
    tmp_path: Path, changes: dict[str, int]
) -> None:
    KINDS["checkpoint"].write(tmp_path / "it")
    change_json(tmp_path / "it" / "config.json", lambda config: config["network"].update(changes))
    with limits(), pytest.raises(CheckpointError, match=r"it holds \d+ numbers, expected at least"):
        play_checkpoint(tmp_path / "it")


def test_a_vocabulary_has_weights_for_its_ids(tmp_path: Path) -> None:
    KINDS["checkpoint"].write(tmp_path / "it")
    ids = {"text_start": 0, "text_stop": 10**9, "continuous_start": 10**9,
           "continuous_stop": 10**9 + 1024, "discrete_start": 10**9 + 1024,
           "discrete_stop": 10**9 + 2048, "separator": 10**9 + 2048}  # fmt: skip
    path = tmp_path / "it" / "config.json"
    change_json(path, lambda config: config["network"].update(vocabulary=ids))
    with limits(), pytest.raises(CheckpointError, match="numbers, expected at least 8000"):
        play_checkpoint(tmp_path / "it")
    ids["separator"] = 10**30
    change_json(path, lambda config: config["network"].update(vocabulary=ids))
    with limits(), pytest.raises(CheckpointError, match=r"separator is 1000+, expected a whole"):
        play_checkpoint(tmp_path / "it")


@pytest.mark.parametrize("name", PRESETS)
def test_least_weights_are_close_to_all_weights(name: str) -> None:
    tasks = tuple(f"task-{number}" for number in range(100))
    configs = [preset(name), dataclasses.replace(preset(name), image_size=84, tasks=tasks)]
    for size in dataclasses.fields(NetworkConfig) if name == "mini" else ():
        if size.type == "int" and size.name != "grid_groups":
            configs.append(dataclasses.replace(preset(name), **{size.name: 512}))
    for config in configs:
        with torch.device("meta"):
            tensors = GatoNetwork(config).state_dict().values()
        weights = sum(tensor.numel() for tensor in tensors)
        assert 0.8 * weights < config.least_weights <= weights


@pytest.mark.parametrize("field", ["patch_size", "sequence_length", "vector_size"])
def test_a_plan_has_no_size_beyond_any_task(tmp_path: Path, field: str) -> None:
    KINDS["checkpoint"].write(tmp_path / "it")
    change_json(
        tmp_path / "it" / "config.json",
        lambda config: config["tasks"]["act"]["options"].update({field: MANY}),
    )
    with limits(), pytest.raises(CheckpointError, match=rf"PlanOptions\.{field} is {MANY}"):
        play_checkpoint(tmp_path / "it")


BOX = {"type": "Box", "dtype": "float32", "low": 0.0, "high": 1.0, "shape": [1]}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({**BOX, "shape": [MANY, MANY]}, "shape is of 10+, expected 0 to"),
        ({**BOX, "shape": [-1]}, "shape is of -1, expected 0 to"),
        ({**BOX, "low": ["a"], "high": ["b"], "dtype": "S1000000000"}, "dtype is 'S1000000000'"),
        ({"type": "MultiBinary", "n": MANY}, "n is of 10+, expected 0 to"),
        ({"type": "MultiBinary", "n": [MANY, 2]}, "n is of 20+, expected 0 to"),
        ({"type": "Text", "min_length": 0, "max_length": MANY, "charset": "a"}, "max_length is of"),
        ({"type": "Dict", "subspaces": {"a": {**BOX, "shape": [MANY]}}}, r"space\.a\.shape is of"),
        ({"type": "Tuple", "subspaces": [BOX, {**BOX, "shape": [MANY]}]}, r"space\.1\.shape is of"),
        ({"type": "Tuple", "subspaces": [1]}, r"space\.0 is 1, expected an object"),
        ({"type": "System"}, "space is no space"),
        ({"type": "Discrete", "n": -1, "start": 0}, "space is no space"),
    ],
)
def test_spaces_have_bounds(space: dict[str, Any], said: str) -> None:
    with limits(), pytest.raises(ValueError, match=said):
        read_space(json.dumps(space), "space")


def test_a_dataset_claims_no_more_episodes_than_it_holds(tmp_path: Path) -> None:
    KINDS["dataset"].write(tmp_path / "it")
    path = tmp_path / "it" / "data" / "metadata.json"
    change_json(path, lambda metadata: metadata.update(total_episodes=MANY))
    with limits(), pytest.raises(ValueError, match="total_episodes is 1000000000 and 2 are stored"):
        read_dataset(tmp_path / "it")


@pytest.mark.parametrize("jpeg", [False, True])  # read by this package, and by Minari itself
@pytest.mark.parametrize("name", ["actions", "rewards", "observations"])
def test_an_array_claims_no_more_than_is_stored(tmp_path: Path, name: str, jpeg: bool) -> None:
    KINDS["dataset"].write(tmp_path / "it")
    data = tmp_path / "it" / "data"
    change_json(data / "metadata.json", lambda metadata: metadata.update(jpeg_encoding=jpeg))
    with h5py.File(data / "main_data.hdf5", "r+") as file:
        del file["episode_1"][name]
        file["episode_1"].create_dataset(name, (MANY,), np.float32)
    with limits(), pytest.raises(ValueError, match=f"{name} of shape .* is stored in 0"):
        read_dataset(tmp_path / "it")


def test_a_group_that_holds_itself_ends(tmp_path: Path) -> None:
    KINDS["dataset"].write(tmp_path / "it")
    with h5py.File(tmp_path / "it" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0"]["actions"]
        file["episode_0"]["actions"] = file["episode_0"]
    with limits(), pytest.raises(ValueError, match="groups lie more than 32 deep"):
        read_dataset(tmp_path / "it")


def test_a_run_lists_no_more_episodes_than_there_are_seeds(tmp_path: Path) -> None:
    KINDS["run"].write(tmp_path / "it")
    path = tmp_path / "it" / "run.json"
    change_json(path, lambda run: run["protocol"].update(episodes=MANY))
    with limits(), pytest.raises(ValueError, match=r"protocol\.episodes is 1000000000, expected 1"):
        inspect_run(tmp_path / "it")
    rules = {"env_id": "a", "max_episode_steps": 10}
    more = {f"babyai-{number}": rules for number in range(1000)}
    change_json(path, lambda run: run["protocol"].update(episodes=10**6))
    change_json(path, lambda run: run["protocol"]["tasks"].update(more))
    with limits():  # a thousand million episodes, of which two are there
        inspect_run(tmp_path / "it")


def test_images_named_again_and_again_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_sources, "LARGEST_PATCHES", 2**20)
    Image.new("RGB", (1024, 1024)).save(tmp_path / "black.png")
    assert (tmp_path / "black.png").stat().st_size < 12_000
    line = json.dumps({"image": "black.png", "text": "black"}) + "\n"
    (tmp_path / "pairs.jsonl").write_text(line * 2)
    with limits(), pytest.raises(ValueError, match="are far larger than their files, or named too"):
        shard_texts(find_texts([], [tmp_path / "pairs.jsonl"]), tmp_path / "shards")
    (tmp_path / "pairs.jsonl").write_text(line)  # 3 MiB from 3 kB and a line
    with limits(), pytest.raises(ValueError, match="are far larger than their files, or named too"):
        shard_texts(find_texts([], [tmp_path / "pairs.jsonl"]), tmp_path / "shards")
    monkeypatch.setattr(text_sources, "LARGEST_PATCHES", 2**22)
    shard_texts(find_texts([], [tmp_path / "pairs.jsonl"]), tmp_path / "shards")


def test_a_text_is_read_a_window_at_a_time() -> None:
    torch.manual_seed(0)
    policy = GatoPolicy(GatoNetwork(SMALL), talking_plan())
    with limits(memory=2**29):
        with pytest.raises(ValueError, match="x 4096 pixels has 65536 patches: expected"):
            policy.generate_text(image=np.zeros((4096, 4096, 3), np.uint8))
        assert policy.generate_text("red ball " * 5000, max_tokens=2)


# --- a hub

OTHER = {"model_type": "llama", "hidden_size": 4096}


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub with a checkpoint, and the files that were fetched from it."""
    KINDS["checkpoint"].write(tmp_path / "hub")
    fetched: list[str] = []

    def download(name: str, *, allow_patterns: list[str], **how: Any) -> str:
        (tmp_path / "cache").mkdir(exist_ok=True)
        for pattern in allow_patterns:
            shutil.copy(tmp_path / "hub" / pattern, tmp_path / "cache" / pattern)
            fetched.append(pattern)
        return str(tmp_path / "cache")

    def model_info(*_: Any, **how: Any) -> Any:
        files = [SimpleNamespace(rfilename=p.name, size=p.stat().st_size) for p in
                 (tmp_path / "hub").iterdir()]  # fmt: skip
        return SimpleNamespace(siblings=files)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.chdir(tmp_path)
    return fetched


def test_a_hub_checkpoint_is_its_named_files(fetched: list[str]) -> None:
    GatoPolicy.load("owner/name", task="act")
    assert fetched == [
        "config.json", "model.safetensors", "prompts.safetensors", "text.model", "card.md",
    ]  # fmt: skip


def test_nothing_else_is_fetched_of_what_is_no_checkpoint(
    fetched: list[str], tmp_path: Path
) -> None:
    (tmp_path / "hub" / "config.json").write_text(json.dumps(OTHER))
    with pytest.raises(CheckpointError, match="names no format version"):
        GatoPolicy.load("owner/name", task="act")
    assert fetched == ["config.json"]


def test_weights_of_many_gigabytes_are_not_fetched(fetched: list[str], tmp_path: Path) -> None:
    with (tmp_path / "hub" / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)  # takes no room
    with pytest.raises(CheckpointError, match="has 1099511627776 bytes, expected at most"):
        GatoPolicy.load("owner/name", task="act")
    assert fetched == ["config.json"]
