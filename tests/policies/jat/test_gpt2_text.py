"""GPT-2's text tokens equal those of the package ``tokenizers``, with the same files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from policies.jat.gpt2_text import Gpt2Tokenizer

CORPUS = [
    "go to the red ball", "pick up a grey key behind you", "open the door, then go back",
    "I'll put 12 boxes next to it's neighbour", "don't  wait\n\nthere  ", "naïve café 10²½ 日本語",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    """A tokenizer of GPT-2's kind, with merges learned from a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=456, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def ours(reference: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Gpt2Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    reference.save(str(folder / "tokenizer.json"))
    tokenizer = Gpt2Tokenizer.read(folder)
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize(
    "text", [*CORPUS, "", " ", "a \t b", "x\x1cy \x85z", "'s 'S", "e\u0301 _1"]
)
def test_texts(reference: Tokenizer, ours: Gpt2Tokenizer, text: str) -> None:
    assert ours.encode(text) == reference.encode(text).ids


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_text(reference: Tokenizer, ours: Gpt2Tokenizer, text: str) -> None:
    assert ours.encode(text) == reference.encode(text).ids


def test_the_two_files_are_as_good(
    reference: Tokenizer, ours: Gpt2Tokenizer, tmp_path: Path
) -> None:
    reference.model.save(str(tmp_path))
    both = Gpt2Tokenizer.read(tmp_path)
    assert both is not None
    assert len(both.merges) > 50
    assert (both.vocabulary, both.merges) == (ours.vocabulary, ours.merges)
    assert pickle.loads(pickle.dumps(both)).encode(CORPUS[0]) == ours.encode(CORPUS[0])


def test_bytes_have_gpt_2s_ids() -> None:
    """GPT-2's first ids: "!" is 0, "a" is 64, a blank is 220 and a line's end 198."""
    assert Gpt2Tokenizer.of_bytes().encode("!a \n") == [0, 64, 220, 198]


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    assert Gpt2Tokenizer.read(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"vocab": {"a": 0}, "merges": []}}, "the vocabulary has no piece"),
        ({"model": {"vocab": {"a": "0"}, "merges": []}}, "expected a whole number"),
        ({"model": None}, "model is None"),
        ({"model": {"vocab": {}, "merges": ["a b c"]}}, "merges has .* expected two pieces"),
    ],
)
def test_files_that_are_refused(content: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Gpt2Tokenizer.read(tmp_path)
