"""Returns to go, the scale that a checkpoint keeps of them, and targets."""

from __future__ import annotations

import numpy as np
import pytest

from policies.returns import ReturnScale, returns_to_go


def test_returns_to_go_are_sums_to_the_end_of_each_episode() -> None:
    generator = np.random.default_rng(0)
    rewards, ends = generator.normal(size=9), np.array([4, 5, 9])
    for discount in (1.0, 0.9):
        expected = [
            sum(discount ** (k - t) * rewards[k] for k in range(t, stop))
            for start, stop in ((0, 4), (4, 5), (5, 9))
            for t in range(start, stop)
        ]
        np.testing.assert_allclose(returns_to_go(rewards, ends, discount), expected, rtol=1e-12)


def test_targets_are_shares_of_the_expert_or_numbers() -> None:
    good = ReturnScale(scale=10, best=9, expert=8)
    assert good.read(None) == 9
    assert good.read("75%") == good.target(0.75) == 6
    assert good.read(-3) == good.read("-3") == good.target(total=-3) == -3
    assert ReturnScale(best=-80, expert=-100).target(0.9) == pytest.approx(-110)


@pytest.mark.parametrize("wrong", ["most", "x%", float("nan"), float("inf")])
def test_what_is_no_target_is_refused(wrong: float | str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        ReturnScale().read(wrong)


def test_a_scale_is_finite_and_above_zero() -> None:
    assert ReturnScale.of(np.array([-4.0, 3.0]), 3.0, 2.0).scale == 4
    assert ReturnScale.of(np.zeros(2), 0.0, 0.0).scale == 1
    for values in ((0.0, 1.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(ValueError, match="finite numbers and a scale above 0"):
            ReturnScale(*values)
    with pytest.raises(ValueError, match="expected one of them"):
        ReturnScale().target(0.5, 3.0)
