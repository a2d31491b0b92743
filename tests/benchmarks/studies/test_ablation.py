"""The ablation: variants are what their names say, and the table is right."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from recorded import ARM, BABYAI, write_invented

from benchmarks.studies import ablation
from benchmarks.studies.ablation import (
    NETWORK,
    VARIANTS,
    UntilSolved,
    Variant,
    run_variant,
    settings_of,
    successes,
    write_table,
)
from policies.model.network import GatoNetwork
from policies.training.config import TrainConfig, train_config
from policies.training.run import TrainRun


def result(name: str, solved: dict[str, list[bool]]) -> dict[str, Any]:
    episodes = [{"task": t, "success": s} for t, outcomes in solved.items() for s in outcomes]
    return {
        "variant": name, "what": f"what {name} is", "steps": 7, "parameters": 99,
        "accuracy": 0.875, "error": 0.0625, "episodes": episodes,
    }  # fmt: skip


BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"
SOLVED = {
    "babyai-open": [True] * 4,
    "babyai-go-to": [True, False, False, False],
    "metaworld-reach": [False, False],
}


def test_the_table_has_each_suite_s_mean_of_task_means(tmp_path: Path) -> None:
    page, table = tmp_path / "page.md", tmp_path / "table.csv"
    page.write_text(f"# before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table([result("a", SOLVED), result("b", SOLVED)], table, page)
    text = page.read_text()
    assert text.startswith(f"# before\n{BEGIN}\n| variant | steps |")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| what b is | 7 | 0.875 | 0.0625 | 0.62 (0.50 to 0.88) | 0.00 (0.00 to 0.00) |" in text
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["a", "b"]
    assert float(rows[0]["babyai"]) == (1.0 + 0.25) / 2  # of tasks, not of all eight episodes
    assert float(rows[0]["metaworld_high"]) == 0.0
    arrays = successes(result("a", SOLVED), "babyai")
    assert [array.tolist() for array in arrays] == [[1, 0, 0, 0], [1, 1, 1, 1]]


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match=r"has no place for the table: expected <!-- ablation"):
        write_table([result("a", SOLVED)], tmp_path / "table.csv", page)
    assert page.read_text() == "nothing"


def configure(variant: Variant) -> TrainConfig:
    return train_config(
        settings_of(variant, Path("data"), Path("work")), ["babyai", "metaworld"], [], 100
    )


def fields_of(config: TrainConfig) -> dict[str, Any]:
    """The fields of the configuration, of its network and of its mixture, by name."""
    values = dataclasses.asdict(config)
    return {**values.pop("network"), **values.pop("mixture"), **values}


def test_variants_differ_from_the_first_in_what_they_name() -> None:
    first = VARIANTS[0]
    base = configure(first)
    plain = fields_of(base)
    for variant in VARIANTS[1:]:
        config = fields_of(configure(variant))
        named = {k for k, v in variant.changes.items() if k != "network" and plain[k] != v}
        named |= set(variant.changes.get("network", {})) - set(NETWORK)
        if "observation_weight" in named:
            named.add("observation_heads")
        assert {k for k in plain if config[k] != plain[k]} == named, variant.name
        same = config == plain
        assert not same or (variant.layout, variant.memory) != (first.layout, first.memory)
        if variant.layout == first.layout:
            assert (config["rows"], config["length"]) == (plain["rows"], plain["length"])
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    sizes = [sum(p.numel() for p in GatoNetwork(base.network).backbone.parameters())]
    assert sizes[0] < 200_000, "a variant is to be trained in a minute or two"


def test_a_variant_is_trained_without_the_episodes_that_it_is_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[str, int]] = []

    def play_task(task: str, checkpoint: Path, episodes: int, device: str) -> list[Any]:
        assert (checkpoint / "config.json").exists()
        assert device == "cpu"
        played.append((task, episodes))
        return []

    monkeypatch.setattr(ablation, "TASKS", (BABYAI, ARM))
    monkeypatch.setattr(ablation, "HELD_OUT_BATCHES", 1)
    monkeypatch.setattr(ablation, "play_task", play_task)
    write_invented(tmp_path / "data")
    variant = next(v for v in VARIANTS if v.name == "memory-observations")
    settings = settings_of(variant, tmp_path / "data", tmp_path / "work")
    settings = dataclasses.replace(settings, steps=2, minutes=None)
    run = TrainRun(settings)
    for name in (BABYAI, ARM):
        assert (len(run.shards[name].ends), len(run.held_out[name].ends)) == (2, 2)
        assert run.shards[name].plan.options.memory == "observations"
    values = run_variant(variant, settings, episodes=3)
    assert played == [(BABYAI, 3), (ARM, 3)]
    assert (values["variant"], values["steps"]) == ("memory-observations", 2)
    assert 0 <= values["accuracy"] <= 1
    assert 0 < values["error"] < 2


class Solving(gym.Env[Any, Any]):
    """Solved at the third step."""

    observation_space = spaces.Discrete(9)
    action_space = spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.int64(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.int64(self.steps), 1.0, False, False, {"success": self.steps == 3}


def test_an_episode_ends_where_it_is_solved() -> None:
    env = UntilSolved(Solving())
    env.reset()
    assert [env.step(0)[2] for _ in range(3)] == [False, False, True]
