"""The comparison of families: as many parameters, the same episodes, and a table that is right."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from recorded import ARM, BABYAI, write_invented

from benchmarks.studies import families
from benchmarks.studies.families import VARIANTS, main, matched, settings_of, steps_a_second
from policies.model.network import count_parameters
from policies.training.data.datasets import find_tasks
from policies.training.families.registry import find_family
from policies.training.settings import TrainSettings

SUITES = ("babyai", "metaworld")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_invented(tmp_path / "data")
    names = tuple(str(tmp_path / "data" / "gato" / f"{task}-v0") for task in (BABYAI, ARM))
    monkeypatch.setattr("benchmarks.studies.gato_mini.datasets", lambda root, suites: names)
    return tmp_path


def small(settings: TrainSettings) -> TrainSettings:
    return dataclasses.replace(settings, minutes=None, steps=2, rows=2, device="cpu")


def test_variants_have_as_many_parameters_and_the_same_episodes(root: Path) -> None:
    identities = []
    for variant in VARIANTS:
        asked = settings_of(variant, root, root / "work", suites=SUITES, minutes=5.0)
        settings = matched(variant, asked, 6_000_000)
        tasks = find_tasks(settings.datasets, layout=settings.layout, changes=settings.options)
        family = find_family(settings.family)
        count = count_parameters(family.build(family.sizes(settings, tasks)))
        assert count == pytest.approx(6_000_000, rel=0.002)
        assert (settings.minutes, settings.keep, settings.augment) == (5.0, 0.0, 1)
        identities.append([source.identity()["returns"] for t in tasks for source in t.sources])
    assert identities[0] == identities[1] == identities[2]
    with pytest.raises(ValueError, match=r"jat has .* with the narrowest feed-forward: expected"):
        matched(VARIANTS[2], asked, 1_000)


def summary(score: float) -> dict[str, Any]:
    figure = {"value": score, "low": score - 0.1, "high": score + 0.1, "tasks": 1}
    return {
        "suites": {suite: {"normalised mean": figure} for suite in SUITES},
        "tasks": {BABYAI: {"normalised": score}, ARM: {"normalised": None}},
    }


def test_the_command_trains_plays_and_writes_a_table(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[str, tuple[str, ...], int]] = []

    def play(checkpoint: Path, tasks: Any, episodes: int) -> dict[str, Any]:
        assert (checkpoint / "config.json").exists()
        played.append((checkpoint.parent.name, tuple(tasks), episodes))
        return summary(len(played) / 4)

    plain = matched
    monkeypatch.setattr(families, "play", play)
    monkeypatch.setattr(families, "matched", lambda v, s, count: small(plain(v, s, count)))
    monkeypatch.setattr(families, "WARMING", 2)
    monkeypatch.setattr(
        families, "steps_a_second", lambda *args: steps_a_second(*args, seconds=0.0)
    )
    page = root / "page.md"
    page.write_text("before\n<!-- families: begin -->\n<!-- families: end -->\nafter\n")
    arguments: dict[str, Any] = {"suites": SUITES, "minutes": 5.0, "episodes": 3, "root": root}
    places: dict[str, Any] = {"work": root / "work", "csv": root / "table.csv", "page": page}
    main(**arguments, **places)
    assert played == [(variant.name, (BABYAI, ARM), 3) for variant in VARIANTS]
    with (root / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["gato-paper", "gato-lean", "jat"]
    assert [row["babyai"] for row in rows] == ["0.25", "0.5", "0.75"]
    assert [row["tokens"] for row in rows] == [str(2 * 2 * n) for n in (512, 128, 256)]
    assert all(float(row["steps_a_second_64"]) > 0 for row in rows)
    assert rows[0]["atari"] == ""
    text = page.read_text()
    assert "| babyai | 0.25 (0.15 to 0.35) | 0.50 (0.40 to 0.60) | 0.75 (0.65 to 0.85) |" in text
    assert f"| weakest tasks | {BABYAI} | {BABYAI} | {BABYAI} |" in text
    assert "atari" not in text
    main(variants=("jat",), **arguments, **places)
    assert len(played) == 3, "what is finished is kept"


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="variants names \\['gato'\\]: expected some of"):
        main(variants=("gato",), work=tmp_path)
    with pytest.raises(ValueError, match="suites names \\['procgen'\\]: expected some of"):
        main(suites=("procgen",), work=tmp_path)
