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


def test_paths_are_lexicographic_and_tuples_by_index():
    many = spaces.Tuple([spaces.Discrete(20)] * 11)
    space = spaces.Dict({"b": spaces.Discrete(2), "a": many, "Z": spaces.Discrete(5)})
    plan = paper(space)
    assert [field.path for field in plan.fields[:-2]] == [
        "Z",
        *(f"a/{i}" for i in range(11)),
        "b",
    ]
    ids = plan.encode({"b": 1, "a": tuple(range(11)), "Z": 4}).ids
    assert (ids[:-1] - D).tolist() == [4, *range(11), 1]


def test_order_of_keys_does_not_matter():
    forward = spaces.Dict([("a", spaces.Discrete(3)), ("b", spaces.Box(-1, 1, (2,)))])
    backward = spaces.Dict([("b", spaces.Box(-1, 1, (2,))), ("a", spaces.Discrete(3))])
    observation = {"b": np.float32([0.1, 0.2]), "a": 2}
    assert paper(forward).encode(observation).ids.tolist() == (
        paper(backward).encode(observation).ids.tolist()
    )


def test_several_texts_are_joined_by_path():
    space = spaces.Dict(z=spaces.Text(9), y=spaces.Dict(t=spaces.Text(9)))
    text = lean(space).encode({"z": "ball", "y": {"t": "key"}}).text
    expected = [*default_tokenizer().encode("key"), *default_tokenizer().encode("ball")]
    assert text.tolist() == expected


def test_mission_spaces_are_text():
    mission = pytest.importorskip("minigrid.core.mission").MissionSpace(lambda: "get the ball")
    plan = lean(spaces.Dict(mission=mission, direction=spaces.Discrete(4)))
    assert plan.has_text
    batch = plan.encode_batch({"mission": ("get the ball",) * 2, "direction": np.array([1, 2])})
    assert default_tokenizer().decode(batch.text[1]) == "get the ball"


@pytest.mark.parametrize(
    "texts",
    [
        ("red", "a blue key"),
        ["red", "a blue key"],
        np.array(["red", "a blue key"], dtype="<U32"),
        np.array(["red", "a blue key"], dtype=object),
    ],
)
def test_forms_of_batched_text(texts):
    batch = lean(spaces.Dict(t=spaces.Text(20), d=spaces.Discrete(2))).encode_batch(
        {"t": texts, "d": np.array([0, 1])}
    )
    assert [default_tokenizer().decode(row) for row in batch.text] == ["red", "a blue key"]


def test_each_row_keeps_its_own_text():
    plan = lean(spaces.Dict(t=spaces.Text(20), d=spaces.Discrete(2)))
    texts = tuple(f"go to door {i}" for i in range(5))
    batch = plan.encode_batch({"t": texts, "d": np.zeros(5, int)})
    for row, text in enumerate(texts):
        alone = plan.encode({"t": text, "d": 0}).text
        assert batch.text[row].tolist() == batch.row(row).text.tolist() == alone.tolist()


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


def test_images_channels_first_grey_and_mixed():
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        first=spaces.Box(0, 255, (3, 20, 16), np.uint8), grey=spaces.Box(0, 255, (16, 16), np.uint8)
    )
    first, grey = (
        rng.integers(0, 256, (3, 20, 16), np.uint8),
        rng.integers(0, 256, (16, 16), np.uint8),
    )
    plan = lean(space)
    images = plan.encode({"first": first, "grey": grey}).images
    assert images.shape == (3, 16, 16, 3)
    assert (images[0] == first[:, :16].transpose(1, 2, 0)).all()
    assert (images[1, :4] == first[:, 16:].transpose(1, 2, 0)).all()
    assert not images[1, 4:].any()
    assert (images[2, :, :, 0] == grey).all()
    assert not images[2, :, :, 1:].any()
    assert plan.image_shape == (16, 16, 3)


def test_image_fit_and_patch_size():
    space = spaces.Box(0, 255, (20, 20, 3), np.uint8)
    image = np.full((20, 20, 3), 200, np.uint8)
    assert (lean(space, image_fit="resize").encode(image).images == 200).all()
    assert lean(space, image_fit="pad").encode(image).images.min() == 0
    assert lean(space, patch_size=10).encode(image).images.shape == (4, 10, 10, 3)


def test_the_newest_frame_of_a_stack():
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 16), np.uint8)
    space = spaces.Box(0, 255, (4, 32, 16), np.uint8)
    images = lean(space, stacks=("",)).encode(frames).images
    assert images.shape == (2, 16, 16, 1)
    assert (images.reshape(32, 16) == frames[-1]).all()
    assert lean(space).encode(frames).images.shape == (2, 16, 16, 4)


