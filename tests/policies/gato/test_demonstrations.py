"""Demonstrations share the say with a network, or are its prompt."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from recorded import make_shard

from gato_gym import Episode, PlanOptions, compile_plan
from policies import GatoPolicy
from policies.gato.checkpoint import save_checkpoint
from policies.gato.multitask import MultiTaskPolicy
from policies.gato.sampling import Sampler, mixed_numbers
from policies.gato.task_specs import SpaceMismatchError, TaskRecord
from policies.model.config import NetworkConfig, fitted
from policies.model.network import GatoNetwork
from policies.retrieval.index import Index
from policies.retrieval.retriever import Retriever
from policies.training.data.collator import BatchBuilder, Document
from policies.training.data.packing import Mixture, Packer

CONFIG = NetworkConfig(
    width=32, layers=2, heads=2, head_size=16, feed_forward=32, window=16, prompt_tokens=80,
    text_rank=8, vector_hidden=16, grid_channels=8, grid_groups=2, vector_size=16,
)  # fmt: skip
PLACE = spaces.Box(-1, 1, (3,), np.float32)
WORDED = spaces.Dict(place=PLACE, words=spaces.Text(20))
MIXED = spaces.Dict(push=spaces.Box(-1, 1, (2,), np.float32), tool=spaces.Discrete(3))


def episodes(
    action_space: gym.Space[Any], *, words: tuple[str, ...] = (), count: int = 3, length: int = 12
) -> list[Episode]:
    """Random ones; of each of some words, or without."""
    generator = np.random.default_rng(0)
    action_space.seed(0)
    never = np.zeros(length, bool)
    made = []
    for number in range(count):
        observations: Any = generator.uniform(-1, 1, (length + 1, 3)).astype(np.float32)
        if words:
            said = [words[number % len(words)]] * (length + 1)
            observations = {"place": observations, "words": said}
        actions = stacked([action_space.sample() for _ in range(length)])
        rewards = np.zeros(length, np.float32)
        made.append(Episode("some", observations, actions, rewards, never, never))
    return made


def stacked(members: list[Any]) -> Any:
    if isinstance(members[0], dict):
        return {key: stacked([each[key] for each in members]) for key in members[0]}
    return np.stack([np.asarray(each) for each in members])


def policy_for(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    sampler: Sampler | None = None,
    head: str = "bins",
    **options: Any,
) -> GatoPolicy:
    torch.manual_seed(0)
    plan = compile_plan(observation_space, action_space, PlanOptions(vector_size=16, **options))
    config = fitted(dataclasses.replace(CONFIG, continuous_head=head), [plan])
    return GatoPolicy(GatoNetwork(config), plan, sampler=sampler)


def reference(
    shown: list[Episode], queries: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nearest step and weight of each query, in float64, one pair of steps after another."""
    steps = np.concatenate([np.asarray(each.observations)[:-1] for each in shown]).astype(float)
    deviations = steps.std(axis=0)
    scaled = steps / deviations
    others = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    np.fill_diagonal(others, np.inf)
    d95 = np.quantile(others.min(axis=1), 0.95)
    apart = np.linalg.norm(queries[:, None] / deviations - scaled[None], axis=2)
    return apart.argmin(axis=1), np.exp(-10 * apart.min(axis=1) / d95)


def test_the_weight_is_that_of_the_definition() -> None:
    shown = episodes(MIXED)
    plan = policy_for(PLACE, MIXED).plan
    steps = np.concatenate([np.asarray(each.observations)[:-1] for each in shown])
    queries = (steps + np.random.default_rng(1).normal(0, 0.05, steps.shape)).astype(np.float32)
    places, weights = reference(shown, queries)
    assert weights.min() < 0.1 < 0.5 < weights.max()
    ids, given = Retriever(plan, shown).retrieve(queries)
    np.testing.assert_allclose(given, weights, rtol=1e-3)
    actions = np.concatenate([plan.encode_actions(each.actions) for each in shown])
    assert np.array_equal(ids, actions[places])


def test_equal_steps_leave_the_say_to_the_network_everywhere_else() -> None:
    shown = episodes(spaces.Discrete(3), count=1)[0]
    same = dataclasses.replace(shown, observations=np.full_like(shown.observations, 0.5))
    retriever = Retriever(policy_for(PLACE, spaces.Discrete(3)).plan, same)
    queries = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.6]], np.float32)
    # what no step differs in is compared by nothing: every observation is at distance 0
    assert retriever.spread == 0
    assert retriever.retrieve(queries)[1].tolist() == [1.0, 1.0]


