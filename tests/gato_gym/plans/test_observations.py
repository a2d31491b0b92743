import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import PlanOptions, compile_plan
from gato_gym.text import default_tokenizer

D = 33024  # first discrete id
ACTION = spaces.Discrete(2)


def lean(observation_space, **choices):
    return compile_plan(observation_space, ACTION, PlanOptions(**choices))


def paper(observation_space, **choices):
    return compile_plan(observation_space, ACTION, PlanOptions(layout="paper", **choices))


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


def test_images_channels_first_grey_and_mixed():
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        first=spaces.Box(0, 255, (3, 20, 16), np.uint8), grey=spaces.Box(0, 255, (32, 16), np.uint8)
    )
    first, grey = (
        rng.integers(0, 256, (3, 20, 16), np.uint8),
        rng.integers(0, 256, (32, 16), np.uint8),
    )
    plan = lean(space)
    images = plan.encode({"first": first, "grey": grey}).images
    assert images.shape == (4, 16, 16, 3)
    assert (images[0] == first[:, :16].transpose(1, 2, 0)).all()
    assert (images[1, :4] == first[:, 16:].transpose(1, 2, 0)).all()
    assert not images[1, 4:].any()
    assert (images[2:, :, :, 0].reshape(32, 16) == grey).all()
    assert not images[2:, :, :, 1:].any()
    assert plan.image_shape == (16, 16, 3)
    assert plan.image_channels == {"first": 3, "grey": 1}


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


def test_small_boxes_boards_characters_and_floats_that_are_no_pixels_are_tensors():
    for box in (
        spaces.Box(0, 255, (15, 16, 3), np.uint8),
        spaces.Box(0, 1, (19, 19, 17), np.uint8),
        spaces.Box(0, 1, (19, 19, 17), np.bool_),
        spaces.Box(0, 255, (21, 79), np.uint8),
        spaces.Box(32, 127, (40, 80), np.uint8),
        spaces.Box(0, 1, (16, 16)),
        spaces.Box(0, 1, (16, 16, 5)),
        spaces.Box(0, 2, (16, 16, 3)),
    ):
        plan = lean(box)
        assert plan.image_slots.size == 0
        assert plan.vector_length == np.prod(box.shape)


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("shape", [(16, 32, 1), (3, 20, 16), (16, 16, 4)])
def test_float_images_are_read_as_bytes(top, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels[0, 0, 0] = 255
    floats = (pixels / np.float32(255) * np.float32(top)).astype(np.float32)
    plan = lean(spaces.Box(0, top, shape))
    same = lean(spaces.Box(0, 255, shape, np.uint8))
    assert (plan.encode(floats).images == same.encode(pixels).images).all()
    assert (plan.image_intervals == same.image_intervals).all()
    too_bright = np.where(floats == floats.max(), 2 * top, floats).astype(np.float32)
    assert (plan.encode(too_bright).images == same.encode(pixels).images).all()
    assert plan.outside == {"": 1}


def test_images_that_the_options_name():
    space = spaces.Dict(depth=spaces.Box(-1, 3, (8, 8)), other=spaces.Box(0, 1, (2,)))
    plan = lean(space, images=("depth",))
    depth = np.full((8, 8), -1, np.float32)
    depth[0, 0], depth[0, 1] = 3, 1
    images = plan.encode({"depth": depth, "other": np.zeros(2, np.float32)}).images
    assert images.shape == (1, 16, 16, 1)
    assert images[0, 0, :3, 0].tolist() == [255, 128, 0]
    small = spaces.Box(0, 3, (8, 8), np.uint8)
    assert lean(small, images=("",)).encode(np.full((8, 8), 3, np.uint8)).images.max() == 255


@pytest.mark.parametrize("shape", [(5, 32, 16, 3), (5, 3, 32, 16), (5, 32, 16, 1)])
def test_frames_of_images_are_images_one_after_another(shape):
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    plan = lean(spaces.Box(0, 255, shape, np.uint8))
    alone = lean(spaces.Box(0, 255, shape[1:], np.uint8))
    together = plan.encode(frames).images
    assert len(together) == plan.num_tokens == len(plan.image_intervals) == 10
    assert (together == np.concatenate([alone.encode(frame).images for frame in frames])).all()
    assert (plan.image_intervals == np.tile(alone.image_intervals, (5, 1))).all()
    newest = lean(spaces.Box(0, 255, shape, np.uint8), stacks=("",))
    assert (newest.encode(frames).images == alone.encode(frames[-1]).images).all()


@pytest.mark.parametrize(("frames", "side"), [(8, 84), (16, 84), (32, 84), (60, 64)])
def test_a_stack_of_any_depth_has_its_frames_first(frames, side):
    space = spaces.Box(0, 255, (frames, side, side), np.uint8)
    assert lean(space).image_channels == {"": frames}
    newest = lean(space, stacks=("",))
    assert newest.image_channels == {"": 1}
    stack = np.random.default_rng(0).integers(0, 256, space.shape, np.uint8)
    assert (newest.decode_observation(newest.encode(stack)) == stack[-1]).all()


def test_stacked_colours_first_and_last():
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 16), np.uint8)
    first = lean(spaces.Box(0, 255, (12, 32, 16), np.uint8)).encode(frames).images
    last = lean(spaces.Box(0, 255, (32, 16, 12), np.uint8)).encode(frames.transpose(1, 2, 0))
    assert first.shape == (2, 16, 16, 12)
    assert (first == last.images).all()


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
    zero = compile_plan(
        plan.observation_space, ACTION, PlanOptions(layout=layout, on_nan="replace")
    )
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
        ({"images": ("gear",)}, "images names 'gear'.*expected a Box with bounds"),
        ({"images": ("sped",)}, "images names 'sped'.*did you mean 'speed'"),
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


