"""What every plan must satisfy, whatever the spaces."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st

from gato_gym import PlanOptions, compile_plan
from gato_gym.plans.bounds import number_bounds
from gato_gym.plans.codecs import mu_law

thorough = settings(derandomize=True, deadline=None, max_examples=80)

shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@st.composite
def boxes(draw):
    dtype = np.dtype(draw(st.sampled_from("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 ?".split())))
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    if dtype.kind == "b":
        return spaces.Box(0, 1, shape, dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        a, b = rng.integers(info.min, info.max, (2, *shape), dtype, endpoint=True)
        if draw(st.booleans()):
            b = np.clip(a.astype(float) + rng.integers(0, 5, shape), info.min, 2.0**53).astype(
                dtype
            )
            b = np.maximum(a, b)
        return spaces.Box(np.minimum(a, b), np.maximum(a, b), shape, dtype)
    scale = 10.0 ** draw(st.integers(-4, 4))
    a, b = (rng.normal(size=(2, *shape)) * scale).astype(dtype)
    low = np.where(rng.random(shape) < 0.2, -np.inf, np.minimum(a, b)).astype(dtype)
    high = np.where(rng.random(shape) < 0.2, np.inf, np.maximum(a, b)).astype(dtype)
    return spaces.Box(low, high, shape, dtype)


discretes = st.builds(
    lambda n, start: spaces.Discrete(n, start=start),
    st.sampled_from([1, 2, 7, 1024, 1025, 2_000_000]),
    st.integers(-50, 50),
)
multi_discretes = st.builds(
    lambda nvec: spaces.MultiDiscrete(nvec, start=np.full(len(nvec), -3)),
    st.lists(st.sampled_from([1, 2, 9, 1500]), min_size=1, max_size=4),
)
multi_binaries = shapes.filter(len).map(spaces.MultiBinary)
texts = st.builds(
    lambda low, extra, charset: spaces.Text(low + extra, min_length=low, charset=charset),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["ab", "zyx é", "0123456789"]),
)
pictures = st.builds(
    lambda h, w, c: spaces.Box(0, 255, (h, w, c), np.uint8),
    st.integers(16, 40),
    st.integers(16, 40),
    st.sampled_from([1, 3]),
)
# Box.contains warns of the scalars that a stack of 0-d members is made of
stacked = boxes().filter(lambda box: box.shape).map(lambda box: spaces.Sequence(box, stack=True))
# the same holds of nodes and edges
features = boxes().filter(lambda box: box.shape) | discretes
graphs = st.builds(spaces.Graph, features, st.none() | features)
leaves = graphs | boxes() | discretes | multi_discretes | multi_binaries | texts | stacked
room = PlanOptions().sequence_length
keys = st.sampled_from(["a", "B", "z", "0", "long name"])


def nested(leaf):
    return st.recursive(
        leaf,
        lambda child: (
            st.dictionaries(keys, child, min_size=1, max_size=3).map(spaces.Dict)
            | st.lists(child, min_size=1, max_size=3).map(spaces.Tuple)
            | st.lists(child, min_size=1, max_size=3).map(spaces.OneOf)
            | child.map(spaces.Sequence)
        ),
        max_leaves=5,
    )


def sample(space):
    """A member whose sequences have room."""
    return cut(space, space.sample())


def cut(space, member):
    if isinstance(space, spaces.Dict):
        return {key: cut(sub, member[key]) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(cut(sub, part) for sub, part in zip(space.spaces, member, strict=True))
    if isinstance(space, spaces.OneOf):
        return member[0], cut(space.spaces[member[0]], member[1])
    if isinstance(space, spaces.Sequence) and not space.stack:
        return tuple(cut(space.feature_space, element) for element in member[:room])
    if isinstance(space, spaces.Graph) and len(member.nodes) > room:
        member = member._replace(nodes=member.nodes[:room])
    if isinstance(space, spaces.Graph) and member.edges is not None:
        kept = np.flatnonzero((member.edge_links < room).all(axis=1))[:room]
        edges, links = member.edges[kept], member.edge_links[kept]
        return (
            member._replace(edges=edges, edge_links=links)
            if len(kept)
            else member._replace(edges=None, edge_links=None)
        )
    return member[:room] if isinstance(space, spaces.Sequence) else member


def equal(space, a, b):
    return all(type(x) is type(y) and np.array_equal(x, y) for _, x, y in pairs(space, a, b))


def batch_of(space, members):
    return concatenate(space, members, create_empty_array(space, len(members)))


def row_of(space, batch, row):
    if isinstance(space, spaces.Dict):
        return {key: row_of(sub, batch[key], row) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(row_of(sub, part, row) for sub, part in zip(space.spaces, batch, strict=True))
    return batch[row, ...] if isinstance(space, spaces.Box) else batch[row]


@given(nested(leaves), st.integers(0, 2**31))
@thorough
def test_legal_tokens_always_decode_to_a_member(space, seed):
    plan = compile_plan(spaces.Discrete(2), space)
    rng = np.random.default_rng(seed)
    start, stop = plan.action_ranges.T
    tokens = np.stack([start, stop - 1, *rng.integers(start, stop, (6, len(start)))])
    for row in tokens:
        assert space.contains(plan.decode(row)), plan.decode(row)


@given(nested(leaves), st.integers(0, 2**31))
@thorough
def test_batches_of_actions_equal_their_rows(space, seed):
    plan = compile_plan(spaces.Discrete(2), space)
    start, stop = plan.action_ranges.T
    tokens = np.random.default_rng(seed).integers(start, stop, (4, len(start)))
    batch = plan.decode_batch(tokens)
    encoded = plan.encode_actions(batch)
    for row, single in enumerate(map(plan.decode, tokens)):
        assert equal(space, row_of(space, batch, row), single)
        assert (plan.encode_action(single) == encoded[row]).all()


@given(nested(leaves), st.integers(0, 2**31))
@thorough
def test_members_encode_to_legal_tokens_and_come_back_close(space, seed):
    plan = compile_plan(spaces.Discrete(2), space)
    space.seed(seed)
    member = sample(space)
    tokens = plan.encode_action(member)
    mask = plan.action_mask()
    assert mask[np.arange(plan.num_actions), tokens].all()
    close(space, plan.decode(tokens), member)


def pairs(space, a, b):
    """Leaf spaces of two members of the same shape, with what each holds there."""
    if isinstance(space, spaces.Dict):
        assert a.keys() == b.keys() == space.spaces.keys()
        parts = [(sub, a[key], b[key]) for key, sub in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        parts = list(zip(space.spaces, a, b, strict=True))
    elif isinstance(space, spaces.OneOf):
        assert a[0] == b[0]
        parts = [(space.spaces[a[0]], a[1], b[1])]
    elif isinstance(space, spaces.Graph):
        assert np.array_equal(a.edge_links, b.edge_links)
        parts = [(space.node_space, x, y) for x, y in zip(a.nodes, b.nodes, strict=True)]
        if a.edges is not None:
            parts += [(space.edge_space, x, y) for x, y in zip(a.edges, b.edges, strict=True)]
    elif isinstance(space, spaces.Sequence):
        assert len(a) == len(b)
        parts = [(space.feature_space, x, y) for x, y in zip(a, b, strict=True)]
    else:
        return [(space, a, b)]
    return [pair for part in parts for pair in pairs(*part)]


def close(space, decoded, member):
    for leaf, a, b in pairs(space, decoded, member):
        if isinstance(leaf, spaces.Box):
            close_numbers(leaf, np.asarray(a), np.asarray(b))
        else:
            assert np.array_equal(a, b)


def close_numbers(space, decoded, member):
    bounded = space.bounded_below & space.bounded_above
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    error = np.abs(decoded.astype(np.float64) - member.astype(np.float64))[bounded]
    half_bin = ((high - low) / 2048)[bounded]
    rounding = 0.5 if space.dtype.kind in "iub" else 2 * np.finfo(space.dtype).eps
    size = np.maximum(np.abs(low), np.abs(high))[bounded]
    slack = rounding + 1e-9 * size if space.dtype.kind in "iub" else rounding * size
    assert (error <= half_bin * (1 + 1e-9) + slack).all()


@pytest.mark.parametrize("layout", ["paper", "lean"])
@given(space=nested(leaves | pictures), seed=st.integers(0, 2**31))
@thorough
def test_observations_fill_the_slots_they_are_said_to(layout, space, seed):
    plan = compile_plan(space, spaces.Discrete(2), PlanOptions(layout=layout))
    space.seed(seed)
    members = [sample(space) for _ in range(3)]
    batch = plan.encode_batch(batch_of(space, members))
    counts = [len(plan.id_slots), len(plan.vector_slots), len(plan.image_slots)]
    assert [batch.ids.shape[1], batch.vectors.shape[1], batch.images.shape[1]] == counts
    assert batch.images.shape[1] == len(plan.image_intervals)
    slots = np.concatenate([plan.id_slots, plan.vector_slots, plan.image_slots, plan.grid_slots])
    places = np.concatenate(
        [plan.id_places, plan.vector_places, plan.image_places, plan.grid_places]
    )
    assert sorted(set(slots.tolist())) == list(range(plan.num_tokens))
    assert sorted(places.tolist()) == list(range(len(places)))
    assert (np.diff(slots[np.argsort(places)]) >= 0).all()
    kept = {plan.vocabulary.name(int(token)).split()[0] for token in batch.ids.ravel()}
    assert kept <= {"continuous", "discrete", "separator"}
    assert np.isfinite(batch.vectors).all()
    assert (np.abs(batch.vectors) <= 10).all()


@pytest.mark.parametrize("layout", ["paper", "lean"])
@given(space=nested(leaves | pictures), seed=st.integers(0, 2**31))
@thorough
def test_batches_of_observations_equal_their_rows(layout, space, seed):
    plan = compile_plan(space, spaces.Discrete(2), PlanOptions(layout=layout))
    space.seed(seed)
    members = [sample(space) for _ in range(3)]
    batch = plan.encode_batch(batch_of(space, members))
    for row, member in enumerate(members):
        alone, together = plan.encode(member), batch.row(row)
        for name in ("text", "ids", "vectors", "images", "grids"):
            assert np.array_equal(getattr(alone, name), getattr(together, name))


def has_two_texts(plan):
    return [field.kind for field in plan.fields].count("text") > 1


@pytest.mark.parametrize("layout", ["paper", "lean"])
@given(space=nested(leaves | pictures), seed=st.integers(0, 2**31))
@thorough
def test_observations_come_back(layout, space, seed):
    plan = compile_plan(space, spaces.Discrete(2), PlanOptions(layout=layout))
    space.seed(seed)
    member = sample(space)
    step = plan.encode(member)
    if has_two_texts(plan):
        with pytest.raises(ValueError, match="cannot separate the texts"):
            plan.decode_observation(step)
        return
    back = plan.decode_observation(step)
    assert space.contains(back)
    near(space, back, member, plan)


def near(space, back, member, plan):
    """Equal where nothing is lost, and within half a bin or float32's precision elsewhere."""
    if isinstance(space, spaces.OneOf | spaces.Sequence | spaces.Graph):
        close(space, back, member)
    elif isinstance(space, spaces.Dict | spaces.Tuple):
        keys = space.spaces if isinstance(space, spaces.Dict) else range(len(space.spaces))
        for key in keys:
            near(space.spaces[key], back[key], member[key], plan)
    elif isinstance(space, spaces.Box):
        near_numbers(space, np.asarray(back), np.asarray(member), plan.options.layout)
    else:
        assert np.array_equal(back, member)


