"""Datasets to a hub and back in Minari's format: the real clients, and a stand-in of the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from hub_server import Hub, serve_hub

from gato_gym.commands.main import main
from gato_gym.episodes.hub import dataset_files
from gato_gym.episodes.minari_datasets import find_minari
from policies import make_policy, record_episodes

ROOT = Path(__file__).parents[3]
DATA = {"cartpole-v0/data/metadata.json", "cartpole-v0/data/main_data.hdf5"}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Minari's folder, with ``my/cartpole-v0`` of two episodes."""
    folder = tmp_path_factory.mktemp("minari")
    env = gym.make("CartPole-v1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        record_episodes(env, make_policy("random", env=env), 2, "my/cartpole-v0")
        yield folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


def run(hub: Hub, tmp_path: Path, code: str, **environment: str) -> str:
    """What code prints in a process whose hub is the stand-in."""
    environment |= {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pushed_and_read_again_by_gato_gym_and_by_minari(
    hub: Hub, datasets: Path, tmp_path: Path
) -> None:
    hub.repositories["datasets/me/my"] = {
        "namespace_metadata.json": b'{"description": "mine", "datasets": ["my/other-v2"]}'
    }
    printed = run(
        hub,
        tmp_path,
        """
from gato_gym.commands.main import main
assert main(["push", "my/cartpole-v0", "hf://me"]) == 0
import huggingface_hub
from gato_gym.episodes.minari_datasets import episodes_of, find_minari
for offline in (False, True):
    huggingface_hub.constants.HF_HUB_OFFLINE = offline
    dataset = find_minari("hf://me/my/cartpole-v0")
    print(dataset.id, [episode.total_return for episode in episodes_of(dataset)])
""",
    )
    files = hub.repositories["datasets/me/my"]
    assert set(files) == {*DATA, "namespace_metadata.json", "README.md"}
    listed = json.loads(files["namespace_metadata.json"])
    assert listed["datasets"] == ["my/cartpole-v0", "my/other-v2"]
    assert listed["description"] == "mine"
    assert b"- `hf://me/my/cartpole-v0`" in files["README.md"]
    original = datasets / "my/cartpole-v0/data/main_data.hdf5"
    assert files["cartpole-v0/data/main_data.hdf5"] == original.read_bytes()
    returns = [float(sum(episode.rewards)) for episode in find_minari("my/cartpole-v0")]
    *_, address, first, second = printed.splitlines()
    assert address == f"pushed to {hub.url}/datasets/me/my"
    assert first == second == f"my/cartpole-v0 {returns}"
    assert hub.fetched.count("cartpole-v0/data/main_data.hdf5") == 1

    del files["README.md"]
    listed["datasets"].remove("my/other-v2")
    files["namespace_metadata.json"] = json.dumps(listed).encode()
    read = """
import minari
minari.download_dataset("hf://me/my/cartpole-v0")
print([float(sum(episode.rewards)) for episode in minari.load_dataset("my/cartpole-v0")])
"""
    elsewhere = {"MINARI_DATASETS_PATH": str(tmp_path / "elsewhere"), "MINARI_REMOTE": "hf://me"}
    assert run(hub, tmp_path / "new", read, **elsewhere).splitlines()[-1] == str(returns)


def test_a_dataset_without_a_namespace_is_a_repository_by_itself(
    datasets: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cartpole-v0" / "data"
    folder.mkdir(parents=True)
    for path in (datasets / "my/cartpole-v0/data").iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content.replace(b"my/cartpole-v0", b"cartpole-v0"))
    (folder / "more.pkl").write_bytes(b"\x80\x04.")
    repository, files = dataset_files(find_minari(folder.parent), "me")
    assert repository == "me/cartpole-v0"
    assert set(files) == {"data/metadata.json", "data/main_data.hdf5", "README.md"}


def test_what_a_hub_must_not_give_is_not_fetched(hub: Hub, datasets: Path, tmp_path: Path) -> None:
    data = datasets / "my/cartpole-v0/data"
    metadata = (data / "metadata.json").read_bytes()
    files = {f"{folder}/data/metadata.json": metadata for folder in ("large-v0", "no-v0", "bad-v0")}
    files |= {f"{folder}/data/main_data.hdf5": b"\x80\x04." for folder in ("large-v0", "bad-v0")}
    files |= {"bad-v0/data/run.py": b"", "bad-v0/../../outside": b"", "no-v0/data/x.pkl": b""}
    hub.repositories["datasets/me/my"] = files
    hub.sizes["datasets/me/my/large-v0/data/main_data.hdf5"] = 2**40
    printed = run(
        hub,
        tmp_path,
        """
from gato_gym.episodes.minari_datasets import find_minari
for name in ("me/my/large-v0", "me/my/no-v0", "me/my/bad-v0", "me/other/no-v0", "me/my", "me"):
    try:
        find_minari(f"hf://{name}")
    except ValueError as error:
        print(" ".join(str(error).split()))
""",
    )
    large, no, bad, gone, unversioned, empty = printed.splitlines()
    assert "has 1099511627776 bytes of large-v0/data/main_data.hdf5, expected at most" in large
    assert "has no bytes of no-v0/data/main_data.hdf5" in no
    assert "'hf://me/my/bad-v0'" not in bad
    assert "hf://me/my/bad-v0 is no Minari dataset (" in bad
    assert "is no HDF5 file" in bad
    assert "dataset 'hf://me/other/no-v0' could not be fetched (" in gone
    assert "dataset id 'my': expected names" in unversioned
    assert "dataset id ''" in empty
    assert set(hub.fetched) <= {*files} - {"bad-v0/data/run.py", "no-v0/data/x.pkl"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["my/cartpole-v0", "hf://me/my"], "account is 'me/my', expected one name"),
        (["my/gone-v0", "hf://me"], "no Minari dataset 'my/gone-v0'"),
        (["my/cartpole-v0", "hf://me", "--results", "x"], "--results is given with a dataset"),
    ],
)
def test_what_cannot_be_pushed_is_said(
    arguments: list[str], told: str, datasets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", *arguments]) == 2
    assert told in capsys.readouterr().err
