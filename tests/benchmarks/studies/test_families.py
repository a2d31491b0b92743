"""The comparison of families: as many parameters, the same episodes, and a table that is right."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from recorded import ARM, BABYAI, write_invented

from benchmarks.studies import families, gato_mini
from benchmarks.studies.families import main, markdown, steps_a_second
from benchmarks.studies.recipe_episodes import LABELLED_STEPS, datasets, evenly, known_tasks
from benchmarks.studies.recipe_episodes import SUITES as ALL_SUITES
from benchmarks.studies.variants import RECIPE_VARIANTS, VARIANTS, matched, settings_of
from policies.collection.jobs import CollectSettings
from policies.model.network import count_parameters
from policies.training.data.datasets import find_tasks
from policies.training.families.registry import find_family
from policies.training.run import tasks_of
from policies.training.settings import TrainSettings

SUITES = ("babyai", "metaworld")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_invented(tmp_path / "data")
    names = tuple(str(tmp_path / "data" / "gato" / f"{task}-v0") for task in (BABYAI, ARM))
    monkeypatch.setattr("benchmarks.studies.recipe_episodes.datasets", lambda *_, **__: names)
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
        assert (settings.minutes, settings.keep, settings.augment) == (5.0, 0.0, gato_mini.COPIES)
        identities.append([source.identity()["returns"] for t in tasks for source in t.sources])
    assert all(each == identities[0] for each in identities)
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

    def play(checkpoint: Path, tasks: Any, episodes: int, *, device: str) -> dict[str, Any]:
        assert device == "cpu"
        assert (checkpoint / "config.json").exists()
        played.append((checkpoint.parent.name, tuple(tasks), episodes))
        return summary(len(played) / 5)

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
    arguments["device"] = "cpu"
    places: dict[str, Any] = {"work": root / "work", "csv": root / "table.csv", "page": page}
    main(**arguments, **places)
    assert played == [(variant.name, (BABYAI, ARM), 3) for variant in VARIANTS]
    with (root / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["gato-paper", "gato-lean", "jat", "jat-short"]
    assert [row["babyai"] for row in rows] == ["0.2", "0.4", "0.6", "0.8"]
    assert [row["tokens"] for row in rows] == [str(2 * 2 * n) for n in (512, 128, 256, 2)]
    assert all(float(row["steps_a_second_64"]) > 0 for row in rows)
    assert rows[0]["atari"] == ""
    text = page.read_text()
    assert "| babyai | 0.20 (0.10 to 0.30) | 0.40 (0.30 to 0.50) | 0.60 (0.50 to 0.70) |" in text
    assert f"| weakest tasks |{4 * f' {BABYAI} |'}" in text
    assert "atari" not in text
    main(variants=("jat",), **arguments, **places)
    assert len(played) == 4, "what is finished is kept"


CHANGES = {
    "autoregressive": {"options"}, "hard-labels": {"soft_labels"}, "round-1": {"datasets"},
    "round-2": {"datasets"}, "no-prompts": {"prompt_shares"},
    "prompts-alone": {"prompt_shares", "task_embeddings"}, "whole-instructions": {"network"},
    "bins": {"network"}, "1m": {"network"}, "20m": {"network"},
}  # fmt: skip
ALONE = {"datasets", "minutes", "weights", "prompt_shares"}


def test_variants_of_the_recipe_change_what_they_are_named_for() -> None:
    asked = {
        variant.name: dataclasses.asdict(
            settings_of(variant, Path("data"), Path("work"), suites=ALL_SUITES, minutes=20.0)
        )
        for variant in RECIPE_VARIANTS
    }
    recipe = asked.pop("gato-lean")
    expected = CHANGES | {f"{suite}-alone": ALONE for suite in ALL_SUITES}
    assert list(asked) == list(expected)
    for name, values in asked.items():
        changed = {key for key in values if values[key] != recipe[key]}
        own_shards = expected[name] & {"options", "datasets"} and not name.endswith("alone")
        assert changed == expected[name] | {"output"} | ({"shards"} if own_shards else set()), name
    actual = dataclasses.asdict(gato_mini.round_settings(Path("data"), Path("work")))
    alike = ("options", "network", "prompt_shares", "task_embeddings", "weights", "length", "rows")
    for key in (*alike, "group_by", "augment", "keep", "precision", "attention"):
        assert recipe[key] == actual[key], "the first is the recipe's own"
    assert set(recipe["datasets"]) < set(asked["round-1"]["datasets"])
    assert set(asked["round-1"]["datasets"]) < set(asked["round-2"]["datasets"])
    assert [each.name for each in RECIPE_VARIANTS if each.timed] == [
        "gato-lean", "autoregressive", "1m", "20m"
    ]  # fmt: skip
    babyai = next(each for each in RECIPE_VARIANTS if each.name == "babyai-alone")
    share = settings_of(
        babyai, Path("data"), Path("work"), suites=ALL_SUITES, minutes=20.0, steps=200
    )
    assert (share.steps, share.minutes) == (200 * gato_mini.WEIGHTS["babyai"], None)
    alone = [asked[f"{suite}-alone"] for suite in ALL_SUITES]
    assert sum(each["minutes"] for each in alone) == pytest.approx(20.0)
    assert asked["babyai-alone"]["minutes"] == pytest.approx(20.0 * gato_mini.WEIGHTS["babyai"])
    assert {path for each in alone for path in each["datasets"]} == set(recipe["datasets"])


@pytest.mark.parametrize(("name", "count"), [("1m", 1_000_000), ("bins", 5_500_000)])
def test_variants_of_the_recipe_have_their_sizes(root: Path, name: str, count: int) -> None:
    variant = next(each for each in RECIPE_VARIANTS if each.name == name)
    asked = settings_of(variant, root, root / "work", suites=SUITES, minutes=5.0, rows=96)
    settings = matched(variant, asked, variant.parameters or 5_500_000)
    network = find_family("gato").sizes(settings, tasks_of(settings))
    assert count_parameters(find_family("gato").build(network)) == pytest.approx(count, rel=0.002)
    assert settings.rows == 96


def test_the_recipe_is_trained_with_changes_and_has_a_table_of_rows(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = matched
    monkeypatch.setattr(families, "play", lambda *_, device: summary(0.5))
    monkeypatch.setattr(families, "matched", lambda v, s, count: small(plain(v, s, 1_000_000)))
    monkeypatch.setattr(families, "steps_a_second", lambda *_: 7.0)
    page = root / "page.md"
    page.write_text("<!-- recipe: begin -->\n<!-- recipe: end -->\n")
    changed = {**_network(), "text_rank": 8}
    variants = tuple(
        dataclasses.replace(each, changes={**each.changes, "network": changed})
        for each in RECIPE_VARIANTS
    )
    monkeypatch.setitem(families.STUDIES, "recipe", (variants, page))
    with pytest.raises(ValueError, match=r"hard-labels needs the finished gato-lean"):
        main(study="recipe", variants=("hard-labels",), suites=SUITES, work=root / "work")
    names = ("gato-lean", "autoregressive", "hard-labels", "prompts-alone")
    main(
        study="recipe", variants=names, suites=SUITES, root=root, work=root / "work",
        csv=root / "table.csv",
    )  # fmt: skip
    with (root / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [row["variant"] for row in lines] == list(names)
    config = json.loads((root / "work/hard-labels/training/config.json").read_text())
    assert not config["mixture"]["soft_labels"]
    assert "| labels: the expert's action alone |" in page.read_text()
    with pytest.raises(ValueError, match="variants names \\['atari-alone'\\]: expected some of"):
        main(study="recipe", variants=("atari-alone",), suites=SUITES, work=root / "work")


def test_the_variant_of_one_round_less_plays_and_the_experts_label(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[tuple[list[str], CollectSettings]] = []
    monkeypatch.setattr(
        families,
        "collect",
        lambda tasks, plays, **_: collected.append(([task.id for task in tasks], plays)),
    )
    lean, first, second = (
        next(each for each in RECIPE_VARIANTS if each.name == name)
        for name in ("gato-lean", "round-1", "round-2")
    )
    where: dict[str, Any] = {"suites": ("babyai", "atari"), "most_tasks": 3}
    families.label(lean, RECIPE_VARIANTS, root, **where)
    assert not collected, "the experts' episodes are all that it learns from"
    with pytest.raises(
        ValueError, match=r"round-1 needs the finished gato-lean, .* gato-lean round-1"
    ):
        families.label(first, RECIPE_VARIANTS, root, **where)
    for player in ("gato-lean", "round-1"):
        (root / player).mkdir()
        (root / player / "result.json").write_text("{}")
    families.label(first, RECIPE_VARIANTS, root, **where)
    families.label(second, RECIPE_VARIANTS, root, **where)
    assert [plays.record.player for _, plays in collected] == [
        str(root / "gato-lean" / "checkpoint"), str(root / "round-1" / "checkpoint")
    ]  # fmt: skip
    assert [plays.root for _, plays in collected] == [
        root / "labelled" / "round-1", root / "labelled" / "round-2"
    ]  # fmt: skip
    for tasks, plays in collected:
        assert tasks == [task.id for task in evenly(known_tasks("babyai"), 3)]
        assert plays.steps == LABELLED_STEPS["babyai"]


def test_a_round_learns_from_what_was_labelled_in_the_study(tmp_path: Path) -> None:
    paths = datasets(
        tmp_path / "data", 1, ("babyai",), most_tasks=2, labelled_root=tmp_path / "work"
    )
    folders = [Path(path).relative_to(tmp_path).parts[:2] for path in paths]
    assert folders == 2 * [("data", "gato")] + 2 * [("work", "round-1")]


def _network() -> dict[str, Any]:
    return {"width": 32, "heads": 1, "layers": 1, "vector_hidden": 32, "patch_channels": 8}


def test_many_variants_are_rows_of_the_table() -> None:
    figures = {"parameters": 7, "minutes": 1.0, "tokens": 2e6, "steps": 3, "weakest": "it"}
    rates = {"steps_a_second_1": 8.0, "steps_a_second_64": 9.0}
    means = {f"{suite}{end}": 0.5 for suite in ALL_SUITES for end in ("", "_low", "_high")}
    lines = [{"what": f"variant {k}", **figures, **rates, **means} for k in range(5)]
    few, many = (
        [row.strip("| ").split(" | ") for row in markdown(part).splitlines()]
        for part in (lines[:4], lines)
    )
    assert few[0] == [f"variant {k}" for k in range(4)]
    assert few[2] == ["parameters", "7", "7", "7", "7"]
    assert many[0][:4] == ["parameters", "minutes of training", "tokens", "updates"]
    assert many[2][:3] == ["variant 0", "7", "1.0"]
    assert len(many) == 7


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="variants names \\['gato'\\]: expected some of"):
        main(variants=("gato",), work=tmp_path)
    with pytest.raises(ValueError, match="suites names \\['procgen'\\]: expected some of"):
        main(suites=("procgen",), work=tmp_path)
