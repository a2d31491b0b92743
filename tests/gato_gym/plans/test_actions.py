import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import PlanOptions, Vocabulary, compile_plan

C, D = 32000, 33024  # first continuous and first discrete id


def plan_for(action_space, **kwargs):
    return compile_plan(spaces.Box(-1, 1, (2,)), action_space, **kwargs)


def test_bounded_box_by_hand():
    plan = plan_for(spaces.Box(np.float32([-2, 0]), np.float32([2, 10])))
    assert plan.action_ranges.tolist() == [[C, C + 1024]] * 2
    assert plan.action_is_continuous.tolist() == [True, True]
    assert plan.encode_action(np.float32([-2, 10])).tolist() == [C, C + 1023]
    assert plan.encode_action(np.float32([0, 5])).tolist() == [C + 512, C + 512]
    # bin 256 is centred on (2 * 256 + 1) / 2048 of the way
    expected = [-2 + 4 * 513 / 2048, 10 * 513 / 2048]
    assert plan.decode([C + 256, C + 256]).tolist() == pytest.approx(expected)


def test_bounds_and_beyond_land_in_the_outer_bins():
    plan = plan_for(spaces.Box(-0.1, 0.3, (5,)))
    got = plan.encode_action(np.float32([-np.inf, -0.1, 0.3, 9, np.inf]))
    assert (got - C).tolist() == [0, 0, 1023, 1023, 1023]


def test_unbounded_box_is_companded_and_clipped_to_a_lone_bound():
    low, high = np.float32([-np.inf, 0, -np.inf]), np.float32([np.inf, np.inf, -1000])
    plan = plan_for(spaces.Box(low, high))
    # mu-law of 1 is ln 101 / ln 25601 = 0.454674: floor(1.454674 * 512) = 744
    assert (plan.encode_action(np.float32([1, 1, -2000])) - C).tolist() == [744, 744, 0]
    decoded = plan.decode([C + 744, C, C + 700])
    assert decoded[0] == pytest.approx(1.0, rel=0.02)
    assert decoded[1:].tolist() == [0.0, -1000.0]


def test_the_largest_float_counts_as_no_bound():
    largest = np.finfo(np.float32).max
    plan = plan_for(spaces.Box(-largest, largest, (1,)))
    assert plan.decode(plan.encode_action(np.float32([2.0])))[0] == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_decoded_floats_stay_in_bounds_after_rounding(dtype):
    rng = np.random.default_rng(0)
    low = rng.normal(size=50).astype(dtype)
    high = (low + np.abs(rng.normal(size=50)) * 10.0 ** -rng.integers(0, 9, 50)).astype(dtype)
    space = spaces.Box(low, np.maximum(low, high), dtype=dtype)
    plan = plan_for(space)
    for token in (C, C + 511, C + 1023):
        action = plan.decode(np.full(50, token))
        assert action.dtype == dtype
        assert space.contains(action)


def test_equal_bounds_decode_to_the_bound():
    space = spaces.Box(np.float32([0.1]), np.float32([0.1]))
    plan = plan_for(space)
    assert plan.encode_action(np.float32([0.1])).tolist() == [C + 512]
    for token in (C, C + 1023):
        assert plan.decode([token]) == np.float32([0.1])


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 255, np.uint8),
        (-128, 127, np.int8),
        (-3, 3, np.int64),
        (0, 1023, np.int32),
        (2**62, 2**62 + 900, np.int64),
        (0, 1, np.bool_),
        (5, 5, np.int16),
    ],
)
def test_every_integer_of_a_small_box_round_trips(low, high, dtype):
    space = spaces.Box(low, high, (1,), dtype)
    plan = plan_for(space)
    values = (low + np.arange(high - low + 1)).astype(dtype)[:, None]
    decoded = plan.decode_batch(plan.encode_actions(values))
    assert decoded.dtype == dtype
    assert (decoded == values).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int64, np.uint64])