def test_other_words_than_the_demonstrated_are_the_networks_alone() -> None:
    retriever = Retriever(
        policy_for(WORDED, spaces.Discrete(3)).plan,
        episodes(spaces.Discrete(3), words=("go left", "go right")),
    )
    first = np.asarray(episodes(spaces.Discrete(3))[0].observations)[:1]
    batch = {"place": first.repeat(3, 0), "words": ("go left", "go right", "wait")}
    weights = retriever.retrieve(batch)[1]
    assert weights[0] == 1.0
    assert 0 < weights[1] < 1.0
    assert weights[2] == 0.0


def test_the_mixture_is_sampled_as_its_probabilities_say() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(4000, 1)
    uniforms = (torch.arange(4000) + 0.5) / 4000
    ids, shares = torch.full((4000,), 3), torch.full((4000,), 0.4)
    for sampler, network in (
        (Sampler(temperature=0.5), np.exp([0.0, 2.0, 4.0, -2.0])),
        (Sampler(top_p=0.6), np.exp([-np.inf, -np.inf, 2.0, -np.inf])),
    ):
        chosen = sampler.choose(
            logits, uniforms, continuous=False, deterministic=False, retrieved=(ids, shares)
        )
        expected = 0.6 * network / network.sum() + 0.4 * np.eye(4)[3]
        np.testing.assert_allclose(np.bincount(chosen, minlength=4) / 4000, expected, atol=1e-3)


@pytest.mark.parametrize(("share", "likeliest"), [(0.3, 2), (0.45, 0)])
def test_the_likeliest_of_the_mixture(share: float, likeliest: int) -> None:
    logits = torch.tensor([[0.1, 0.2, 0.6, 0.1]]).log()
    retrieved = torch.tensor([0]), torch.tensor([share])  # .1 (1 - w) + w against .6 (1 - w)
    sampler = Sampler(continuous="mode")
    for continuous in (False, True):
        chosen = sampler.choose(
            logits, torch.zeros(1), continuous=continuous, deterministic=True, retrieved=retrieved
        )
        assert chosen.tolist() == [likeliest]


def test_a_number_is_the_mean_of_the_mixture() -> None:
    logits = torch.full((1, 1024), -20.0)
    logits[0, 100] = 20.0
    retrieved = torch.tensor([900]), torch.tensor([0.25])
    chosen = Sampler(continuous="mean").choose(
        logits, torch.zeros(1), continuous=True, deterministic=True, retrieved=retrieved
    )
    assert chosen.tolist() == [300]
    numbers = mixed_numbers(torch.tensor([3.0, -0.5]), 4, (torch.tensor([0, 3]), torch.ones(2) / 4))
    assert numbers.tolist() == [0.25 * -0.75 + 0.75, 0.25 * 0.75 - 0.75 * 0.5]


@pytest.mark.parametrize("head", ["bins", "regression"])
@pytest.mark.parametrize("actions", ["parallel", "autoregressive"])
def test_the_say_goes_from_the_demonstrations_to_the_network(head: str, actions: str) -> None:
    shown = episodes(MIXED)
    bare = policy_for(PLACE, MIXED, head=head, actions=actions, memory="none")
    policy = bare.with_demonstrations(shown)
    steps = np.asarray(shown[1].observations)[:-1]
    demonstrated = bare.plan.encode_actions(shown[1].actions)
    played = bare.plan.encode_actions(policy.predict(steps, deterministic=True)[0])
    assert np.array_equal(played, demonstrated)
    assert np.array_equal(bare.plan.encode_actions(policy.predict(steps)[0]), demonstrated)
    far = np.array([[1, -1, 1], [-1, 1, -1]], np.float32)
    assert policy.demonstrations is not None
    assert policy.demonstrations.retriever.retrieve(far)[1].max() < 1e-3
    alone, together = (each.predict(far, deterministic=True)[0] for each in (bare, policy))
    assert np.array_equal(alone["tool"], together["tool"])
    np.testing.assert_allclose(alone["push"], together["push"], atol=0.01)
    assert not np.array_equal(played, bare.plan.encode_actions(bare.predict(steps)[0]))


def test_neighbours_are_those_of_sorting_all_distances() -> None:
    generator = np.random.default_rng(0)
    points = generator.integers(-3, 4, (300, 2)).astype(np.float32)  # many are equally near
    queries = generator.integers(-3, 4, (20, 2)).astype(np.float32)
    for query, (places, apart) in zip(queries, Index(points).neighbours(queries, 19), strict=True):
        distances = np.linalg.norm(points.astype(float) - query, axis=1)
        expected = sorted(range(300), key=lambda place: (distances[place], place))[:19]
        assert places.tolist() == expected
        np.testing.assert_allclose(apart, distances[expected], rtol=1e-6)
    assert [len(places) for places, _ in Index(points[:3]).neighbours(queries, 19)] == [3] * 20


