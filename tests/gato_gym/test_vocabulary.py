import dataclasses
import json

import pytest

from gato_gym.vocabulary import Vocabulary


def test_default_ranges_are_disjoint_and_adjacent():
    vocabulary = Vocabulary()
    ids = [*vocabulary.text, *vocabulary.continuous, *vocabulary.discrete, vocabulary.separator]
    assert ids == list(range(34049))
    assert vocabulary.size == 34049


def test_paper_ranges_are_those_published():
    vocabulary = Vocabulary.paper()
    assert (vocabulary.continuous.start, vocabulary.continuous.stop) == (32000, 33024)
    assert (vocabulary.discrete.start, vocabulary.discrete.stop) == (0, 1024)
    assert vocabulary.separator == 33024
    assert vocabulary.size == 33025


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (0, "text 0"),
        (31999, "text 31999"),
        (32000, "continuous 0"),
        (33023, "continuous 1023"),
        (33024, "discrete 0"),
        (34047, "discrete 1023"),
        (34048, "separator"),
    ],
)
def test_name_at_each_range_edge(token, name):
    assert Vocabulary().name(token) == name


@pytest.mark.parametrize("token", [-1, 34049])
def test_name_refuses_ids_without_meaning(token):
    with pytest.raises(ValueError, match=rf"token {token} has no meaning"):
        Vocabulary().name(token)


@pytest.mark.parametrize("vocabulary", [Vocabulary(), Vocabulary.paper()])
def test_json_round_trip(vocabulary):
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


@pytest.mark.parametrize(
    "change", [{"separator": "34048"}, {"separator": True}, {"separator": 1.5}, {"extra": 3}]
)
def test_json_of_another_shape_is_refused(change):
    with pytest.raises(ValueError, match=r"expected (a whole number|one int for each)"):
        Vocabulary.from_json(Vocabulary().to_json() | change)


def test_json_with_a_missing_entry_is_refused():
    values = Vocabulary().to_json()
    del values["text_stop"]
    with pytest.raises(ValueError, match="expected one int for each"):
        Vocabulary.from_json(values)


@pytest.mark.parametrize("ids", [range(5, 5), range(0, 10, 2), range(-3, 9), (0, 10)])
def test_odd_ranges_are_refused(ids):
    with pytest.raises(ValueError, match=r"Vocabulary\.discrete"):
        Vocabulary(discrete=ids)


def test_a_separator_inside_a_range_is_refused():
    with pytest.raises(ValueError, match="separator is 32000"):
        Vocabulary(separator=32000)


def test_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Vocabulary().separator = 3
    assert len({Vocabulary(), Vocabulary(), Vocabulary.paper()}) == 2