def test_integers_of_a_large_box_are_off_by_half_a_bin_at_most(dtype):
    info = np.iinfo(dtype)
    low, high = int(info.min) // 2, int(info.max) // 2
    space = spaces.Box(low, high, (3,), dtype)
    plan = plan_for(space)
    action = np.array([low, high, low + (high - low) // 3], dtype)
    decoded = plan.decode(plan.encode_action(action))
    assert space.contains(decoded)
    for got, expected in zip(decoded.tolist(), action.tolist(), strict=True):
        assert abs(got - expected) <= (high - low) / 2048 + 1


def test_unbounded_integers():
    space = spaces.Box(-np.inf, np.inf, (2,), np.int64)
    plan = plan_for(space)
    decoded = plan.decode(plan.encode_action(np.array([7, -(2**62)])))
    assert decoded.tolist() == [7, decoded[1]]
    assert -256 <= decoded[1] <= -250
    low_bounded = spaces.Box(2**40, np.inf, (1,), np.int64)
    assert plan_for(low_bounded).decode([C]).tolist() == [2**40]


def test_integers_of_another_dtype_are_clipped_not_wrapped():
    plan = plan_for(spaces.Box(0, 255, (2,), np.uint8))
    assert plan.decode(plan.encode_action(np.array([300, -1]))).tolist() == [255, 0]


def test_scalar_box():
    space = spaces.Box(-1, 1, ())
    plan = plan_for(space)
    assert plan.num_actions == 1
    action = plan.decode([C + 1023])
    assert isinstance(action, np.ndarray)
    assert action.shape == ()
    assert space.contains(action)
    assert plan.decode_batch([[C], [C + 1023]]).shape == (2,)


def test_box_is_row_major():
    plan = plan_for(spaces.Box(0, 5, (2, 3)))
    action = np.arange(6, dtype=np.float32).reshape(2, 3)
    tokens = plan.encode_action(action)
    assert (np.diff(tokens) > 0).all()
    assert plan.decode(tokens) == pytest.approx(action, abs=5 / 2048)


def test_discrete_start_is_removed():
    space = spaces.Discrete(4, start=-2)
    plan = plan_for(space)
    assert plan.action_ranges.tolist() == [[D, D + 4]]
    assert [int(plan.encode_action(a)[0]) for a in (-2, 1)] == [D, D + 3]
    action = plan.decode([D + 3])
    assert action == 1
    assert isinstance(action, np.int64)  # tables of transitions are indexed with it
    assert plan.decode_batch([[D], [D + 3]]).tolist() == [-2, 1]


def test_large_discrete_takes_two_digits_and_clips_to_the_last():
    space = spaces.Discrete(2000, start=5)
    plan = plan_for(space)
    assert plan.action_ranges.tolist() == [[D, D + 2], [D, D + 1024]]
    assert plan.encode_action(2004).tolist() == [D + 1, D + 975]
    assert plan.decode([D + 1, D + 975]) == 2004
    assert plan.decode([D + 1, D + 1023]) == 2004


def test_multidiscrete_of_two_axes_with_starts():
    space = spaces.MultiDiscrete([[2, 3], [4, 1025]], start=[[0, 10], [-4, 0]])
    plan = plan_for(space)
    assert plan.action_ranges.tolist() == [
        [D, D + 2],
        [D, D + 3],
        [D, D + 4],
        [D, D + 2],
        [D, D + 1024],
    ]
    action = np.array([[1, 12], [-4, 1024]])
    assert (plan.encode_action(action) - D).tolist() == [1, 2, 0, 1, 0]
    assert (plan.decode(plan.encode_action(action)) == action).all()


def test_multibinary_of_two_axes():
    space = spaces.MultiBinary((2, 2))
    plan = plan_for(space)
    action = plan.decode([D, D + 1, D + 1, D])
    assert action.tolist() == [[0, 1], [1, 0]]
    assert action.dtype == np.int8


def test_text_actions_end_with_the_end_symbol():
    space = spaces.Text(4, min_length=2, charset="cab")
    plan = plan_for(space)
    # characters sorted: a 0, b 1, c 2; the end symbol 3 is legal from the third position on
    assert plan.action_ranges.tolist() == [[D, D + 3]] * 2 + [[D, D + 4]] * 2
    assert (plan.encode_action("cab") - D).tolist() == [2, 0, 1, 3]
    assert plan.decode([D + 2, D, D + 1, D + 3]) == "cab"
    assert plan.decode([D + 2, D, D + 3, D + 1]) == "ca"
    assert plan.decode_batch([[D, D, D, D], [D + 1, D + 1, D + 3, D + 3]]) == ("aaaa", "bb")
    assert plan.encode_actions(("aaaa", "bb")).tolist() == [[D] * 4, [D + 1] * 2 + [D + 3] * 2]


def test_nested_actions_are_in_sorted_order():
    space = spaces.Dict(
        zoom=spaces.Discrete(3), arm=spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.MultiBinary(1)])
    )
    plan = plan_for(space)
    assert plan.action_is_continuous.tolist() == [True, True, False, False]
    action = plan.decode([C, C + 1023, D + 1, D + 2])
    assert space.contains(action)
    assert list(action) == ["arm", "zoom"]
    assert action["zoom"] == 2
    assert action["arm"][1].tolist() == [1]
    batch = plan.decode_batch([[C, C + 1023, D + 1, D + 2], [C, C, D, D]])
    assert batch["zoom"].tolist() == [2, 0]
    assert batch["arm"][0].shape == (2, 2)
    assert plan.encode_actions(batch).tolist() == [[C, C + 1023, D + 1, D + 2], [C, C, D, D]]
    assert [field.path for field in plan.fields if field.kind == "action"] == [
        "arm/0",
        "arm/1",
        "zoom",
    ]


