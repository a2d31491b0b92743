"""The comparison of adaptive shares: the same updates and episodes, and a table that is right."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from recorded import ARM, BABYAI, OPEN, write_invented

from benchmarks.studies import adaptive
from benchmarks.studies.adaptive import VARIANTS, main, rows_of, settings_of
from gato_gym.files.bounded_io import read_json

SUITES = ("babyai", "metaworld")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_invented(tmp_path / "data")
    names = tuple(str(tmp_path / "data" / "gato" / f"{task}-v0") for task in (BABYAI, OPEN, ARM))
    monkeypatch.setattr("benchmarks.studies.recipe_episodes.datasets", lambda root, suites: names)
    return tmp_path


def result(babyai: float, weak: float) -> dict[str, Any]:
    return {
        "suites": {"babyai": {"normalised mean": {"value": babyai}}},
        "tasks": {
            BABYAI: {"normalised": weak}, OPEN: {"normalised": 0.9}, ARM: {"normalised": None}
        },
    }  # fmt: skip


def test_the_table_is_of_means_over_seeds_and_paired_differences() -> None:
    results = {
        ("uniform", 0): result(0.5, 0.2), ("uniform", 1): result(0.7, 0.4),
        ("scores", 0): result(0.6, 0.5), ("scores", 1): result(0.7, 0.5),
        ("scores", 2): result(0.2, 0.2),
    }  # fmt: skip
    uniform, scores = rows_of(results)
    assert (uniform["variant"], uniform["seeds"], uniform["gain"]) == ("uniform", 2, 0.0)
    assert uniform["mean"] == pytest.approx(0.6)
    assert uniform["weakest"] == pytest.approx(0.3)
    assert (uniform["low"], uniform["high"]) == (0.5, 0.7)
    assert scores["mean"] == pytest.approx(0.5)
    assert scores["weakest"] == pytest.approx(0.4)
    assert scores["gain"] == pytest.approx(0.05)  # of seeds 0 and 1, which both have


def test_the_command_trains_all_variants_alike(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = []

    def play(checkpoint: Path, tasks: Any, episodes: int) -> dict[str, Any]:
        assert (checkpoint / "config.json").exists()
        played.append((checkpoint.parent.name, tuple(tasks), episodes))
        return result(len(played) / 4, 0.1)

    plain = settings_of

    def small(*args: Any, **kwargs: Any) -> Any:
        return dataclasses.replace(
            plain(*args, **kwargs), rows=2, device="cpu", score_episodes=1, network={},
            preset="tiny", score_tasks=(), precision="float32",
        )  # fmt: skip

    monkeypatch.setattr(adaptive, "play", play)
    monkeypatch.setattr(adaptive, "settings_of", small)
    monkeypatch.setattr("policies.training.checkpoint_scorer.play_scores", _no_play)
    page = root / "page.md"
    page.write_text("<!-- adaptive: begin -->\n<!-- adaptive: end -->\n")
    arguments: dict[str, Any] = {
        "suites": SUITES, "steps": 10, "seeds": 1, "episodes": 3, "page": page,
    }  # fmt: skip
    main(**arguments, root=root, work=root / "work")
    tasks = (BABYAI, OPEN, ARM)
    assert played == [(f"{variant}-0", tasks, 3) for variant in VARIANTS]
    begun = [
        read_json(root / "work" / f"{variant}-0" / "training" / "config.json")
        for variant in VARIANTS
    ]
    followed = [values.pop("adaptive") for values in begun]
    assert begun[0] == begun[1] == begun[2]
    assert followed[0] is None
    assert [values["by"] for values in followed[1:]] == ["scores", "loss"]
    for variant, distances in (("scores", 3), ("loss", 3)):
        progress = root / "work" / f"{variant}-0" / "training" / "last" / "progress.json"
        assert len(read_json(progress)["shares"]["distances"]) == distances
    with (root / "work" / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["variant"], row["gain"]) for row in table] == [
        ("uniform", "0"), ("scores", "0.25"), ("loss", "0.5")
    ]  # fmt: skip
    assert "| loss | babyai | 1 | 0.750 (0.750 to 0.750) | 0.100 | +0.500 |" in page.read_text()
    main(**arguments, root=root, work=root / "work")
    assert len(played) == 3, "what is finished is kept"


def _no_play(envs: Any, policy: Any, episodes: int, *, deterministic: bool, first_seed: int) -> Any:
    """A return for each task, below the invented experts'; no seed is a benchmark's."""
    del envs, policy, deterministic
    assert first_seed >= 1_000_000
    return type("Played", (), {"returns": episodes * (-1.0,)})


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="variants names \\['luck'\\]: expected some of"):
        main(variants=("luck",), work=tmp_path)