CASES: dict[str, tuple[gym.Space[Any], dict[str, Any], tuple[str, ...]]] = {
    "nothing kept": (PLACE, {"memory": "none", "actions": "parallel"}, ()),
    "words, actions hidden": (
        WORDED, {"memory": "observations", "actions": "parallel"}, ("go left", "go right"),
    ),
    "all kept": (PLACE, {"memory": "all"}, ()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_shown_is_as_in_training(case: str) -> None:
    """The cached step equals one forward of the packed document: neighbours, then the query."""
    space, options, words = CASES[case]
    shown = episodes(MIXED, words=words, count=4)
    bare = policy_for(space, MIXED, **options)
    policy = bare.with_demonstrations(shown[:3], interpolate=False, show=True)
    assert policy.demonstrations is not None
    retriever = policy.demonstrations.retriever
    plan, config = bare.plan, bare.network.config
    live = [member(shown[3].observations, step) for step in range(5)]
    logits, ids = played(policy, live)
    shard = make_shard(
        plan,
        [
            ([member(e.observations, t) for t in range(e.length)], plan.encode_actions(e.actions))
            for e in shown[:3]
        ]
        + [(live, ids)],
    )
    packer = Packer({"test": shard}, Mixture({"test": 1.0}), config, rows=1, length=900, seed=0)
    asked = range(5) if options["memory"] == "none" else range(1)
    total = 0
    for step in asked:
        near = retriever.shown(batch(live[step]))[0]
        order = np.array(retriever.policy.order)[near]
        prompt = packer.retrieved.lay_out(shard, order)
        count = 1 if options["memory"] == "none" else 5
        steps = np.arange(36 + step, 36 + step + count)
        alive = packer._live(shard, steps, config.prompt_tokens, 500)
        assert alive is not None
        builder = BatchBuilder(packer.spec, 1)
        builder.add(Document(shard, [prompt, alive], np.asarray(alive[1].actions)), 0, 0, 0)
        packed = builder.finish()
        with torch.no_grad():
            hidden = bare.network(packed).flatten(0, 1)[packed.targets.slots]
            vectors = bare.network.action_heads.at_places(
                hidden, torch.arange(len(hidden)), packed.targets.places
            )
            full = bare.network.symbol_logits(vectors, 32000, 34049)
        mine = torch.stack(logits[total : total + len(full)])
        torch.testing.assert_close(mine, full, atol=1e-5, rtol=0)
        total += len(full)
    assert total == len(logits) == 5 * plan.num_actions
    unshown, _ = played(bare, live)
    assert (torch.stack(unshown) - torch.stack(logits)).abs().max() > 0.01


def member(observations: Any, step: int) -> Any:
    if isinstance(observations, dict):
        return {key: member(part, step) for key, part in observations.items()}
    return observations[step]


def batch(observation: Any) -> Any:
    if isinstance(observation, dict):
        words = (observation["words"],)
        return {"place": np.asarray(observation["place"])[None], "words": words}
    return np.asarray(observation)[None]


def played(policy: GatoPolicy, seen: list[Any]) -> tuple[list[torch.Tensor], NDArray[np.int32]]:
    """Logits over the whole symbol range of each action token, and action ids of each step."""
    logits: list[torch.Tensor] = []
    policy.predict(seen[0])  # tries the sizes of blocks
    (sizes,) = policy.decoder.head_sizes._proven.values()
    original = policy.network.symbol_logits

    def record(hidden: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        side_by_side = len(hidden) // sizes[0]  # the block's other rows are padding
        logits.extend(original(hidden, 32000, 34049)[:side_by_side])
        return original(hidden, start, stop)

    policy.network.symbol_logits = record  # type: ignore[method-assign]
    state, ids = None, []
    for observation in seen:
        action, state = policy.predict(observation, state, deterministic=True)
        ids.append(policy.plan.encode_action(action))
    policy.network.symbol_logits = original  # type: ignore[method-assign]
    return logits, np.stack(ids)


@pytest.mark.parametrize("interpolate", [True, False])
def test_a_row_does_not_depend_on_the_others(interpolate: bool) -> None:
    shown = episodes(MIXED)
    policy = policy_for(PLACE, MIXED, actions="parallel", memory="none").with_demonstrations(
        shown, interpolate=interpolate, show=True
    )
    seen = np.random.default_rng(2).uniform(-1, 1, (4, 40, 3)).astype(np.float32)
    together, state = [], None
    for step in seen:
        actions, state = policy.predict(step, state, deterministic=True)
        together.append(policy.plan.encode_actions(actions))
    for row in (0, 7, 39):
        state = None
        for number, step in enumerate(seen):
            action, state = policy.predict(step[row], state, deterministic=True)
            assert np.array_equal(policy.plan.encode_action(action), together[number][row])


def test_a_text_that_leaves_no_room_for_a_step_shows_nothing() -> None:
    options: dict[str, Any] = {"memory": "observations", "actions": "parallel"}
    bare = policy_for(WORDED, spaces.Discrete(3), **options)
    bare.network.config = dataclasses.replace(bare.network.config, prompt_tokens=6)
    shown = episodes(spaces.Discrete(3), words=("go", "go to the far left"), count=2)
    policy = bare.with_demonstrations(shown, interpolate=False, show=True)
    place = np.asarray(episodes(spaces.Discrete(3))[0].observations)[:2]
    batch = {"place": place, "words": ("go", "go to the far left")}
    _, state = policy.predict(batch)
    # a token of text, and two steps of an observation and an action each
    assert (state.cache.positions[:, :6] >= 0).sum(1).tolist() == [1 + 2 * 2, 0]


def test_views_with_and_without_demonstrations_act_together_as_alone() -> None:
    bare, shown = policy_for(PLACE, MIXED, actions="parallel", memory="none"), episodes(MIXED)
    views = [
        bare,
        bare.with_demonstrations(shown),
        bare.with_demonstrations(shown[:1]),
        bare.with_demonstrations(shown, show=True),
    ]
    steps = np.asarray(shown[0].observations)
    policy, state = MultiTaskPolicy(views), None
    states: list[Any] = [None] * len(views)
    for step in range(3):
        seen = [steps[[step, number + 3]] for number in range(len(views))]
        together, state = policy.predict(seen, state, deterministic=True)
        for number, view in enumerate(views):
            alone, states[number] = view.predict(seen[number], states[number], deterministic=True)
            for part in ("push", "tool"):
                assert np.array_equal(alone[part], together[number][part])


class Bare(gym.Env[Any, Any]):
    """Two spaces."""

    observation_space, action_space = PLACE, MIXED


def test_load_takes_demonstrations(tmp_path: Any) -> None:
    bare = policy_for(PLACE, MIXED, actions="parallel", memory="none")
    bare.save(tmp_path / "saved")
    shown = episodes(MIXED)
    load = GatoPolicy.load
    policy = load(tmp_path / "saved", demonstrations=shown, prompt="retrieved", interpolate=False)
    assert policy.demonstrations is not None
    assert (policy.demonstrations.interpolate, policy.demonstrations.show) == (False, True)
    steps = np.asarray(shown[0].observations)[:3]
    expected = bare.with_demonstrations(shown, interpolate=False, show=True)
    actions = [each.predict(steps, deterministic=True)[0] for each in (policy, expected)]
    assert np.array_equal(actions[0]["push"], actions[1]["push"])
    assert policy.to("cpu") is policy
    record = TaskRecord.of(bare.plan, None)
    save_checkpoint(tmp_path / "two", bare.network, {"a": record, "b": record}, Sampler())
    env = Bare()
    with pytest.raises(SpaceMismatchError, match="2 tasks of the checkpoint have"):
        load(tmp_path / "two", env=env)
    assert load(tmp_path / "two", env=env, demonstrations=shown).task == "new"
    assert copy.deepcopy(policy).demonstrations.retriever is policy.demonstrations.retriever  # type: ignore[union-attr]
    assert not policy.with_prompt(None).decoder.shows
    with pytest.raises(ValueError, match="prompt is 'retrieved': pass demonstrations="):
        load(tmp_path / "saved", prompt="retrieved")
    with pytest.raises(ValueError, match="does not fit the policy"):
        load(tmp_path / "saved", demonstrations=episodes(spaces.Discrete(9)))
    small = policy_for(PLACE, MIXED, layout="paper", memory="all")
    small.network.config = dataclasses.replace(small.network.config, prompt_tokens=3)
    with pytest.raises(ValueError, match="prompt region 3: expected room for one or more"):
        small.with_demonstrations(shown, show=True)


def test_another_return_leaves_what_is_shown() -> None:
    plan = compile_plan(PLACE, MIXED, PlanOptions(vector_size=16))
    torch.manual_seed(0)
    config = fitted(dataclasses.replace(CONFIG, return_conditioned=True), [plan])
    shown = GatoPolicy(GatoNetwork(config), plan).with_demonstrations(
        episodes(MIXED), interpolate=False, show=True
    )
    seen = list(np.random.default_rng(1).uniform(-1, 1, (4, 3)).astype(np.float32))
    same = shown.with_return(total=shown.target_return)
    for hidden, again in zip(played(shown, seen)[0], played(same, seen)[0], strict=True):
        assert torch.equal(hidden, again)
    other = shown.with_return(total=5.0)
    assert other.decoder.shows
    assert other.target_return == 5.0
