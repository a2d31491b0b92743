"""The packaged text model and the script that trains it."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from gato_gym.text import default_tokenizer

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "gato_gym" / "assets"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
AWKWARD = st.sampled_from(
    [
        "\u2581",
        " ",
        "\n",
        "\t",
        "\0",
        "\r\n",
        "<unk>",
        "<0x41>",
        "\u2585",
        "\ufeff",
        "🎮",
        "e\u0301",
    ]
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "train_text_model", ROOT / "scripts" / "train_text_model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def processor() -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(ASSETS / "text.model"))


def test_pieces(processor: SentencePieceProcessor) -> None:
    assert processor.vocab_size() == 32_000
    assert processor.piece_to_id("<unk>") == 0
    assert processor.id_to_piece([1, 2, 256]) == ["<0x00>", "<0x01>", "<0xFF>"]


def test_the_card_describes_this_file() -> None:
    model = (ASSETS / "text.model").read_bytes()
    card = (ASSETS / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(model).hexdigest() in card
    assert f"{len(model):,} bytes" in card
    assert len(model) < 2**20


def test_the_card_and_the_licences_name_every_source(script: ModuleType) -> None:
    card = (ASSETS / "README.md").read_text(encoding="utf-8").replace("-", "_")
    assert script.__doc__ is not None
    for source in script.SOURCES:
        assert source in card
        assert source in script.__doc__


@pytest.mark.parametrize(
    "mission",
    [
        "put the red ball next to the purple box on your left, then open a grey door behind you",
        "pick up a yellow key in front of you after you go to the blue object and the green door",
        "go to a box on your right then put the red key next to the door",
    ],
)
def test_every_mission_word_is_one_piece(processor: SentencePieceProcessor, mission: str) -> None:
    pieces = processor.encode(mission, out_type=str)
    assert [piece for piece in pieces if piece != ","] == [
        f"\u2581{word}" for word in mission.replace(",", "").split(" ")
    ]


@given(TEXTS)
def test_any_text_comes_back(text: str) -> None:
    tokenizer = default_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(AWKWARD | TEXTS).map("".join))
def test_awkward_text_comes_back(text: str) -> None:
    tokenizer = default_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_same_text_gives_the_same_model(script: ModuleType) -> None:
    lines = [*script.missions(500), *script.task_names()]
    first, second = (script.train(lines, vocabulary_size=800) for _ in range(2))
    assert first == second
    assert SentencePieceProcessor(model_proto=first).vocab_size() == 800


def test_missions_hold_every_word_of_the_grammar(script: ModuleType) -> None:
    words = {word for mission in script.missions(500) for word in mission.replace(",", "").split()}
    grammar = "go to pick up open put next then after you and the a on your left right in front of"
    assert words == {*grammar.split(), "behind", *script.COLORS, *script.OBJECTS}
