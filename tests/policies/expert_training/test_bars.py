"""Bars of experts follow from published and measured returns by one rule a suite."""

from __future__ import annotations

import pytest

from benchmarks.references import measured, published
from policies.expert_training.recipes import PUBLISHED, RECIPES

ATARI = [task for task in RECIPES if task.startswith("atari-")]


@pytest.mark.parametrize("task", ATARI)
def test_a_games_bar_is_a_humans_or_half_of_jats_above_chance(task: str) -> None:
    """Within the error of chance's mean, which is measured again now and then."""
    chance = measured("atari")[task].random
    reference = published()[task]
    assert chance is not None
    assert chance.std is not None
    assert reference.expert is not None
    expert = reference.expert.mean
    half = max(expert / 2, chance.mean + (expert - chance.mean) / 2)
    error = chance.std / 10
    candidates = [half] if reference.human is None else [reference.human.mean, half]
    above = [one for one in candidates if one > chance.mean + 2 * error]
    bar = RECIPES[task].bar
    assert bar == pytest.approx(min(above), rel=3e-3, abs=4 * error)
    assert bar > chance.mean + 2 * error, "chance is no expert"


def test_dm_controls_bar_is_800_or_near_the_best_published() -> None:
    for task, recipe in RECIPES.items():
        if task.startswith("dm_control-"):
            assert recipe.bar == min(800, 0.9 * PUBLISHED.get(task, 1000))
    assert RECIPES["dm_control-humanoid-run"].bar == pytest.approx(414.9)
