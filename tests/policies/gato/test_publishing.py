"""Checkpoints to a hub and back: the real client, and a stand-in of the hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from hub_server import Hub, serve_hub
from huggingface_hub import ModelCard

from gato_gym.commands.main import main
from policies import GatoPolicy, JatPolicy
from policies.gato.hub import HubError
from policies.gato.publishing import hub_files
from policies.jat.config import JatConfig
from policies.model.config import NetworkConfig

ROOT = Path(__file__).parents[3]
TASK = "babyai-go-to-obj"
START = f"""
import os
import gymnasium as gym
from policies import GatoPolicy
env = gym.make("Gato/{TASK}")
def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ValueError as error:
        print(type(error).__name__ + ":", " ".join(str(error).split()))
"""
PUSHED = {"README.md", "card.md", "config.json", "evaluations.json", "model.safetensors",
          "prompts.safetensors", "replay.mp4", "text.model"}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    config = NetworkConfig(width=32, layers=1, heads=2, head_size=16, feed_forward=32)
    policy = GatoPolicy.create(gym.make(f"Gato/{TASK}"), config=config)
    policy.task = TASK
    policy.save(folder)
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def results(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five episodes, with a video."""
    output = tmp_path_factory.mktemp("results") / "tiny"
    bench = ["bench", "--suite", "babyai", "--tasks", "go-to-obj", "--policy", str(checkpoint)]
    bench += ["--episodes", "5", "--workers", "1", "--output", str(output), "--record", "1"]
    assert main(bench) == 0
    return output


