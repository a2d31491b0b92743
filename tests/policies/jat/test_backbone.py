"""GPT-Neo's blocks equal those of ``transformers``; cached steps equal whole sequences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policies.jat.backbone import Backbone
from policies.jat.cache import TokenCache
from policies.jat.config import JatConfig

SMALL = JatConfig(
    hidden_size=24, num_layers=4, num_heads=3, vocab_size=50, eos_token_id=0,
    max_continuous_size=8, max_discrete_value=6, image_size=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    network = Backbone(SMALL)
    for parameter in network.parameters():  # large enough that a wrong mask or scale shows
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval().requires_grad_(False)


def reference(backbone: Backbone, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """What GPT-Neo of the package transformers computes with the same weights."""
    from transformers import GPTNeoConfig, GPTNeoModel

    config = backbone.config
    model = GPTNeoModel(
        GPTNeoConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            attention_types=[[["global", "local"], config.num_layers // 2]],
            window_size=config.window_size,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    model.load_state_dict(backbone.state_dict(), strict=True)
    with torch.no_grad():
        return model(inputs_embeds=x_BTD, attention_mask=mask_BT).last_hidden_state


def test_equals_gpt_neo_past_the_local_window(backbone: Backbone) -> None:
    x = torch.randn(2, 400, SMALL.hidden_size)
    expected = reference(backbone, x)
    torch.testing.assert_close(backbone(x), expected, atol=1e-5, rtol=1e-5)
    wider = Backbone(replace(SMALL, window_size=300)).eval()
    wider.load_state_dict(backbone.state_dict())
    assert not torch.allclose(wider(x), expected, atol=1e-3), "the window would not show"


def test_equals_gpt_neo_with_padding(backbone: Backbone) -> None:
    x = torch.randn(2, 12, SMALL.hidden_size)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    expected = reference(backbone, x, mask.long())
    torch.testing.assert_close(backbone(x, mask)[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_more_tokens_than_positions_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="sequences have 513 tokens: expected at most 512"):
        backbone(torch.zeros(1, 513, SMALL.hidden_size))


def test_steps_equal_whole_sequences(backbone: Backbone) -> None:
    """One or two tokens at a time, rows of different ages, past the local window."""
    x = torch.randn(2, 300, SMALL.hidden_size)
    expected = backbone(x)
    cache = TokenCache.empty(SMALL, rows=2, slots=512, like=x)
    first = torch.zeros(2, dtype=torch.long)
    late = torch.full((1, 2), -1)  # the second row begins 10 steps later
    for start in range(0, 300 + 20, 2):
        mine = torch.tensor([[start, start + 1]]) if start < 300 else late
        other = torch.tensor([[start - 20, start - 19]]) if start >= 20 else late
        orders = torch.cat([mine, other])
        chosen = torch.stack([x[row, orders[row].clamp(min=0)] for row in range(2)])
        hidden = backbone.step(chosen, orders, orders.clamp(min=0), cache, first, wanted=2)
        for row in range(2):
            if orders[row, 0] >= 0:
                whole = expected[row, orders[row]]
                torch.testing.assert_close(hidden[row], whole, atol=1e-5, rtol=1e-5)


def test_a_rows_numbers_are_its_own(backbone: Backbone) -> None:
    """Bit for bit, whatever the batch."""
    x = torch.randn(5, 8, SMALL.hidden_size)
    everyone = _stepped(backbone, x)
    for rows in ([3], [0, 4], [1, 2, 3, 4]):
        assert torch.equal(_stepped(backbone, x[rows]), everyone[rows])


def _stepped(backbone: Backbone, x: Tensor) -> Tensor:
    cache = TokenCache.empty(SMALL, rows=len(x), slots=16, like=x)
    first, hidden = torch.zeros(len(x), dtype=torch.long), []
    for start in range(0, x.shape[1], 2):
        orders = torch.tensor([[start, start + 1]]).expand(len(x), 2)
        hidden.append(backbone.step(x[:, start : start + 2], orders, orders, cache, first))
    return torch.cat(hidden, 1)
