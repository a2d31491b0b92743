"""The action of the nearest demonstrated step, whatever the spaces."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import Episode, PlanOptions
from policies import RetrievalPolicy, make_policy
from policies.retrieval import index as indices
from policies.retrieval.index import Index


def shown(observations: Any, actions: Any, task: str = "shown") -> Episode:
    """An episode of so many actions; the last observation is repeated."""
    length = len(actions)

    def longer(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: longer(each) for key, each in part.items()}
        return [*part, part[-1]] if isinstance(part, list) else np.concatenate([part, part[-1:]])

    never = np.zeros(length, bool)
    return Episode(task, longer(observations), actions, np.zeros(length, np.float32), never, never)


def test_numbers_count_in_deviations_of_the_demonstrations() -> None:
    """55 of 0 and 100 is nearer to 100, and yet the second number decides."""
    space = spaces.Box(-1000, 1000, (2,))
    steps = np.array([[0, 1], [100, -1], [-100, -1], [0, 1]], np.float32)
    deviations = steps.std(axis=0)
    policy = RetrievalPolicy(space, spaces.Discrete(4), shown(steps, np.arange(4)))
    queries = np.array([[55, 0.9], [45, -0.9], [-80, -0.5]], np.float32)
    apart = np.linalg.norm((queries[:, None] - steps[None]) / deviations, axis=2)
    actions, state = policy.predict(queries)
    assert actions.tolist() == apart.argmin(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(policy.nearest(queries)[1], apart.min(axis=1), rtol=1e-5)
    assert [int(policy.predict(query, state)[0]) for query in queries] == [0, 1, 2]
    raw = np.linalg.norm(queries[:, None] - steps[None], axis=2).argmin(axis=1)
    assert raw[0] != 0, "without deviations another step would be nearer"


def test_of_steps_as_near_the_first_is_played_whatever_the_batch() -> None:
    generator = np.random.default_rng(0)
    steps = np.repeat(generator.normal(1000, 1, (50, 7)), 2, axis=0).astype(np.float32)
    policy = RetrievalPolicy(
        spaces.Box(-np.inf, np.inf, (7,)), spaces.Discrete(100), shown(steps, np.arange(100))
    )
    expected = np.arange(100) // 2 * 2
    assert policy.predict(steps)[0].tolist() == expected.tolist()
    assert [int(policy.predict(step)[0]) for step in steps] == expected.tolist()


def test_the_same_text_comes_first_and_without_it_all_steps_are_compared() -> None:
    space = spaces.Dict(place=spaces.Box(-9, 9, (1,)), words=spaces.Text(20))
    left, right = (
        shown({"place": np.array(places, np.float32)[:, None], "words": [words] * 2}, actions)
        for places, words, actions in (
            ([0, 4], "go left", np.array([0, 1])),
            ([0, 8], "go right", np.array([2, 3])),
        )
    )
    policy = RetrievalPolicy(space, spaces.Discrete(4), [left, right])
    place = np.array([[4], [4.5], [7]], np.float32)
    batch = {"place": place, "words": ("go right", "go left", "wait")}
    # 4 and 4.5 are nearest to 4; of "go right", 4 is as near to 0 as to 8, and 0 is the first
    assert policy.predict(batch)[0].tolist() == [2, 1, 3]


def test_symbols_are_equal_or_not_and_pixels_differ() -> None:
    space = spaces.Dict(
        choice=spaces.Discrete(9),
        grid=spaces.Box(0, 10, (3, 3), np.uint8),
        picture=spaces.Box(0, 255, (32, 32, 3), np.uint8),
    )
    grids = np.zeros((3, 3, 3), np.uint8)
    grids[1, 0, 0], grids[2, 0, 0] = 4, 9
    pictures = np.zeros((3, 32, 32, 3), np.uint8)
    pictures[1:, :16] = 200
    steps = {"choice": np.array([0, 4, 8]), "grid": grids, "picture": pictures}
    policy = RetrievalPolicy(
        space, spaces.Discrete(3), shown(steps, np.arange(3)), options=PlanOptions(grids=("grid",))
    )

    def nearest(**changed: Any) -> int:
        first = {key: part[:1].copy() for key, part in steps.items()}
        return int(policy.predict({**first, **changed})[0][0])

    one_symbol = grids[:1].copy()
    one_symbol[0, 0, 0] = 5  # next to 4, and no more like it than like 9
    assert nearest() == 0
    assert nearest(choice=np.array([7]), grid=one_symbol, picture=pictures[1:2]) == 1
    assert nearest(choice=np.array([8]), grid=one_symbol, picture=pictures[1:2]) == 2
    assert nearest(picture=pictures[2:], grid=grids[2:]) == 2


@pytest.mark.parametrize(("asked", "compared"), [(0, 16), (8, 8), (42, 16)])
def test_images_are_compared_at_sixteen_pixels_at_most(asked: int, compared: int) -> None:
    space = spaces.Box(0, 255, (48, 48, 3), np.uint8)
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    options = PlanOptions(image_size=asked, images=("",))
    policy = RetrievalPolicy(
        space, spaces.Discrete(3), shown(frames, np.arange(3)), options=options
    )
    assert policy.plan.options.image_size == policy.plan.image_shape[0] == compared
    assert policy.predict(frames)[0].tolist() == [0, 1, 2]


def test_actions_of_any_space_are_members_within_their_bounds() -> None:
    space = spaces.Dict(
        push=spaces.Box(-1, 1, (2,), np.float32), words=spaces.Text(5), which=spaces.Discrete(3)
    )
    actions = {
        "push": np.array([[0.5, 7], [-0.5, 0]]), "words": ["a", "b"], "which": np.array([2, 1]),
    }  # fmt: skip
    where = np.array([[0], [1]], np.float32)
    never = np.zeros(2, bool)
    episode = Episode(
        "any", np.array([[0], [1], [1]], np.float32), actions, np.zeros(2, np.float32), never, never
    )
    policy = RetrievalPolicy(spaces.Box(0, 1, (1,)), space, episode)
    action, _ = policy.predict(where[0])
    assert space.contains(action)
    assert action["push"].tolist() == [0.5, 1.0]
    batch, _ = policy.predict(where[::-1])
    assert (batch["words"], batch["which"].tolist()) == (("b", "a"), [1, 2])


@pytest.mark.parametrize(
    ("episodes", "said"),
    [
        ([], "there is no demonstration"),
        (3, "demonstrations is a int: expected an Episode, a Minari dataset"),
        (shown(np.zeros((2, 3)), np.zeros(2, int), "B"), r"of 'B' does not fit .*\(3, 3\)"),
        (shown(np.zeros((2, 1)), np.array([0, 5])), "action .*5.* is no member of Discrete"),
        (shown(np.full((2, 1), np.nan), np.zeros(2, int)), "does not fit .*NaN"),
    ],
)
def test_what_is_no_demonstration_is_refused(episodes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RetrievalPolicy(spaces.Box(-1, 1, (1,)), spaces.Discrete(2), episodes)


def test_it_plays_from_as_many_episodes_as_asked_for() -> None:
    env = gym.make("CartPole-v1")
    steps = np.zeros((2, 4), np.float32)
    one, two = shown(steps, np.zeros(2, int)), shown(steps + 1, np.ones(2, int))
    policy = RetrievalPolicy.create(env, [one, two], episodes=1)
    assert policy.predict(steps[0] + 1)[0] == 0
    assert make_policy("retrieve", env=env, demonstrations=[one, two]).steps == 4
    for count in (0, 3):
        with pytest.raises(ValueError, match=rf"{count} demonstrations are asked for"):
            RetrievalPolicy.create(env, [one, two], episodes=count)
    with pytest.raises(ValueError, match="'retrieve' plays from demonstrations: pass --demonstr"):
        make_policy("retrieve", env=env)


# --- the index


def test_the_nearest_is_that_of_all_differences_in_float64() -> None:
    generator = np.random.default_rng(1)
    points = generator.normal(30, 1, (400, 6)).astype(np.float32)
    queries = generator.normal(30, 1, (90, 6)).astype(np.float32)
    wide = points.astype(np.float64)
    apart = np.array([np.linalg.norm(wide - query, axis=1) for query in queries])
    places, distances = Index(points).nearest(queries)
    assert places.tolist() == apart.argmin(axis=1).tolist()
    np.testing.assert_allclose(distances, apart.min(axis=1), rtol=1e-5)


def test_without_faiss_all_of_many_steps_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indices, "MANY", 3)
    monkeypatch.setitem(sys.modules, "faiss", None)
    points = np.arange(4, dtype=np.float32)[:, None]
    with pytest.warns(UserWarning, match=r"from 4 steps .* pip install 'gato-gym\[retrieval\]'"):
        index = Index(points)
    assert index.kind == "exact"
    assert index.nearest(points + 0.1)[0].tolist() == [0, 1, 2, 3]


class Cells:
    """What faiss's index of cells does: a few places, not in order, and -1 where there is none."""

    def train(self, points: np.ndarray) -> None:
        self.trained = len(points)

    def add(self, points: np.ndarray) -> None:
        self.points = points

    def search(self, queries: np.ndarray, count: int) -> tuple[None, np.ndarray]:
        assert (self.trained, self.nprobe) == (len(self.points), indices.PROBES)
        near = np.abs(self.points - queries[:, None]).sum(axis=2).argsort(axis=1)[:, : count - 1]
        return None, np.pad(near[:, ::-1], ((0, 0), (0, 1)), constant_values=-1)


def test_many_steps_are_searched_by_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def index_factory(numbers: int, description: str) -> Cells:
        asked.append((numbers, description))
        return Cells()

    monkeypatch.setattr(indices, "MANY", 20)
    monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(index_factory=index_factory))
    points = np.random.default_rng(2).normal(size=(25, 3)).astype(np.float32)
    index = Index(points)
    assert (index.kind, asked) == ("cells", [(3, "IVF5,Flat")])
    places, distances = index.nearest(points + np.float32(0.001))
    assert places.tolist() == list(range(25))
    np.testing.assert_allclose(distances, 0.001 * 3**0.5, rtol=1e-3)