def test_mask_holds_the_legal_ids_alone():
    plan = plan_for(spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (1,))]))
    mask = plan.action_mask()
    assert mask.shape == (2, 34049)
    assert np.flatnonzero(mask[0]).tolist() == [D, D + 1, D + 2]
    assert np.flatnonzero(mask[1]).tolist() == list(range(C, C + 1024))


def test_paper_vocabulary_moves_discrete_ids():
    plan = plan_for(spaces.Discrete(3), vocabulary=Vocabulary.paper())
    assert plan.action_ranges.tolist() == [[0, 3]]
    assert plan.action_mask().shape == (1, 33025)


@pytest.mark.parametrize("token", [0, D - 1, D + 4, 34048])
def test_decode_refuses_tokens_outside_the_range(token):
    with pytest.raises(ValueError, match=rf"token {token} at position 0 .* \[33024, 33028\)"):
        plan_for(spaces.Discrete(4)).decode([token])


@pytest.mark.parametrize("tokens", [[], [D, D], [[D]], [33024.0]])
def test_decode_refuses_other_shapes_and_floats(tokens):
    with pytest.raises(ValueError, match="expected ints, 1 for each action"):
        plan_for(spaces.Discrete(4)).decode(tokens)


def test_encode_names_what_is_no_member():
    with pytest.raises(ValueError, match=r"action '' is 4 at flat index 0 of row 0: .*\[0, 3\]"):
        plan_for(spaces.Discrete(4)).encode_action(4)
    nested = spaces.Dict(a=spaces.Box(-1, 1, (3,)), b=spaces.Text(3, charset="xy"))
    plan = plan_for(nested)
    with pytest.raises(ValueError, match=r"action 'a' is NaN at index \(1,\) of row 0"):
        plan.encode_action({"a": np.float32([0, np.nan, 0]), "b": "x"})
    with pytest.raises(ValueError, match="action 'b' is 'xz': expected a member of Text"):
        plan.encode_action({"a": np.zeros(3, np.float32), "b": "xz"})
    with pytest.raises(ValueError, match="without 'b'"):
        plan.encode_action({"a": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"action 'a' has shape \(1, 2\): expected \(1, 3\)"):
        plan.encode_action({"a": np.zeros(2, np.float32), "b": "x"})


class Unheard(gym.Space):
    """Of no kind that has tokens."""


def test_an_unknown_space_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"'a' is a Unheard .*expected Box, .*TransformAction"):
        plan_for(spaces.Dict(a=Unheard()))


def test_sequence_by_hand():
    plan = plan_for(spaces.Sequence(spaces.Discrete(5, start=-2)), options=room_for(3))
    assert plan.action_ranges.tolist() == [[D, D + 4], *[[D, D + 5]] * 3]
    assert plan.encode_action((np.int64(0), np.int64(2))).tolist() == [D + 2, D + 2, D + 4, D]
    assert plan.encode_action(()).tolist() == [D, D, D, D]
    assert plan.decode([D + 2, D + 2, D + 4, D + 1]) == (0, 2)
    with pytest.raises(ValueError, match=r"has 4 elements in row 0: expected at most 3; .*=4\)"):
        plan.encode_action((np.int64(0),) * 4)


def test_stacked_sequence_by_hand():
    space = spaces.Sequence(spaces.Box(-1, 1, (2,)), stack=True)
    plan = plan_for(space, options=room_for(2))
    assert plan.action_is_continuous.tolist() == [False, True, True, True, True]
    tokens = plan.encode_action(np.float32([[-1, 1]]))
    assert tokens.tolist() == [D + 1, C, C + 1023, C, C]
    decoded = plan.decode(tokens)
    assert decoded.shape == (1, 2)
    assert space.contains(decoded)


