import copy
import pickle

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from gato_gym import PlanOptions, Vocabulary, compile_plan
from gato_gym.text import default_tokenizer

C, D, SEPARATOR = 32000, 33024, 34048  # first continuous and discrete id, and the separator
ACTION = spaces.Discrete(2)

ROBOT = spaces.Dict(
    speed=spaces.Box(-np.inf, np.inf, (2,)),
    gear=spaces.Discrete(3, start=1),
    flags=spaces.MultiBinary(2),
    camera=spaces.Box(0, 255, (16, 32, 3), np.uint8),
    task=spaces.Text(20),
)
READING = {
    "speed": np.float32([1.0, -256.0]),
    "gear": 3,
    "flags": np.int8([1, 0]),
    "camera": np.arange(16 * 32 * 3).reshape(16, 32, 3).astype(np.uint8),
    "task": "dock",
}


def lean(observation_space, action_space=ACTION, **choices):
    return compile_plan(observation_space, action_space, PlanOptions(**choices))


def paper(observation_space, action_space=ACTION, **choices):
    return compile_plan(observation_space, action_space, PlanOptions(layout="paper", **choices))


def test_paper_sequence_by_hand():
    plan = paper(ROBOT)
    step = plan.encode(READING)
    assert step.text.tolist() == default_tokenizer().encode("dock").tolist()
    # mu-law of 1 is ln 101 / ln 25601 = 0.454674: floor(1.454674 * 512) = 744
    assert step.ids.tolist() == [D + 1, D, D + 2, C + 744, C, SEPARATOR]
    assert (step.images == np.stack([READING["camera"][:, :16], READING["camera"][:, 16:]])).all()
    assert plan.num_tokens == 8
    assert plan.image_places.tolist() == plan.image_slots.tolist() == [0, 1]
    assert plan.id_places.tolist() == plan.id_slots.tolist() == [2, 3, 4, 5, 6, 7]
    assert plan.vector_slots.size == plan.grid_slots.size == 0
    assert plan.image_intervals.tolist() == [[0, 128, 0, 64], [0, 128, 64, 128]]


def test_lean_sequence_by_hand():
    plan = lean(ROBOT)
    step = plan.encode(READING)
    assert step.ids.tolist() == [D + 2]
    # flags scaled from [0, 1] to [-1, 1], then the companded speed; the rest is padding
    assert step.vectors[0, :4].tolist() == pytest.approx([1, -1, 0.454674, -1], abs=1e-6)
    assert not step.vectors[0, 4:].any()
    assert step.vectors.shape == (1, 64)
    # two patches with tokens of their own, then one token for the vector and the gear
    assert plan.num_tokens == 3
    assert (plan.image_slots.tolist(), plan.image_places.tolist()) == ([0, 1], [0, 1])
    assert (plan.vector_slots.tolist(), plan.vector_places.tolist()) == ([2], [2])
    assert (plan.id_slots.tolist(), plan.id_places.tolist()) == ([2], [3])
    assert plan.vector_length == 4


def test_lean_vector_of_several_patches():
    plan = lean(ROBOT, vector_size=3)
    step = plan.encode(READING)
    assert step.vectors.shape == (2, 3)
    assert step.vectors.ravel().tolist() == pytest.approx([1, -1, 0.454674, -1, 0, 0], abs=1e-6)
    assert plan.vector_slots.tolist() == [2, 3]
    assert (plan.id_slots.tolist(), plan.id_places.tolist()) == ([4], [4])
    assert plan.num_tokens == 5


def test_babyai_is_one_body_token():
    space = spaces.Dict(
        direction=spaces.Discrete(4),
        image=spaces.Box(0, 255, (7, 7, 3), np.uint8),
        mission=spaces.Text(100),
    )
    plan = lean(space, spaces.Discrete(7), grids=("image",), memory="observations")
    image = np.random.default_rng(0).integers(0, 11, (2, 7, 7, 3), np.uint8)
    batch = plan.encode_batch(
        {"direction": np.array([0, 3]), "image": image, "mission": ("go", "open the red door")}
    )
    assert (plan.num_tokens, plan.num_actions) == (1, 1)
    assert batch.ids.tolist() == [[D], [D + 3]]
    assert batch.grids.shape == (2, 1, 7, 7, 3)
    assert (batch.grids[:, 0] == image).all()
    assert (plan.id_slots.tolist(), plan.id_places.tolist()) == ([0], [0])
    assert (plan.grid_slots.tolist(), plan.grid_places.tolist()) == ([0], [1])
    assert default_tokenizer().decode(batch.text[1]) == "open the red door"
    assert plan.grid_size == (7, 7, 3)
    # the paper's layout has no grids: one token a number, and the separator
    assert paper(space, grids=("image",)).num_tokens == 1 + 147 + 1


