import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gato_gym.plans.codecs import Digits, decode_uniform, encode_uniform, inverse_mu_law, mu_law

deterministic = settings(derandomize=True, deadline=None, max_examples=100)


@pytest.mark.parametrize("x", [0.0, 0.01, 1.0, -1.0, 3.5, -17.25, 255.9])
def test_mu_law_is_the_published_formula(x):
    expected = math.copysign(math.log(abs(x) * 100 + 1) / math.log(256 * 100 + 1), x)
    assert mu_law(x) == pytest.approx(expected, abs=1e-15)


def test_mu_law_of_one_by_hand():
    # ln 101 = 4.615120517; ln 25601 = 4 ln 10 + ln 2.5601 = 10.150386
    assert float(mu_law(1.0)) == pytest.approx(4.615120517 / 10.150386, rel=1e-6)


@pytest.mark.parametrize("x", [256.0, 1e9, 3.4e38, 1.7e308, math.inf])
def test_mu_law_clips_to_one(x):
    assert mu_law([x, -x]).tolist() == [1.0, -1.0]


def test_mu_law_leaves_nan_and_takes_integers():
    assert math.isnan(mu_law(math.nan))
    assert mu_law(np.array([-128, 0], np.int8)).tolist() == [mu_law(-128.0), 0.0]


@given(st.floats(-256, 256))
@deterministic
def test_inverse_mu_law_inverts(x):
    assert float(inverse_mu_law(mu_law(x))) == pytest.approx(x, rel=1e-9, abs=1e-9)


def test_inverse_mu_law_clips():
    assert inverse_mu_law([2.0, -2.0]).tolist() == pytest.approx([256.0, -256.0])


@pytest.mark.parametrize("bins", [2, 3, 7, 256, 1000, 1024])
def test_edges_fall_into_the_first_and_last_bin(bins):
    below, above = np.nextafter(-1.0, -2), np.nextafter(1.0, 2)
    got = encode_uniform([-math.inf, -5.0, below, -1.0, 1.0, above, 5.0, math.inf], bins)
    assert got.tolist() == [0] * 4 + [bins - 1] * 4


def test_neighbours_of_every_inner_edge():
    edges = np.arange(1, 1024) / 512 - 1  # exact in binary
    assert encode_uniform(edges).tolist() == list(range(1, 1024))
    assert encode_uniform(np.nextafter(edges, -2)).tolist() == list(range(1023))


def test_zero_belongs_to_the_upper_half():
    assert encode_uniform([0.0, -0.0, -1e-9]).tolist() == [512, 512, 511]


def test_decode_gives_centres_not_edges():
    assert decode_uniform([0, 511, 512, 1023]).tolist() == [
        -1 + 1 / 1024,
        -1 / 1024,
        1 / 1024,
        1 - 1 / 1024,
    ]


@pytest.mark.parametrize("bins", [2, 3, 7, 256, 1000, 1024])
def test_every_bin_encodes_its_own_centre(bins):
    assert encode_uniform(decode_uniform(np.arange(bins), bins), bins).tolist() == list(range(bins))


@given(st.floats(-1, 1), st.integers(2, 4096))
@deterministic
def test_error_is_at_most_half_a_bin(x, bins):
    assert abs(float(decode_uniform(encode_uniform(x, bins), bins)) - x) <= 1 / bins + 1e-12


def test_nan_is_refused_by_index():
    with pytest.raises(ValueError, match=r"index \(1, 0\) is NaN"):
        encode_uniform([[0.0, 0.1], [math.nan, 0.2]])


@pytest.mark.parametrize("index", [-1, 1024])
def test_decode_refuses_an_index_that_is_no_bin(index):
    with pytest.raises(ValueError, match=r"expected all in \[0, 1024\)"):
        decode_uniform([0, index])


def test_shapes_are_kept():
    assert encode_uniform(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert decode_uniform(np.zeros((), int)).shape == ()


@pytest.mark.parametrize(
    ("count", "ranges", "number", "spelling"),
    [
        (1, [1], 0, [0]),
        (1024, [1024], 1023, [1023]),
        (1025, [2, 1024], 1024, [1, 0]),
        (3000, [3, 1024], 2999, [2, 951]),
        (1024**2, [1024, 1024], 1024**2 - 1, [1023, 1023]),
        (1024**2 + 1, [2, 1024, 1024], 1024**2, [1, 0, 0]),
        (2**63 - 1, [8] + [1024] * 6, 2**63 - 2, [7] + [1023] * 5 + [1022]),
    ],
)
def test_digits_by_hand(count, ranges, number, spelling):
    digits = Digits([count], 1024)
    assert digits.ranges.tolist() == ranges
    assert digits.encode([[number]]).tolist() == [spelling]
    assert digits.decode([spelling]).tolist() == [[number]]
    assert digits.decode([[r - 1 for r in ranges]]).tolist() == [[count - 1]]


@given(st.lists(st.tuples(st.integers(1, 2**62), st.floats(0, 1)), max_size=5), st.integers(2, 50))
@deterministic
def test_digits_round_trip(pairs, base):
    counts = [count for count, _ in pairs]
    numbers = [min(int(part * count), count - 1) for count, part in pairs]
    digits = Digits(counts, base)
    spelt = digits.encode(np.array([numbers], np.int64))
    assert (spelt >= 0).all()
    assert (spelt < digits.ranges).all()
    assert digits.decode(spelt).tolist() == [numbers]


@pytest.mark.parametrize("bins", [1024, 2, 1000])
def test_single_precision_has_the_bins_of_double(bins):
    edges = (np.arange(bins + 1) * 2 / bins - 1).astype(np.float32)
    tiny = np.float32([1e-45, -1e-45, 1e-38, -0.0, np.inf, -np.inf, 3e38])
    around = [np.nextafter(edges, np.float32(side)) for side in (-2, 2)]
    numbers = np.concatenate([edges, *around, tiny])
    before = numbers.copy()
    assert (encode_uniform(numbers, bins) == encode_uniform(numbers.astype(float), bins)).all()
    assert (numbers == before).all()
    assert encode_uniform(np.float32([1e-45, -1e-45]), 1024).tolist() == [512, 511]


def test_one_number_has_a_bin_of_no_axes():
    assert encode_uniform(np.float32(1.0)).shape == ()
    assert encode_uniform(-1.0) == 0


def test_mu_law_takes_the_largest_numbers_and_keeps_every_sign():
    largest = np.finfo(np.float64).max
    numbers = np.array([largest, -largest, math.inf, -math.inf, 0.0, -0.0])
    assert mu_law(numbers).tolist() == [1.0, -1.0, 1.0, -1.0, 0.0, 0.0]
    assert mu_law(np.float64(-largest)).shape == ()
