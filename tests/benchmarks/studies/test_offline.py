"""The study of episodes of any quality: its datasets, its methods, and a table that is right."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies import offline, offline_datasets
from benchmarks.studies.offline import METHODS, line, main, markdown, settings_of
from benchmarks.studies.offline_datasets import Plan, references_of, train_stages
from gato_gym.episodes.minari_datasets import find_minari, returns_of
from policies.expert_training.recipes import recipe_for
from policies.training.families.registry import find_family

HOPPER = "mujoco-hopper"


def page_of(root: Path) -> Path:
    page = root / "page.md"
    marks = (offline.MARK, offline.MARK_PUBLISHED)
    page.write_text("".join(f"<!-- {m}: begin -->\n<!-- {m}: end -->\n" for m in marks))
    return page


def test_the_command_makes_datasets_trains_plays_and_writes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = dataclasses.replace(
        recipe_for(HOPPER), steps=128, num_envs=2, n_steps=16, batch_size=32, n_epochs=1, width=8,
        evaluations=2, evaluation_episodes=2,
    )  # fmt: skip
    monkeypatch.setattr(offline_datasets, "recipe_for", lambda task: tiny)
    page = page_of(tmp_path)
    arguments: dict[str, Any] = {
        "environments": ("hopper",), "datasets": ("medium", "mixed"),
        "methods": ("bc", "gato-return", "dt", "tt", "jat"),
        "seeds": 1, "steps": 2, "record_episodes": 4, "score_episodes": 1, "third": -1.0,
        "stages": 2, "work": tmp_path / "work", "csv": tmp_path / "table.csv", "page": page,
    }  # fmt: skip
    main(**arguments)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["method"]) for row in rows] == [
        (dataset, method) for dataset in ("medium", "mixed") for method in arguments["methods"]
    ]
    result = json.loads((tmp_path / "work/hopper/medium/dt-0/result.json").read_text())
    references = references_of(HOPPER)
    assert references.random is not None
    assert references.expert is not None
    low, high = references.random.mean, references.expert.mean
    expected = 100 * (np.array(result["returns"]) - low) / (high - low)
    np.testing.assert_allclose(result["scores"], expected)
    assert float(rows[2]["score"]) == pytest.approx(expected.mean(), rel=1e-4)
    recorded = returns_of(find_minari(tmp_path / "work/data/offline/hopper-medium-v0"))
    assert len(recorded) == 4
    score = float(np.mean(100 * (recorded - low) / (high - low)))
    assert float(rows[0]["dataset_score"]) == pytest.approx(score, rel=1e-4)
    text = page.read_text()
    assert "| dataset | environment | its episodes | bc | gato-return | dt | tt | jat |" in text
    assert "| medium | hopper | 67.6 | 61.1 |" in text  # published
    before = (tmp_path / "work/hopper/medium/dt-0/result.json").stat().st_mtime_ns
    monkeypatch.setattr(offline, "run_method", None)  # what is finished is kept
    main(**arguments)
    assert (tmp_path / "work/hopper/medium/dt-0/result.json").stat().st_mtime_ns == before


def test_training_stops_at_a_third_of_the_way_to_the_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = references_of(HOPPER)
    assert references.random is not None
    assert references.expert is not None
    low, high = references.random.mean, references.expert.mean
    returns = iter([low, low + 0.3 * (high - low), low + 0.34 * (high - low), high])
    asked: list[int] = []

    def train(settings: Any, *, console: Any) -> Any:
        asked.append(settings.until)
        return type("State", (), {"best": next(returns)})()

    copied: list[str] = []
    monkeypatch.setattr(offline_datasets.trainer, "train", train)
    monkeypatch.setattr(
        offline_datasets, "copy_expert", lambda source, folder: copied.append(folder.name)
    )
    stages = train_stages("hopper", Plan(tmp_path, stages=10))
    assert len(stages) == 3
    steps = recipe_for(HOPPER).steps
    assert asked == [steps // 10, 2 * steps // 10, 3 * steps // 10]
    assert copied == ["stage-1", "stage-2", "stage-3"]
    assert train_stages("hopper", Plan(tmp_path, stages=10)) == pytest.approx(stages)
    assert len(asked) == 3
    returns = iter([low, low])
    with pytest.raises(ValueError, match="a third of the way from random to the expert"):
        train_stages("hopper", Plan(tmp_path / "other", stages=2))


def test_methods_differ_in_what_they_learn_from(tmp_path: Path) -> None:
    plan = Plan(tmp_path, minutes=3.0)
    shares = {}
    for method in METHODS:
        settings = settings_of(method, [tmp_path], tmp_path / "run", plan, seed=2)
        shares[method] = settings.kept_share
        assert (settings.minutes, settings.steps, settings.seed) == (3.0, None, 2)
        find_family(settings.family).check_settings(settings)
    assert shares == {"bc": 0, "gato": 0.8, "gato-return": 0, "dt": 0, "tt": 0, "jat": 0.8}


def test_a_line_has_the_mean_over_seeds_and_an_interval_of_enough_episodes() -> None:
    result = {
        "scores": [10.0, 20, 30, 40, 50], "parameters": 1000, "steps": 7, "minutes": 2.0,
        "dataset_score": 33.0,
    }  # fmt: skip
    other = {**result, "scores": [60.0, 70, 80, 90, 100], "minutes": 4.0}
    values = line("mixed", "hopper", "dt", [result, other])
    assert (values["score"], values["seeds"], values["minutes"]) == (55.0, 2, 3.0)
    assert values["low"] < 40
    assert values["high"] > 70
    few = line("mixed", "hopper", "bc", [{**result, "scores": [1.0, 2.0]}] * 2)
    assert few["low"] is None
    table = markdown([few, values])
    assert "| dataset | environment | its episodes | bc | dt |" in table
    assert f"| mixed | hopper | 33.0 | 1.5 | 55.0 ({values['low']:.1f} to" in table
    assert "| parameters |  |  | 1,000 | 1,000 |" in table


def test_a_study_of_other_amounts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "make_datasets", lambda environment, names, plan: {})
    places: dict[str, Any] = {"work": tmp_path, "page": page_of(tmp_path)}
    with pytest.raises(ValueError, match="no method plays"):
        main(methods=(), **places)
    with pytest.raises(ValueError, match=r"preset: 'tiny' there, 'mini' now"):
        main(methods=(), preset="mini", **places)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"methods names \['cql'\]: expected some of"):
        main(methods=("cql",), work=tmp_path)