def test_small_or_float_boxes_are_tensors():
    for box in (spaces.Box(0, 255, (15, 16, 3), np.uint8), spaces.Box(0, 1, (16, 16, 3))):
        plan = lean(box)
        assert plan.image_slots.size == 0
        assert plan.vector_length == np.prod(box.shape)


def test_grids_of_two_axes_and_other_integers():
    space = spaces.Box(0, 9, (5, 4), np.int64)
    grid = np.arange(20).reshape(5, 4) % 10
    step = lean(space, grids=("",)).encode(grid)
    assert step.grids.dtype == np.uint8
    assert step.grids[0, :, :, 0].tolist() == grid.tolist()


def test_skipping_a_branch():
    space = spaces.Dict(a=spaces.Dict(x=spaces.Discrete(2), y=spaces.Sequence(spaces.Discrete(2))))
    space["b"] = spaces.Discrete(3)
    plan = lean(space, skip=("a/y",))
    assert [field.path for field in plan.fields[:-1]] == ["a/x", "b"]
    assert [field.path for field in lean(space, skip=("a",)).fields[:-1]] == ["b"]


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


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_nan_is_named(layout):
    plan = compile_plan(
        spaces.Dict(joints=spaces.Tuple([spaces.Box(-1, 1, (2, 3))])),
        ACTION,
        PlanOptions(layout=layout),
    )
    batch = np.zeros((4, 2, 3), np.float32)
    batch[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"'joints/0' is NaN at index \(1, 0\) of row 2"):
        plan.encode_batch({"joints": (batch,)})
    zero = compile_plan(plan.observation_space, ACTION, PlanOptions(layout=layout, on_nan="zero"))
    cleaned, clean = (
        zero.encode_batch({"joints": (values,)}) for values in (batch, np.nan_to_num(batch))
    )
    assert (cleaned.ids == clean.ids).all()
    assert (cleaned.vectors == clean.vectors).all()


def test_a_discrete_observation_outside_its_space_is_named():
    plan = lean(spaces.Dict(d=spaces.Discrete(4, start=1)))
    with pytest.raises(ValueError, match=r"observation 'd' is 5 .* row 1: expected \[1, 4\]"):
        plan.encode_batch({"d": np.array([4, 5])})


def test_missing_and_misshapen_parts_are_named():
    plan = lean(spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(2), t=spaces.Text(3)))
    good = {"a": np.zeros((3, 2)), "b": np.zeros(3, int), "t": ("x",) * 3}
    with pytest.raises(ValueError, match="has no 'b'"):
        plan.encode_batch({key: value for key, value in good.items() if key != "b"})
    with pytest.raises(ValueError, match=r"'b' has shape \(2,\): expected \(3,\)"):
        plan.encode_batch(good | {"b": np.zeros(2, int)})
    with pytest.raises(ValueError, match="'t' holds 2 strings: expected one for each of 3 rows"):
        plan.encode_batch(good | {"t": ("x", "y")})
    with pytest.raises(ValueError, match=r"'a' has shape \(1, 3\): expected \(1, 2\)"):
        plan.encode({"a": np.zeros(3), "b": 0, "t": "x"})


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"grids": ("imag",)}, "grids names 'imag'.*did you mean 'image'"),
        ({"skip": ("nothing",)}, "skip names 'nothing': expected one of"),
        ({"stacks": ("speed",)}, "stacks names 'speed'.*expected a stack of"),
        ({"grids": ("speed",)}, "grids names 'speed'.*expected integers"),
        ({"grids": ("gear",)}, "grids names 'gear'.*expected a Box of integers"),
    ],
)
def test_paths_that_do_not_fit_are_refused(choices, message):
    space = spaces.Dict(
        image=spaces.Box(0, 9, (7, 7, 3), np.uint8),
        speed=spaces.Box(-1, 1, (2, 2)),
        gear=spaces.Discrete(3),
    )
    with pytest.raises(ValueError, match=message):
        lean(space, **choices)


def test_grids_of_two_sizes_are_refused():
    space = spaces.Dict({k: spaces.Box(0, 9, (n, 7), np.uint8) for k, n in (("a", 7), ("b", 5))})
    with pytest.raises(ValueError, match="expected one size for all"):
        lean(space, grids=("a", "b"))


def test_paths_that_collide_are_refused():
    space = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))})
    with pytest.raises(ValueError, match="two parts with the path 'a/b'"):
        lean(space)


@pytest.mark.parametrize("space", [spaces.Sequence(spaces.Discrete(2)), spaces.Graph(ACTION, None)])
def test_spaces_without_tokens_are_refused(space):
    with pytest.raises(ValueError, match=r"observation 'a/0' is a .*skip=\('a/0',\)"):
        lean(spaces.Dict(a=spaces.Tuple([space])))


def test_an_observation_without_parts_is_refused():
    with pytest.raises(ValueError, match="has no parts"):
        lean(spaces.Dict(a=spaces.Dict()))


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
