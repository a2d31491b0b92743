"""What is no observation is refused with what was got and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from small import SMALL, STATE, TALKING, state_plan, talking_plan

from policies import GatoPolicy, MultiTaskPolicy
from policies.model.network import GatoNetwork
from policies.observations import rows_of
from policies.random_policy import RandomPolicy

ONE = {"state": np.zeros(3, np.float32), "words": "go left"}
TWO = {"state": np.zeros((2, 3), np.float32), "words": ("go left", "stay")}
NO_ROWS = {"state": np.zeros((0, 3), np.float32), "words": ()}
PARTS = r"expected a dict with \['state', 'words'\]"
SHAPES = r"expected \(3,\) for one environment or \(B, 3\) for a batch"

CASES: list[tuple[gym.Space[Any], Any, str]] = [
    (TALKING, (ONE, {}), rf"is a tuple of 2: {PARTS}; reset\(\) returns \(observation, info\)"),
    (TALKING, None, f"observation is None: {PARTS}"),
    (TALKING, np.zeros(3), rf"an array of shape \(3,\) and dtype float64: {PARTS}"),
    (TALKING, [ONE, ONE], f"a list of 2: {PARTS}"),
    (TALKING, {"state": ONE["state"]}, r"has no 'words': got a dict with \['state'\], expected"),
    (TALKING, {"words": "go left"}, r"has no 'state': got a dict with \['words'\], expected"),
    (TALKING, ONE | {"words": None}, r"observation\['words'\] is None: expected a str"),
    (TALKING, ONE | {"state": None}, rf"observation\['state'\] is None: {SHAPES}"),
    (TALKING, ONE | {"words": ("a",)}, r"\['words'\] is a batch of 1 rows and .* one observation"),
    (TALKING, TWO | {"words": ("a",)}, r"a batch of 1 rows and .* a batch of 2 rows"),
    (TALKING, NO_ROWS, "a batch of no rows: expected one row or more"),
    (STATE, (np.zeros(3), {}), rf"a tuple of 2: {SHAPES}; reset\(\) returns"),
    (STATE, None, f"observation is None: {SHAPES}"),
    (STATE, {"state": np.zeros(3)}, f"a dict of 1: {SHAPES}"),
    (STATE, np.zeros(4), rf"of shape \(4,\): {SHAPES}"),
    (STATE, np.zeros((1, 2, 3)), rf"of shape \(1, 2, 3\): {SHAPES}"),
    (STATE, [[0, 0, 0], [0, 0]], f"a list of 2: {SHAPES}"),
    (STATE, np.zeros((0, 3)), "a batch of no rows"),
]


@pytest.mark.parametrize(("space", "given", "said"), CASES)
@pytest.mark.parametrize("kind", ["random", "gato", "multitask"])
def test_what_is_no_observation_is_refused(
    kind: str, space: gym.Space[Any], given: Any, said: str
) -> None:
    plan = talking_plan() if space is TALKING else state_plan()
    network = GatoPolicy(GatoNetwork(SMALL), plan)
    predict: dict[str, Callable[[Any], Any]] = {
        "random": RandomPolicy(plan.observation_space, plan.action_space).predict,
        "gato": network.predict,
        "multitask": lambda observation: MultiTaskPolicy([network]).predict([observation]),
    }
    with pytest.raises(ValueError, match=said):
        predict[kind](given)


NET = spaces.Graph(spaces.Box(0, 1, (3,)), None)
PAIR = spaces.Tuple((spaces.Discrete(3), spaces.Sequence(spaces.Discrete(4))))


@pytest.mark.parametrize(
    ("space", "given", "rows"),
    [
        (TALKING, ONE, None),
        (TALKING, TWO, 2),
        (TALKING, TWO | {"words": np.array(["a", "b"])}, 2),
        (STATE, [0.0, 0.0, 0.0], None),
        (STATE, [[0.0, 0.0, 0.0]], 1),
        (spaces.Discrete(3), 2, None),
        (spaces.Discrete(3), np.array([2, 0, 1]), 3),
        (spaces.Text(5), np.str_("a"), None),
        (PAIR, (1, (3, 3, 0)), None),
        (PAIR, (np.array([1, 2]), ((3,), ())), 2),
        (spaces.Sequence(spaces.Discrete(4)), (1, 2), None),
        (spaces.Sequence(spaces.Discrete(4)), ((1, 2), (0,), ()), 3),
        (NET, spaces.GraphInstance(np.zeros((2, 3)), None, None), None),
        (NET, (spaces.GraphInstance(np.zeros((2, 3)), None, None),) * 2, 2),
    ],
)
def test_rows_by_hand(space: gym.Space[Any], given: Any, rows: int | None) -> None:
    assert rows_of(space, given) == rows


@pytest.mark.parametrize("given", [1, (1,), (1, (2,), 3), ((1, (2,)), {})])
def test_tuples_of_other_parts_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        rows_of(PAIR, given)