def run(hub: Hub, tmp_path: Path, code: str) -> str:
    """What code prints in a process whose hub is the stand-in."""
    environment = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pushed_and_loaded_again(
    hub: Hub,
    checkpoint: Path,
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push = ["push", str(checkpoint), "me/tiny", "--results", str(results)]
    assert main([*push, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert set(shown.split()) >= PUSHED
    assert "pipeline_tag: reinforcement-learning" in shown
    printed = run(
        hub,
        tmp_path,
        f"""
from gato_gym.commands.main import main
assert main({[*push, "--private"]}) == 0
policy = GatoPolicy.from_pretrained("me/tiny", env=env)
print(policy.predict(env.reset(seed=0)[0], deterministic=True)[0])
""",
    )
    assert hub.private == {"me/tiny"}
    files = hub.repositories["me/tiny"]
    assert set(files) == PUSHED
    assert files["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert files["replay.mp4"][4:8] == b"ftyp"
    (evaluation,) = json.loads(files["evaluations.json"])
    _check_card(files["README.md"].decode(), evaluation)
    env = gym.make(f"Gato/{TASK}")
    here = GatoPolicy.load(checkpoint, env=env).predict(env.reset(seed=0)[0], deterministic=True)
    *_, address, action = printed.splitlines()
    assert (address, action) == (f"pushed to {hub.url}/me/tiny", str(here[0]))
    assert set(hub.fetched) == PUSHED - {"README.md", "evaluations.json", "replay.mp4"}


def _check_card(text: str, evaluation: dict[str, Any]) -> None:
    """What a hub reads of the card, by its own library."""
    data = ModelCard(text).data
    assert (data.pipeline_tag, data.library_name) == ("reinforcement-learning", "gato-gym")
    assert {result.dataset_type for result in data.eval_results} == {TASK}
    by_metric = {result.metric_type: result for result in data.eval_results}
    figures = evaluation["tasks"][TASK]
    assert (
        by_metric["mean_reward"].metric_value == f"{figures['mean']:.2f} +/- {figures['std']:.2f}"
    )
    score = by_metric["normalised_score"]
    assert score.metric_value == pytest.approx(figures["normalised"], abs=1e-4)
    assert f"95 % interval {figures['low']:.3f} to {figures['high']:.3f}" in score.metric_name
    assert score.metric_args == {"protocol": evaluation["protocol_hash"], "episodes": 5}
    assert f"`{evaluation['protocol_hash']}` |" in text


def test_a_policy_pushes_itself(hub: Hub, tmp_path: Path) -> None:
    printed = run(
        hub,
        tmp_path,
        """
policy = GatoPolicy.load("gato-mini", env=env)
print(policy.push_to_hub("me/mini"))
os.environ["HF_TOKEN"] = "hf_other"
refused(policy.push_to_hub, "me/other")
""",
    )
    address, error = printed.splitlines()
    assert address == f"{hub.url}/me/mini"
    assert "5.09 million" in hub.repositories["me/mini"]["README.md"].decode()
    assert error.startswith("HubError: me/other could not be pushed (")
    assert error.endswith("log in with hf auth login, or set HF_TOKEN")
    assert list(hub.repositories) == ["me/mini"]


def test_scores_of_another_network_are_refused(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "gato-mini", "me/mini", "--results", str(results), "--dry-run"]) == 2
    assert "which has other weights than gato-mini" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("pickle", r"optimiser\.pt is no part of a checkpoint, expected config\.json"),
        ("link", r"card\.md is a link to another folder, expected the file itself"),
        ("folder", r"card\.md is a folder, expected a checkpoint's file"),
        ("large", r"card\.md has 4194305 bytes, expected at most 4194304"),
        ("disguised", r"model\.safetensors is damaged or cut short"),
        ("nothing", r"no checkpoint at"),
        ("name", r"hub name is 'me', expected owner/name"),
        ("video", r"the video is .*evil\.exe, expected an \.mp4 file"),
        ("evaluation", r"an evaluation has not the expected form \(KeyError\('tasks'\)\)"),
    ],
)
def test_what_does_not_belong_there_is_refused(
    what: str, told: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card, more = folder / "card.md", dict[str, Any]()
    if what == "pickle":
        (folder / "optimiser.pt").write_bytes(b"\x80\x04.")
    elif what == "link":
        card.unlink()
        (tmp_path / "secret").write_text("a key")
        card.symlink_to(tmp_path / "secret")
    elif what == "folder":
        card.unlink()
        card.mkdir()
    elif what == "large":
        card.write_bytes(b" " * (4 * 2**20 + 1))
    elif what == "disguised":
        (folder / "model.safetensors").write_bytes(b"\x80\x04." * 100)
    elif what == "video":
        (tmp_path / "evil.exe").write_text("")
        more["video"] = tmp_path / "evil.exe"
    elif what == "evaluation":
        more["evaluations"] = [{}]
    with pytest.raises(HubError, match=told):
        hub_files(
            "me" if what == "name" else "me/name",
            tmp_path / "no" / "where" if what == "nothing" else folder,
            **more,
        )


def test_what_a_hub_must_not_give_is_not_fetched(
    hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    hub.repositories = {
        "me/pickle": {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x04."},
        "me/large": dict(files),
        "me/outside": {**files, "../../outside.md": b"outside", "run.py": b"outside"},
    }
    hub.sizes["me/large/model.safetensors"] = 9_000_000_000
    printed = run(
        hub,
        tmp_path,
        """
for name in ("me/pickle", "me/large"):
    refused(GatoPolicy.from_pretrained, name, env=env)
print(GatoPolicy.from_pretrained("me/outside", env=env).task)
""",
    )
    pickle, large, task = printed.splitlines()
    assert "holds no model.safetensors but config.json, pytorch_model.bin: expected" in pickle
    assert "'me/large' has 9000000000 bytes, expected at most 8589934592" in large
    assert task == TASK
    assert hub.fetched.count("model.safetensors") == 1
    assert set(hub.fetched) == set(files)


def test_a_jat_checkpoint_has_a_card_of_its_family(tmp_path: Path) -> None:
    config = JatConfig(
        hidden_size=24, num_layers=1, num_heads=3, vocab_size=257, eos_token_id=256,
        max_continuous_size=16, max_discrete_value=6, image_size=32,
    )  # fmt: skip
    JatPolicy.create(gym.make("Gato/mujoco-reacher"), config=config).save(tmp_path / "jat")
    card = hub_files("me/jat", tmp_path / "jat")["README.md"]
    assert isinstance(card, bytes)
    text = card.decode()
    assert "from policies import JatPolicy" in text
    assert 'policy = JatPolicy.load("me/jat", env=env)' in text
    assert "Gato checkpoint" not in text
    assert "GatoPolicy" not in text
    assert ModelCard(text).data.tags == ["reinforcement-learning", "jat", "gymnasium"]
