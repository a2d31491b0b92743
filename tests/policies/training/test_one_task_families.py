"""Decision and Trajectory Transformers through the one trainer: from episodes to a policy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rewarded import STEPS, Rewarded, write_rewarded

from gato_gym.__main__ import main
from policies import DtPolicy, TtPolicy
from policies.gato.checkpoint_folder import family_of
from policies.gato.tensor_files import CheckpointError
from policies.registry import make_policy
from policies.rollout.vector_rollout import play_one
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

SMALL = {"width": 32, "layers": 1, "feed_forward": 32, "vector_hidden": 32}


def trained(root: Path, family: str, *, continuous: bool, steps: int) -> Path:
    data = write_rewarded(root / "data", continuous=continuous)
    network = json.dumps(SMALL if family == "dt" else {**SMALL, "bins": 10})
    command = [
        "train", "--family", family, "--dataset", data, "--output", str(root / "run"),
        "--preset", "tiny", "--network", network, "--steps", str(steps), "--rows", "16",
        "--length", "12" if family == "dt" else "24", "--score-every", "0", "--device", "cpu",
    ]  # fmt: skip
    assert main(command) == 0
    return root / "run"


@pytest.mark.parametrize("continuous", [False, True], ids=["choices", "numbers"])
def test_a_decision_transformer_collects_what_it_is_asked_for(
    tmp_path: Path, continuous: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "dt", continuous=continuous, steps=60)
    assert "all episodes are kept" in capsys.readouterr().out
    assert family_of(run / "checkpoint") == "dt"
    files = sorted(path.name for path in (run / "checkpoint").iterdir())
    assert files == ["card.md", "config.json", "model.safetensors"]
    env = Rewarded(continuous=continuous)
    policy = make_policy(run, env=env)
    assert isinstance(policy, DtPolicy)
    worst = -STEPS if continuous else 0
    assert (policy.returns.best, policy.returns.scale) == (STEPS, STEPS)
    assert play_one(env, policy, 1, deterministic=True) > 0.8 * STEPS
    low = policy.with_return(total=worst)
    assert play_one(env, low, 1, deterministic=True) < worst + 0.2 * STEPS
    low.save(tmp_path / "again")
    again = DtPolicy.load(tmp_path / "again", target_return=worst)
    assert again.observation_space == env.observation_space
    assert play_one(env, again, 1, deterministic=True) < worst + 0.2 * STEPS


def test_a_trajectory_transformer_plans_for_the_highest_return(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "tt", continuous=False, steps=60)
    assert "forward passes of" in capsys.readouterr().out
    env = Rewarded()
    policy = make_policy(run, env=env)
    assert isinstance(policy, TtPolicy)
    assert play_one(env, policy, 1, deterministic=True) == STEPS
    edges = policy.bins.edges
    assert edges[3, :4].tolist() == [-0.5, 0.5, 1.5, 1.5]
    assert (edges[-2].min(), edges[-2].max()) == (0, 1)  # rewards
    (run / "checkpoint" / "config.json").write_text(
        (run / "checkpoint" / "config.json").read_text().replace('"bins": 10', '"bins": 11')
    )
    with pytest.raises(CheckpointError, match=r"does not fit config.json"):
        TtPolicy.load(run)
    with pytest.raises(CheckpointError, match="is not of the family dt"):
        DtPolicy.load(run)


def test_settings_that_they_have_no_use_for_are_refused(tmp_path: Path) -> None:
    data = write_rewarded(tmp_path / "data")
    for changes, what in (
        ({"memory": "all"}, "memory is 'all' and the family dt"),
        ({"start": "gato-mini"}, "start is 'gato-mini' and the family dt"),
        ({"network": {"depth": 3}}, "unknown fields"),
        ({"network": {"context": "many"}}, "context"),
    ):
        settings = TrainSettings(
            datasets=(data,),
            output=tmp_path / "run",
            family="dt",
            **changes,  # type: ignore[arg-type]
        )
        with pytest.raises(ValueError, match=what):
            TrainRun(settings)


def test_batches_are_functions_of_their_number_in_any_number_of_processes(tmp_path: Path) -> None:
    data = write_rewarded(tmp_path / "data")
    for family in ("dt", "tt"):
        settings = TrainSettings(
            datasets=(data,), output=tmp_path / family, shards=tmp_path / "shards",
            family=family, rows=4, length=30, steps=1, preset="tiny",  # type: ignore[arg-type]
        )  # fmt: skip
        packer = TrainRun(settings).pipeline.trainer().packer
        whole, half = packer.batch(7), packer.batch(7, rank=1, world=2)
        name = "returns" if family == "dt" else "tokens"
        mine = getattr(whole, name)[1::2]
        given = getattr(half, name)
        width = min(mine.shape[1], given.shape[1])
        np.testing.assert_array_equal(mine[:, :width], given[:, :width])
        assert not np.array_equal(getattr(packer.batch(8), name), getattr(whole, name))
