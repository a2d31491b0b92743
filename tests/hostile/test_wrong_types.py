"""A value of another type, anywhere in a file, is refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile_files import KINDS, limits, places, replaced
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

WRONG = (None, True, -1, 1.5, "x", [], {"x": 1}, 10**30)
REFUSED = (ValueError, FileNotFoundError)


def read(name: str, folder: Path, what: str) -> bool:
    """Whether a damaged folder is refused; in one line that names it, by no other kind of error."""
    shutil.rmtree(folder.with_name("shards"), ignore_errors=True)
    said = None
    try:
        with limits():
            KINDS[name].read(folder)
    except REFUSED as error:
        said = str(error)
    except Exception as error:
        error.add_note(what)
        raise
    if said is not None:
        assert "\n" not in said, what
        assert len(said) < 1000, what
        names = (str(folder), "the checkpoint", "the network")
        assert any(name in said for name in names), f"{what}: {said}"
    return said is not None


def without(value: Any, place: tuple[Any, ...]) -> Any:
    """A copy that lacks what is at a path."""
    copy = json.loads(json.dumps(value))
    part = copy
    for key in place[:-1]:
        part = part[key]
    del part[place[-1]]
    return copy


JSON = {
    "checkpoint": "config.json", "expert": "config.json", "dataset": "data/metadata.json",
    "run": "run.json", "shard": "meta.json", "text-shard": "meta.json",
}  # fmt: skip
FREE = {
    "algorithm", "steps", "policy", "environment", "env_spec", "rules", "author", "command",
    "dataset_size", "description", "algorithm_name", "expert_return", "protocol_hash", "episodes",
    "timesteps", "content", "group", "format",
}  # fmt: skip
"""What nothing is computed from."""


@pytest.mark.parametrize("name", JSON)
def test_a_value_of_another_type_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it"
    KINDS[name].write(folder)
    path = folder / JSON[name]
    sound = json.loads(path.read_text())
    all_places = list(places(sound))
    for number, place in enumerate(all_places):
        tried = WRONG if len(all_places) < 40 else (WRONG[number % 8], WRONG[(number + 3) % 8], "x")
        refused = []
        for new in tried:
            path.write_text(json.dumps(replaced(sound, place, new)))
            refused.append(read(name, folder, f"{place} is {new!r}"))
        assert any(refused) or FREE & set(place), place
        path.write_text(json.dumps(without(sound, place)))
        read(name, folder, f"{place} is missing")
    for value in WRONG:  # the whole of it
        path.write_text(json.dumps(value))
        assert read(name, folder, f"all of it is {value!r}")
    path.write_text(json.dumps(sound))
    KINDS[name].read(folder)


@pytest.mark.parametrize("name", ["run"])
def test_a_line_of_another_type_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it"
    KINDS[name].write(folder)
    path = folder / "results.jsonl"
    for index, line in enumerate(lines := path.read_text().splitlines()):
        sound = json.loads(line)
        for place in places(sound):
            refused = []
            for new in WRONG:
                changed = [*lines]
                changed[index] = json.dumps(replaced(sound, place, new))
                path.write_text("\n".join(changed) + "\n")
                refused.append(read(name, folder, f"{place} is {new!r}"))
            assert sum(refused) >= len(WRONG) - 2, place
        for new in WRONG:
            path.write_text(json.dumps(new) + "\n")
            assert read(name, folder, f"line {new!r}")


@pytest.mark.parametrize("name", ["videos.json", "cost.json"])
def test_what_a_report_can_do_without_is_left_out(tmp_path: Path, name: str) -> None:
    KINDS["run"].write(tmp_path / "it")
    path = tmp_path / "it" / name
    sound = json.loads(path.read_text())
    for place in places(sound):
        for new in WRONG:
            path.write_text(json.dumps(replaced(sound, place, new)))
            with limits():
                KINDS["run"].read(tmp_path / "it")


def damaged(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """The same with other types and shapes."""
    yield array.astype(np.float64) + 0.5 if array.dtype.kind in "biu" else array.astype(np.int64)
    yield array.ravel()[:0]
    yield array[None]
    yield np.concatenate([array, array]) if array.ndim else array[None, None]
    yield np.zeros((), array.dtype)


TENSORS = {
    "checkpoint": ["model.safetensors", "prompts.safetensors"],
    "expert": ["model.safetensors"],
    "state": ["state.safetensors"],
}


@pytest.mark.parametrize("name", ["checkpoint", "expert"])
def test_tensors_of_another_type_or_shape_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it"
    KINDS[name].write(folder)
    for file in TENSORS[name]:
        path = folder / file
        try:
            sound = load_file(path)
        except TypeError:  # bfloat16
            sound = {key: part.float().numpy() for key, part in load_torch(path).items()}
        keys = sorted(sound)
        for key in keys[:: max(1, len(keys) // 12)]:
            for number, part in enumerate(damaged(sound[key])):
                save_file({**sound, key: np.ascontiguousarray(part)}, path)
                gone = read(name, folder, f"{key} is {part.dtype} {part.shape}")
                same = number == 0 or part.shape == sound[key].shape
                assert gone or same or key == "act/text", key  # of a task without texts
            save_file({other: part for other, part in sound.items() if other != key}, path)
            assert read(name, folder, f"{key} is missing") or file == "prompts.safetensors"
        save_file(sound, path)
        KINDS[name].read(folder)


@pytest.mark.parametrize("name", ["shard", "text-shard"])
def test_arrays_of_another_type_or_shape_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it"
    KINDS[name].write(folder)
    for path in sorted(folder.glob("*.npy")):
        sound = np.load(path)
        for part in damaged(sound):
            np.save(path, part)
            read(name, folder, f"{path.name} is {part.dtype} {part.shape}")
        path.write_bytes(path.read_bytes()[:-1])
        path.write_bytes(b"\x93NUMPY\x01\x00" + b"x" * 100)
        assert read(name, folder, f"{path.name} is damaged")
        np.save(path, np.array([{}], object), allow_pickle=True)
        assert read(name, folder, f"{path.name} holds objects")
        path.unlink()
        assert read(name, folder, f"{path.name} is missing")
        np.save(path, sound)
    KINDS[name].read(folder)


def test_episodes_of_another_type_or_shape_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    KINDS["dataset"].write(folder)
    path = folder / "data" / "main_data.hdf5"
    kept = path.rename(tmp_path / "kept.hdf5")
    for key in ("observations", "actions", "rewards", "terminations", "truncations"):
        for change in ("missing", "text", "group", "type"):
            shutil.copy(kept, path)
            with h5py.File(path, "r+") as file:
                del file["episode_0"][key]
                if change == "text":
                    file["episode_0"].create_dataset(key, data=[b"\xff\xfe"])
                if change == "group":
                    file["episode_0"].create_group(key).create_group("_index_1")
                if change == "type":
                    file["episode_0"][key] = h5py.SoftLink("/nowhere")
            assert read("dataset", folder, f"{key} {change}") or change == "group"
    for attribute in ("seed", "total_steps", "id", "options/info"):
        for value in (np.array([1, 2]), "x", 2.5, b"{"):
            shutil.copy(kept, path)
            with h5py.File(path, "r+") as file:
                file["episode_0"].attrs[attribute] = value
            read("dataset", folder, f"{attribute} is {value!r}")
    shutil.copy(kept, path)
    KINDS["dataset"].read(folder)


@pytest.mark.parametrize("image", ["red.png", "blue.jpg"])
def test_broken_images_are_refused(tmp_path: Path, image: str) -> None:
    KINDS["texts"].write(tmp_path / "it")
    path = tmp_path / "it" / image
    sound = path.read_bytes()
    for cut in range(0, len(sound) - 2, 3):
        path.write_bytes(sound[:cut])
        refused = read("texts", tmp_path / "it", f"cut at {cut}")
        assert refused or cut > len(sound) // 2, cut
    for place in range(0, len(sound), 5):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        read("texts", tmp_path / "it", f"flipped at {place}")
