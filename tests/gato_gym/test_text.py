import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gato_gym.text import TextTokenizer, default_tokenizer


@given(st.text(max_size=200))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_unicode_string_round_trips(text):
    tokenizer = default_tokenizer()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ((ids >= 0) & (ids < 32000)).all()
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  spaces  ",
        "\n\t\r\n",
        "\x00",
        "▁",
        "a▁▁ b▁",
        "▁\ue000\ue001▁",
        "<s></s><unk>",
        "<0x41>",
        "ﬁ ① Å",
        "e\u0301",
        "\ufeffx",
        "日本語 👩‍👩‍👧 \U0010ffff",
    ],
)
def test_strings_that_normalisers_change_round_trip(text):
    tokenizer = default_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_has_32000_pieces():
    assert len(default_tokenizer()) == 32000


def test_instructions_are_short():
    assert len(default_tokenizer().encode("go to the red ball")) <= 8


def test_cached_ids_are_shared_and_read_only():
    tokenizer = default_tokenizer()
    first = tokenizer.encode_cached("pick up the grey key")
    assert tokenizer.encode_cached("pick up the grey key") is first
    assert first.tolist() == tokenizer.encode("pick up the grey key").tolist()
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 3


def test_a_lone_surrogate_is_refused():
    with pytest.raises(ValueError, match="lone surrogate at index 2"):
        default_tokenizer().encode("ab\ud800")


@pytest.mark.parametrize("token", [-1, 32000])
def test_ids_without_a_piece_are_refused(token):
    with pytest.raises(ValueError, match=f"text id {token} is outside"):
        default_tokenizer().decode([5, token])


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ValueError, match="7 bytes are not a SentencePiece model"):
        TextTokenizer(b"\xffgarbag")


def test_travels_between_processes():
    copy = pickle.loads(pickle.dumps(default_tokenizer()))
    assert (
        copy.encode("open the door").tolist()
        == default_tokenizer().encode("open the door").tolist()
    )