def test_graph_by_hand():
    space = spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))
    plan = plan_for(space, options=room_for(2))
    length, node = [D, D + 3], [[C, C + 1024]] * 2
    edge = [[D, D + 3], [D, D + 2], [D, D + 2]]
    assert plan.action_ranges.tolist() == [length, *node * 2, length, *edge * 2]
    nodes = np.float32([[-1, 1], [1, -1]])
    graph = spaces.GraphInstance(nodes, np.array([2]), np.array([[1, 0]]))
    tokens = plan.encode_action(graph)
    assert tokens.tolist() == [
        D + 2, C, C + 1023, C + 1023, C, D + 1, D + 2, D + 1, D, D, D, D,
    ]  # fmt: skip
    back = plan.decode(tokens)
    assert space.contains(back)
    np.testing.assert_allclose(back.nodes, nodes, atol=1 / 1024)
    assert (back.edges.tolist(), back.edge_links.tolist()) == ([2], [[1, 0]])
    one_node = plan.decode([D + 1, *tokens[1:]])
    assert space.contains(one_node)
    assert one_node.edges is one_node.edge_links is None, "it linked a node that is not there"
    alone = spaces.GraphInstance(nodes[:1], None, None)
    assert plan.encode_action(alone)[[0, 5]].tolist() == [D + 1, D]
    with pytest.raises(ValueError, match=r"'nodes' has 3 elements in row 0: expected at most 2"):
        plan.encode_action(spaces.GraphInstance(np.zeros((3, 2), np.float32), None, None))
    with pytest.raises(
        ValueError, match=r"links \[\[0, 2\]\] in row 0: expected nodes in \[0, 2\)"
    ):
        plan.encode_action(graph._replace(edge_links=np.array([[0, 2]])))


def test_one_of_by_hand():
    space = spaces.OneOf([spaces.Discrete(3), spaces.Dict(a=spaces.Box(0, 1, (1,)))])
    plan = plan_for(space)
    assert plan.action_ranges.tolist() == [[D, D + 2], [D, D + 3], [C, C + 1024]]
    assert plan.encode_action((np.int64(0), np.int64(2))).tolist() == [D, D + 2, C]
    assert plan.encode_action((np.int64(1), {"a": np.float32([1])})).tolist() == [
        D + 1, D, C + 1023,
    ]  # fmt: skip
    index, value = plan.decode([D + 1, D + 2, C + 1023])
    assert index == 1
    assert value["a"] == pytest.approx(1 - 1 / 2048)
    with pytest.raises(ValueError, match=r"of branch 2 in row 0: expected \[0, 2\)"):
        plan.encode_action((np.int64(2), np.int64(0)))


def test_room_for_more_elements_than_ids_is_refused():
    with pytest.raises(ValueError, match="sequence_length is 1024: expected less than 1024"):
        plan_for(spaces.Sequence(spaces.Discrete(2)), options=room_for(1024))


def room_for(elements):
    return PlanOptions(sequence_length=elements)


@pytest.mark.parametrize("space", [spaces.Dict(), spaces.Box(0, 1, (0,)), spaces.Tuple([])])
def test_an_action_space_without_choices_is_refused(space):
    with pytest.raises(ValueError, match="nothing to choose"):
        plan_for(space)


def test_actions_do_not_depend_on_the_layout():
    space = spaces.Box(-1, 1, (3,))
    tokens = np.array([C + 3, C + 500, C + 1000])
    paper = plan_for(space, options=PlanOptions(layout="paper"))
    assert (paper.decode(tokens) == plan_for(space).decode(tokens)).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8, np.uint8])
def test_the_extremes_of_integers(dtype):
    info = np.iinfo(dtype)
    space = spaces.Box(info.min, info.max, (2,), dtype)
    plan = plan_for(space)
    extremes = np.array([info.min, info.max], dtype)
    ids = plan.encode_action(extremes)
    assert (ids - C).tolist() == [0, 1023]
    decoded = plan.decode(ids)
    assert space.contains(decoded)
    half_bin = (int(info.max) - int(info.min)) / 2048
    for got, expected in zip(decoded.tolist(), extremes.tolist(), strict=True):
        assert abs(got - expected) <= half_bin * 1.0001 + 0.5