def test_metaworld_is_one_body_token():
    plan = lean(spaces.Box(-np.inf, np.inf, (39,), np.float64), spaces.Box(-1, 1, (4,)))
    assert (plan.num_tokens, plan.num_actions, plan.vector_length) == (1, 4, 39)
    assert plan.vector_slots.tolist() == [0]
    assert plan.encode(np.zeros(39)).vectors.shape == (1, 64)
    assert plan.encode_batch(np.zeros((3, 39))).ids.shape == (3, 0)


def test_lean_scaling_edges():
    low = np.array([-2.0, 5.0, -1000.0, -1001.0, -np.inf, 0.0])
    high = np.array([2.0, 5.0, 1000.0, 1.0, 3.0, 1.0])
    plan = lean(spaces.Box(low, high, dtype=np.float64))
    vector = plan.encode(np.array([2.0, 5.0, -1000.0, -256.0, np.inf, -9.5])).vectors[0, :6]
    # bounds up to 1000 scale; a larger or missing one compands; beyond bounds clips at 10
    assert vector.tolist() == [1.0, 0.0, -1.0, -1.0, 1.0, -10.0]


def test_normaliser_replaces_scaling_and_clips():
    options = PlanOptions(vector_mean=(1.0, 0.0, 0.0), vector_std=(2.0, 1e-3, 1.0))
    plan = compile_plan(spaces.Box(-1, 1, (3,)), ACTION, options)
    vector = plan.encode(np.float32([0.0, 0.5, -np.inf])).vectors[0, :3]
    assert vector.tolist() == [-0.5, 10.0, -10.0]


def test_normaliser_of_another_length_is_refused():
    with pytest.raises(ValueError, match="vector_mean has 2 numbers: expected 3"):
        lean(spaces.Box(-1, 1, (3,)), vector_mean=(0, 0), vector_std=(1, 1))


def test_raw_vectors_are_what_the_normaliser_is_fitted_on():
    space = spaces.Dict(
        b=spaces.Box(-9, 9, (2,)), a=spaces.MultiDiscrete([3, 4]), c=spaces.Discrete(2)
    )
    batch = {"a": np.array([[2, 0]]), "b": np.float32([[7, -7]]), "c": np.array([1])}
    assert lean(space).raw_vectors(batch).tolist() == [[2, 0, 7, -7]]


def test_bare_spaces_have_the_empty_path():
    for space, kind in (
        (spaces.Discrete(3), "discrete"),
        (spaces.Box(-1, 1, (2,)), "vector"),
        (spaces.Box(0, 255, (32, 32), np.uint8), "image"),
        (spaces.Text(9), "text"),
    ):
        first = lean(space).fields[0]
        assert (first.path, first.kind) == ("", kind)


def test_paper_values_within_one_are_not_companded():
    space = spaces.Box(np.float32([-1, -1]), np.float32([1, 1.5]))
    ids = paper(space).encode(np.float32([0.5, 0.5])).ids
    companded = np.log(51) / np.log(25601)
    assert ids.tolist() == [C + 768, C + int((companded + 1) * 512), SEPARATOR]


@pytest.mark.parametrize(("x", "bin_index"), [(-np.inf, 0), (-1, 0), (1, 1023), (np.inf, 1023)])
def test_paper_edges(x, bin_index):
    assert paper(spaces.Box(-1, 1, ())).encode(np.float32(x)).ids.tolist() == [
        C + bin_index,
        SEPARATOR,
    ]


