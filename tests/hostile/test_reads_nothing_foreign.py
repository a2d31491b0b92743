"""What is read lies in the folder that was given: every reader is pointed at other files."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from environments import Pair
from hostile import DATASET, change_metadata, contents, write_dataset
from PIL import Image
from small import SMALL, state_plan

from benchmarks.protocol import BenchmarkError, Protocol, TaskRules
from benchmarks.report.html import NAME, main, render_page
from benchmarks.report.summary import summarise
from benchmarks.store.clips import read_clips
from benchmarks.store.run_store import Record, RunHeader
from gato_gym import Episode, read_minari, write_minari
from gato_gym.episodes import hdf5
from gato_gym.episodes.jat import read_rows
from gato_gym.episodes.minari_datasets import episodes_of, find_minari, returns_of
from gato_gym.files.atomic_io import inside, write_json
from policies import GatoPolicy
from policies.gato.checkpoint import load_checkpoint
from policies.gato.prompts import demonstration
from policies.model.network import GatoNetwork
from policies.rollout.outcomes import EpisodeResult
from policies.training.data.text_sources import find_texts

SECRET = bytes(range(40, 240))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that no reader may open."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret").write_bytes(SECRET)
    return tmp_path / "home" / "secret"


def external_storage(group: h5py.Group, name: str, secret: Path) -> None:
    old = group[name]
    shape, dtype = old.shape, old.dtype
    del group[name]
    size = int(np.prod(shape)) * dtype.itemsize
    group.create_dataset(name, shape, dtype, external=[(str(secret), 0, size)])


def external_link(group: h5py.Group, name: str, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".hdf5"), "w") as other:
        other[name] = group[name][()]
    del group[name]
    group[name] = h5py.ExternalLink(str(secret.with_suffix(".hdf5")), name)


def soft_link(group: h5py.Group, name: str, secret: Path) -> None:
    del group[name]
    group[name] = h5py.SoftLink("/episode_0")


def virtual_source(group: h5py.Group, name: str, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".hdf5"), "w") as other:
        other[name] = group[name][()]
    layout = h5py.VirtualLayout(group[name].shape, group[name].dtype)
    layout[:] = h5py.VirtualSource(secret.with_suffix(".hdf5"), name, group[name].shape)
    del group[name]
    group.create_virtual_dataset(name, layout)


ATTACKS = [external_storage, external_link, soft_link, virtual_source]
Attack = Callable[[h5py.Group, str, Path], None]


def attacked(dataset: Path, attack: Attack, name: str, secret: Path) -> None:
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        group = file["episode_1"]
        for part in name.split("/")[:-1]:
            group = group[part]
        attack(group, name.rpartition("/")[2], secret)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminations"])
def test_the_numbers_of_an_episode_are_in_its_file(
    tmp_path: Path, secret: Path, attack: Attack, name: str
) -> None:
    dataset = write_dataset(tmp_path)
    attacked(dataset, attack, name, secret)
    said = f"'{name}' in /episode_1 is .*other files are not read"
    with pytest.raises(ValueError, match=said):
        list(read_minari(DATASET, root=tmp_path))
    with pytest.raises(ValueError, match=said):
        demonstration(f"{dataset}#1")
    if name == "rewards":
        with pytest.raises(ValueError, match=said):
            returns_of(find_minari(dataset))
    change_metadata(dataset, jpeg_encoding=True)  # then Minari reads, and it follows links
    with pytest.raises(ValueError, match=said):
        list(episodes_of(find_minari(dataset)))
    with (
        hdf5.open_file(dataset / "data" / "main_data.hdf5", "r") as source,
        hdf5.open_file(tmp_path / "copy.hdf5", "w") as copy,
        pytest.raises(ValueError, match=said),
    ):
        hdf5.copy_episode(source, 1, copy, 0)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["frames", "infos/executed_actions", "observations/words"])
def test_other_parts_of_an_episode_are_in_its_file(
    tmp_path: Path, secret: Path, attack: Attack, name: str
) -> None:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (7, 8, 8), np.uint8)
    stacks = np.stack([frames[i : i + 4] for i in range(4)])
    observations: Any = {"words": ["a", "b", "c", "d"]} if "words" in name else stacks
    ends = np.array([False, False, True])
    episode = Episode(
        task="t", observations=observations, actions=np.arange(3), rewards=np.ones(3, np.float32),
        terminations=ends, truncations=~ends & False, executed=np.arange(3),
    )  # fmt: skip
    space = gym.spaces.Box(0, 255, (4, 8, 8), np.uint8)
    env = Pair()
    env.observation_space = gym.spaces.Dict(words=gym.spaces.Text(3)) if "words" in name else space  # type: ignore[assignment]
    env.action_space = gym.spaces.Discrete(3)  # type: ignore[assignment]
    write_minari(DATASET, [episode] * 2, env=env, root=tmp_path)
    assert len(list(read_minari(DATASET, root=tmp_path))) == 2
    attacked(tmp_path / DATASET, attack, name, secret)
    with pytest.raises(ValueError, match="other files are not read"):
        list(read_minari(DATASET, root=tmp_path))


def test_an_episode_is_in_its_file(tmp_path: Path, secret: Path) -> None:
    other = write_dataset(tmp_path, dataset="my/private-v0") / "data" / "main_data.hdf5"
    dataset = write_dataset(tmp_path)
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink(str(other), "episode_0")
    with pytest.raises(ValueError, match="'episode_1' in / is a link"):
        list(read_minari(DATASET, root=tmp_path))
    with pytest.raises(ValueError, match="'episode_1' in / is a link"):
        returns_of(find_minari(dataset))


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_the_files_of_a_dataset_are_in_its_folder(tmp_path: Path, name: str) -> None:
    other, dataset = write_dataset(tmp_path, dataset="my/private-v0"), write_dataset(tmp_path)
    (dataset / "data" / name).unlink()
    (dataset / "data" / name).symlink_to(other / "data" / name)
    for read in (lambda: find_minari(dataset), lambda: list(read_minari(DATASET, root=tmp_path))):
        with pytest.raises(ValueError, match="is a link to another folder"):
            read()
    (tmp_path / "my" / "linked-v0").symlink_to(other)  # the user's own, of the whole
    assert find_minari(tmp_path / "my" / "linked-v0").total_episodes == 2


# results

PROTOCOL = Protocol("babyai", {"babyai-open": TaskRules("babyai-open", 64)}, 2, 0, {})
HEADER = RunHeader(PROTOCOL, {"name": "random", "weights": None, "seed": 0})


def recorded(folder: Path) -> Path:
    with Record(folder, HEADER, resume=False) as record:
        (key, _) = PROTOCOL.episodes_of("babyai-open")
        record.append(EpisodeResult(key, 0.5, 5, True, True, 0.1))
    return folder


def clip(file: str, episode: int) -> dict[str, Any]:
    return {
        "task": "babyai-open", "episode": episode, "seed": 0, "file": file, "return": 0.5,
        "length": 5, "success": True, "same": True,
    }  # fmt: skip


def test_a_report_holds_no_file_of_another_folder(tmp_path: Path, secret: Path) -> None:
    run = recorded(tmp_path / "run")
    (run / "videos").mkdir()
    (run / "videos" / "link.mp4").symlink_to(secret)
    (run / "elsewhere").symlink_to(secret.parent)
    (run / "videos" / "own.mp4").write_bytes(b"a video")
    names = [
        str(secret), "../home/secret", "videos/../../home/secret", "videos/link.mp4",
        "elsewhere/secret", "/etc/passwd", "../../../../../etc/passwd", "videos", "a\0b",
        "videos/own.mp4",
    ]  # fmt: skip
    write_json(run / "videos.json", {"clips": [clip(n, i) for i, n in enumerate(names)]})
    assert [each.file for each in read_clips(run)] == ["videos/own.mp4"]
    assert main([str(run)]) == 0
    page = (run / NAME).read_text()
    assert "KCkqKywt" not in page, "the secret in base64"
    assert "YSB2aWRlbw==" in page, "the video"


@pytest.mark.parametrize("name", ["lock", "results.jsonl", "run.json", "summary.json", "videos"])
def test_a_run_with_links_is_not_gone_on_with(tmp_path: Path, secret: Path, name: str) -> None:
    run = recorded(tmp_path / "run")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(secret.parent if name == "videos" else secret)
    with pytest.raises(BenchmarkError):
        Record(run, HEADER, resume=True)
    assert secret.read_bytes() == SECRET
    assert contents(secret.parent) == {"secret": SECRET}


@pytest.mark.parametrize("link", ["lock", "results.jsonl"])
def test_links_in_a_new_run_are_not_followed(tmp_path: Path, secret: Path, link: str) -> None:
    """Between the look at the folder and the first episode, for one."""
    (tmp_path / "run").mkdir()
    if link == "lock":
        (tmp_path / "run" / link).symlink_to(secret)
        with pytest.raises(BenchmarkError, match="cannot be written to"):
            Record(tmp_path / "run", HEADER, resume=False)
    else:
        record = Record(tmp_path / "run", HEADER, resume=False)
        (tmp_path / "run" / link).symlink_to(secret)
        (key, _) = PROTOCOL.episodes_of("babyai-open")
        with record, pytest.raises(RuntimeError, match="could not be recorded"):
            record.append(EpisodeResult(key, 0.5, 5, True, True, 0.1))
    assert secret.read_bytes() == SECRET


def test_writing_a_report_follows_no_link(tmp_path: Path, secret: Path) -> None:
    run = recorded(tmp_path / "run")
    names = [f".{NAME}.partial", f".{NAME}.{os.getpid()}.partial", NAME]
    for name in names:
        (run / name).symlink_to(secret)
    assert main([str(run)]) == 0
    assert secret.read_bytes() == SECRET
    assert (run / NAME).read_text().startswith("<!doctype html>")
    (run / f".{NAME}.lock").symlink_to(secret)
    assert main([str(run)]) != 0
    assert secret.read_bytes() == SECRET
    assert render_page(summarise(HEADER, []), run)


# texts and pictures


@pytest.mark.parametrize("how", ["absolute", "parent", "link", "linked folder"])
def test_pictures_of_texts_are_in_their_folder(tmp_path: Path, how: str) -> None:
    (tmp_path / "home").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "home" / "private.png")
    (tmp_path / "pairs").mkdir()
    name = {
        "absolute": str(tmp_path / "home" / "private.png"), "parent": "../home/private.png",
        "link": "a.png", "linked folder": "sub/private.png",
    }[how]  # fmt: skip
    (tmp_path / "pairs" / "a.png").symlink_to(tmp_path / "home" / "private.png")
    (tmp_path / "pairs" / "sub").symlink_to(tmp_path / "home")
    path = tmp_path / "pairs" / "p.jsonl"
    path.write_text(json.dumps({"image": name, "text": "a picture"}))
    (source,) = find_texts([], [path])
    with pytest.raises(FileNotFoundError, match=r"line 1: no file .*others are not read"):
        list(source)
    with pytest.raises(FileNotFoundError, match=r"line 1: no file .*others are not read"):
        source.identity()
    Image.new("RGB", (16, 16)).save(tmp_path / "pairs" / "b.png")
    path.write_text(json.dumps({"image": "./b.png", "text": "a picture"}))
    assert len(list(source)) == 1


def test_texts_of_a_folder_are_in_it(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a story")
    (tmp_path / "texts" / "b.txt").symlink_to(tmp_path / "texts" / "a.txt")
    (source,) = find_texts([tmp_path / "texts"], [])
    assert [text for text, _ in source] == ["a story"] * 2
    (tmp_path / "texts" / "c.txt").symlink_to(secret)
    with pytest.raises(FileNotFoundError, match=r"no file c\.txt in .*texts, links followed"):
        find_texts([tmp_path / "texts"], [])


# checkpoints


@pytest.mark.parametrize("name", ["card.md", "model.safetensors", "config.json"])
def test_the_files_of_a_checkpoint_are_in_its_folder(
    tmp_path: Path, secret: Path, name: str
) -> None:
    """A card that is read is written again by ``save``, and published with it."""
    folder = tmp_path / "checkpoint"
    GatoPolicy(GatoNetwork(SMALL), state_plan()).save(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(secret)
    with pytest.raises(ValueError, match=rf"{name} is a link to another folder"):
        load_checkpoint(folder)


def test_the_hubs_cache_is_links_and_is_read(tmp_path: Path, secret: Path) -> None:
    saved = tmp_path / "made"
    GatoPolicy(GatoNetwork(SMALL), state_plan()).save(saved)
    folder = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    folder.mkdir(parents=True)
    for path in saved.iterdir():
        shutil.copyfile(path, tmp_path / "models--a--b" / "blobs" / path.name)
        (folder / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    assert load_checkpoint(folder).tasks
    (folder / "card.md").unlink()
    (folder / "card.md").symlink_to(secret)
    with pytest.raises(ValueError, match=r"card\.md is a link to another folder"):
        load_checkpoint(folder)


# rows


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_rows_hold_their_images(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    picture = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(picture, "PNG")
    (tmp_path / "private.png").write_bytes(picture.getvalue())
    private = {"bytes": None, "path": str(tmp_path / "private.png")}
    held = {"bytes": picture.getvalue(), "path": "private.png"}
    features = datasets.Features(
        image_observations=datasets.Sequence(datasets.Image()),
        discrete_actions=datasets.Sequence(datasets.Value("int64")),
        rewards=datasets.Sequence(datasets.Value("float32")),
        other=datasets.Image(),
    )

    def write(name: str, images: list[Any]) -> Path:
        """As ``datasets`` writes, which would put the image into the file."""
        row = {"discrete_actions": [0], "rewards": [0.0], "image_observations": images}
        table = pyarrow.Table.from_pylist([{**row, "other": private}], features.arrow_schema)
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            parquet.write_table(table, path)
            return path
        datasets.Dataset(table).save_to_disk(str(path))
        (file,) = path.glob("*.arrow")
        with (
            pyarrow.OSFile(str(file), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        return path

    for images in ([private], [held, private]):
        with pytest.raises(ValueError, match="'image_observations' names files"):
            read_rows(write(f"rows-{len(images)}", images))
    (row,) = read_rows(write("held", [held]))
    assert set(row) == {"image_observations", "discrete_actions", "rewards"}, "and not opened"


def test_inside(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    (tmp_path / "d").touch()
    (tmp_path / "a" / "loop").symlink_to("loop")
    assert inside(tmp_path / "a", "b/c") == tmp_path / "a" / "b" / "c"
    assert inside(tmp_path / "a", "b/../b/c")
    for name in ("", "b", "../d", "missing", "loop", "x" * 5000, "a\0b", str(tmp_path / "d")):
        assert inside(tmp_path / "a", name) is None