class Unheard(gym.Space):
    """Of no kind that has tokens."""


def test_an_unknown_space_is_refused_with_what_to_do():
    hint = r"observation 'a/0' is a Unheard.*TransformObservation.*skip=\('a/0',\)"
    with pytest.raises(ValueError, match=hint):
        lean(spaces.Dict(a=spaces.Tuple([Unheard()])))


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_edges_of_nodes_without_room_are_cut_with_them(layout):
    space = spaces.Dict(net=spaces.Graph(spaces.Discrete(5), spaces.Discrete(4)))
    plan = compile_plan(space, ACTION, PlanOptions(layout=layout, sequence_length=2))
    links = np.array([[2, 0], [0, 1], [1, 1]])
    net = spaces.GraphInstance(np.array([4, 3, 2]), np.array([1, 2, 3]), links)
    ids = plan.encode({"net": net}).ids[:9].tolist()
    assert ids == [33024 + i for i in (2, 4, 3, 2, 2, 0, 1, 3, 1)]
    assert plan.outside == {"net/nodes": 1}
    assert plan.fields[0].kind == "graph"


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_a_sequence_is_its_length_and_its_elements(layout):
    space = spaces.Dict(seen=spaces.Sequence(spaces.Discrete(5)), speed=spaces.Box(-1, 1, (2,)))
    plan = compile_plan(space, ACTION, PlanOptions(layout=layout, sequence_length=2))
    speed = np.zeros(2, np.float32)
    ids = plan.encode({"seen": (np.int64(4),), "speed": speed}).ids
    assert ids[:3].tolist() == [33024 + 1, 33024 + 4, 33024]
    assert not plan.outside
    long = plan.encode({"seen": (np.int64(4),) * 3, "speed": speed}).ids
    assert long[:3].tolist() == [33024 + 2, 33024 + 4, 33024 + 4]
    assert plan.outside == {"seen": 1}
    strict = dataclasses.replace(plan.options, outside="error")
    with pytest.raises(ValueError, match="'seen' has 3 elements in row 0: expected at most 2"):
        compile_plan(space, ACTION, strict).encode({"seen": (np.int64(4),) * 3, "speed": speed})