def test_paper_integers():
    space = spaces.Dict(
        large=spaces.Box(-5000, 5000, (1,), np.int32),
        ram=spaces.Box(0, 255, (2,), np.uint8),
        shifted=spaces.Box(-7, -5, (1,), np.int8),
        switch=spaces.Box(0, 1, (1,), np.bool_),
        far=spaces.Discrete(3000),
    )
    observation = {
        "large": np.int32([0]),
        "ram": np.uint8([0, 255]),
        "shifted": np.int8([-5]),
        "switch": np.array([True]),
        "far": 2999,
    }
    ids = paper(space).encode(observation).ids
    # 2999 is 2 * 1024 + 951
    assert ids.tolist() == [D + 2, D + 951, C + 512, D, D + 255, D + 2, D + 1, SEPARATOR]


def test_body_is_never_empty():
    for plan in (lean(spaces.Text(5)), lean(ROBOT, skip=("",)), paper(spaces.Text(5))):
        assert plan.num_tokens == 1
        assert plan.id_slots.tolist() == plan.id_places.tolist() == [0]
    assert lean(spaces.Text(5)).encode("a").ids.tolist() == [SEPARATOR]
    batch = lean(ROBOT, skip=("",)).encode_batch(
        {key: [value] * 3 for key, value in READING.items()}
    )
    assert batch.ids.tolist() == [[SEPARATOR]] * 3


def test_lean_has_no_separator_otherwise():
    assert lean(spaces.Box(0, 255, (16, 16, 3), np.uint8)).id_slots.size == 0


def test_shifted_text_ids():
    vocabulary = Vocabulary(
        text=range(10, 32010),
        continuous=range(33000, 34024),
        discrete=range(34024, 35048),
        separator=0,
    )
    plan = compile_plan(spaces.Text(9), ACTION, vocabulary=vocabulary)
    expected = default_tokenizer().encode("key") + 10
    assert plan.encode("key").text.tolist() == expected.tolist()
    assert plan.encode("key").ids.tolist() == [0]


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_batches_equal_their_rows(layout):
    rng = np.random.default_rng(1)
    ROBOT.seed(3)
    members = [ROBOT.sample() for _ in range(5)]
    members[2]["speed"] = np.float32([np.inf, rng.normal()])
    batch = concatenate(ROBOT, members, create_empty_array(ROBOT, 5))
    plan = compile_plan(ROBOT, ACTION, PlanOptions(layout=layout))
    encoded = plan.encode_batch(batch)
    assert len(encoded) == 5
    for row, member in enumerate(members):
        alone, together = plan.encode(member), encoded.row(row)
        for name in ("text", "ids", "vectors", "images", "grids"):
            a, b = getattr(alone, name), getattr(together, name)
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert (a == b).all()


def test_a_tokenizer_larger_than_the_text_range_is_refused():
    small = Vocabulary(text=range(100))
    with pytest.raises(ValueError, match="32000 pieces: expected at most 100"):
        compile_plan(spaces.Text(5), ACTION, vocabulary=small).encode("a")


def test_fields_list_the_timestep_in_order():
    fields = [(f.path, f.kind, f.tokens, f.ids) for f in lean(ROBOT, vector_size=3).fields]
    assert fields == [
        ("task", "text", 0, range(32000)),
        ("camera", "image", 2, range(0)),
        ("flags, speed", "vector", 2, range(0)),
        ("gear", "discrete", 1, range(D, D + 3)),
        ("", "action", 1, range(D, D + 2)),
    ]
    shared = {f.path: f.tokens for f in lean(ROBOT).fields}
    assert shared["gear"] == shared["flags, speed"] == 0


def test_prints_itself():
    assert repr(lean(ROBOT)) == "Plan(lean: text, 3 body and 1 action tokens a timestep)"
    assert str(lean(ROBOT)).splitlines()[-2:] == [
        "gear          discrete  shared  [33024, 33027)",
        "-             action    1       [33024, 33026)",
    ]


def test_travels_between_processes():
    plan = lean(ROBOT)
    expected = plan.encode(READING)
    for twin in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):
        got = twin.encode(READING)
        assert (got.vectors == expected.vectors).all()
        assert got.text.tolist() == expected.text.tolist()


def test_lean_keeps_every_choice_of_a_large_space() -> None:
    space = spaces.MultiDiscrete([1500, 5000], start=[-3, 0])
    plan = compile_plan(space, spaces.Discrete(2), PlanOptions("lean"))
    for member in ([952, 4999], [1496, 257], [-3, 0]):
        back = plan.decode_observation(plan.encode(np.array(member)))
        assert back.tolist() == member