def near_numbers(space, back, member, layout):
    low, high = number_bounds(space)
    a, b = (np.asarray(x).astype(np.float64).ravel() for x in (back, member))
    small = space.dtype.kind in "iub" and space.dtype != np.uint64 and (high - low < 1024).all()
    if small and layout == "paper":
        assert np.array_equal(back, member)
        return
    largest = np.maximum(np.abs(low), np.abs(high))
    scaled = layout == "lean" and (largest <= 1e3).all()
    if scaled or (largest <= 1).all():
        width = np.where(high > low, high - low, 1)
        slack = width * 1e-6 if scaled else 1 / 1024 + 0 * width
        rounding = 0.5 if space.dtype.kind in "iub" else 2 * np.finfo(space.dtype).eps * largest
        assert (np.abs(a - b) <= slack + rounding + largest * 1e-6).all()
        return
    # companded: the same half bin of the curve, or float32's precision of it; clipped at 256
    inside = (np.abs(b) < 255) & (largest > 1)
    step = 1e-5 if layout == "lean" else 1 / 1024
    error = np.abs(mu_law(a) - mu_law(b))[inside]
    unit = mu_law(np.abs(b) + 0.5) - mu_law(np.abs(b)) if space.dtype.kind in "iub" else 0 * b
    coarse = 0.05 if space.dtype == np.float16 else 1e-5
    assert (error <= step * 1.01 + unit[inside] + coarse).all()