OUTSIDE = spaces.Dict(
    box=spaces.Box(-1, 1, (2,)), gear=spaces.Discrete(3), name=spaces.Text(2, charset="ab")
)


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_what_is_outside_is_counted_and_refused_or_clipped(layout):
    member = {"box": np.float32([0.5, 1]), "gear": np.int64(2), "name": "ab"}

    def encode(outside, **changes):
        plan = compile_plan(OUTSIDE, ACTION, PlanOptions(layout=layout, outside=outside))
        return plan.encode(member | changes), plan.outside

    inside, counts = encode("error")
    assert counts == {}
    far = {"box": np.float32([0.5, 3])}
    step, counts = encode("boxes", **far)
    assert counts == {"box": 1}
    assert (step.vectors == 3).any() == (layout == "lean")
    assert (step.ids == inside.ids).all()
    step, counts = encode("clip", **far, gear=np.int64(7))
    assert counts == {"box": 1, "gear": 1}
    assert (step.vectors == inside.vectors).all()
    assert (step.ids == inside.ids).all()
    assert encode("clip", name="abba")[1] == {"name": 1}
    for changes, message in (
        (far, r"'box' is 3.0 at flat index 1 of row 0: expected \[-1.0, 1.0\]"),
        ({"gear": np.int64(7)}, r"'gear' is 7 at flat index 0 of row 0: expected \[0, 2\]"),
        ({"name": "xyz"}, "'name' is 'xyz' in row 0: expected a member of Text"),
    ):
        with pytest.raises(ValueError, match=message):
            encode("error", **changes)
    with pytest.raises(ValueError, match=r"'gear' is 7 .*PlanOptions\(outside='clip'\)"):
        encode("boxes", gear=np.int64(7))


def test_a_nan_is_read_as_the_number_chosen():
    space = spaces.Box(-1, 1, (2,))
    options = PlanOptions(layout="paper", on_nan="replace", nan_value=-1.0)
    ids = compile_plan(space, ACTION, options).encode(np.float32([np.nan, 1])).ids
    assert ids[:2].tolist() == [32000, 32000 + 1023]


def test_an_observation_without_parts_is_refused():
    with pytest.raises(ValueError, match="has no parts"):
        lean(spaces.Dict(a=spaces.Dict()))


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_observations_come_back_by_hand(layout):
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        camera=spaces.Box(0, 255, (3, 20, 17), np.uint8),
        depth=spaces.Box(-1, 3, (8, 8)),
        grid=spaces.Box(0, 9, (5, 5, 2), np.uint8),
        word=spaces.Text(9, charset="ab "),
        pair=spaces.Tuple([spaces.Discrete(3, start=4), spaces.MultiBinary(2)]),
        time=spaces.Discrete(7),
    )
    space.seed(1)
    member = space.sample() | {"depth": rng.uniform(-1, 3, (8, 8)).astype(np.float32)}
    options = PlanOptions(layout=layout, grids=("grid",), images=("depth",), skip=("time",))
    plan = compile_plan(space, ACTION, options)
    back = plan.decode_observation(plan.encode(member))
    assert "time" not in back
    assert space.contains(back | {"time": np.int64(0)})
    for name in ("camera", "grid", "word"):
        assert np.array_equal(back[name], member[name])
    assert back["pair"][0] == member["pair"][0]
    assert np.array_equal(back["pair"][1], member["pair"][1])
    assert np.abs(back["depth"] - member["depth"]).max() <= 4 / 255 / 2 + 1e-6


def test_the_newest_frame_stands_for_its_stack():
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 16), np.uint8)
    plan = lean(spaces.Box(0, 255, (4, 32, 16), np.uint8), stacks=("",))
    back = plan.decode_observation(plan.encode(frames))
    assert (back == frames[-1]).all()
    all_frames = spaces.Box(0, 255, (4, 32, 16, 3), np.uint8)
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), np.uint8)
    assert (lean(all_frames).decode_observation(lean(all_frames).encode(frames)) == frames).all()
