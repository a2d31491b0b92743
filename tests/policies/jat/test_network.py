"""Encoders, decoders and losses equal references written with PyTorch's plain parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from policies.jat.config import JatConfig
from policies.jat.network import EpisodeBatch, JatNetwork, TextBatch

SMALL = JatConfig(
    hidden_size=60, num_layers=2, num_heads=2, vocab_size=300, eos_token_id=299,
    max_continuous_size=9, max_discrete_value=7, image_size=32, max_position_embeddings=64,
)  # fmt: skip
"""Of 60 numbers, so that a discrete observation keeps one of each symbol."""


@pytest.fixture(scope="module")
def network() -> JatNetwork:
    torch.manual_seed(0)
    network = JatNetwork(SMALL).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(False)


def weight(network: JatNetwork, name: str) -> Tensor:
    return network.state_dict()[name]


def test_the_published_sizes() -> None:
    """192,701,771 parameters, counted by hand from the facts' shapes and not from a file."""
    with torch.device("meta"):
        network = JatNetwork(JatConfig())
    assert sum(p.numel() for p in network.parameters()) == 192_701_771
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    expected = {
        "transformer.wte.weight": (50257, 768),
        "transformer.wpe.weight": (512, 768),
        "transformer.h.11.attn.attention.q_proj.weight": (768, 768),
        "transformer.h.11.attn.attention.out_proj.bias": (768,),
        "transformer.h.0.mlp.c_fc.weight": (3072, 768),
        "vit_encoder.projection.weight": (768, 3, 16, 16),
        "continuous_encoder.weight": (768, 377),
        "multi_discrete_encoder.1.weight": (15, 768),
        "multi_discrete_encoder.4.weight": (767, 3180),
        "image_encoder.module.att3.fc.2.weight": (128, 16),
        "image_encoder.module.fc.weight": (768, 15488),
        "single_discrete_decoder.weight": (50257, 768),
        "multi_discrete_decoder.5.weight": (8, 768),
        "image_decoder.module.deconv3.weight": (32, 4, 3, 3),
    }
    assert {name: shapes[name] for name in expected} == expected
    assert len(shapes) == 3 + 12 * 13 + 1 + 2 + 2 + 4 + 14 + 1 + 2 + 5 + 12


def test_vectors_are_repeated_cyclically(network: JatNetwork) -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    repeated = torch.tensor([[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0]])
    expected = repeated @ weight(network, "continuous_encoder.weight").T
    expected += weight(network, "continuous_encoder.bias")
    torch.testing.assert_close(network.embed_numbers(values), expected)
    with pytest.raises(ValueError, match="a vector has 10 numbers: expected 1 to 9"):
        network.embed_numbers(torch.zeros(10))


def test_discrete_observations(network: JatNetwork) -> None:
    symbols = torch.tensor([[0, 5, 299, 5, 1, 2, 3]])
    rows = []
    for symbol in symbols[0]:
        row = weight(network, "transformer.wte.weight")[symbol]
        row = weight(network, "multi_discrete_encoder.1.weight") @ row
        rows.append((row + weight(network, "multi_discrete_encoder.1.bias")).clamp(min=0))
    joined = weight(network, "multi_discrete_encoder.4.weight") @ torch.cat(rows)
    joined += weight(network, "multi_discrete_encoder.4.bias")
    expected = torch.cat([joined, torch.tensor([0.25])])[None]
    torch.testing.assert_close(network.embed_symbols(symbols, torch.tensor([0.25])), expected)
    with pytest.raises(ValueError, match="has 3 symbols: expected 7"):
        network.embed_symbols(symbols[:, :3], torch.tensor([0.25]))


def test_many_symbols_are_looked_up_in_a_reduced_table(network: JatNetwork) -> None:
    symbols, rewards = torch.randint(0, 300, (50, 7)), torch.randn(50)
    with torch.enable_grad():
        many = network.embed_symbols(symbols, rewards)
    with torch.no_grad():
        torch.testing.assert_close(many, network.embed_symbols(symbols, rewards))


def excited(x: Tensor, network: JatNetwork, name: str) -> Tensor:
    squeezed = x.mean(dim=(2, 3)) @ weight(network, f"{name}.fc.0.weight").T
    factors = squeezed.clamp(min=0) @ weight(network, f"{name}.fc.2.weight").T
    return x * (1 / (1 + (-factors).exp()))[:, :, None, None]


def normalised(x: Tensor) -> Tensor:
    """Zero mean and unit variance of each image's channel, then leaky ReLU of slope 0.01."""
    centred = x - x.mean((2, 3), keepdim=True)
    x = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    return torch.where(x > 0, x, 0.01 * x)


def convolved(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution of stride 2, as a product with unfolded patches."""
    columns = nn.functional.unfold(x, 3, padding=1, stride=2)
    side = (x.shape[-1] + 1) // 2
    return (kernel.flatten(1) @ columns + bias[:, None]).unflatten(2, (side, side))


def deconvolved(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Its transpose to twice the side: each pixel adds its kernel to a padded canvas."""
    side = 2 * x.shape[-1]
    canvas = x.new_zeros(len(x), kernel.shape[1], side + 1, side + 1)
    for row in range(3):
        for column in range(3):
            part = torch.einsum("nchw,cd->ndhw", x, kernel[:, :, row, column])
            canvas[:, :, row : row + side - 1 : 2, column : column + side - 1 : 2] += part
    return canvas[:, :, 1:, 1:] + bias[:, None, None]


def test_image_encoder(network: JatNetwork) -> None:
    x = torch.rand(2, 4, 84, 84) * 2 - 1
    expected = x
    for layer in "123":
        name = "image_encoder.module"
        kernel = weight(network, f"{name}.conv{layer}.weight")
        expected = convolved(expected, kernel, weight(network, f"{name}.conv{layer}.bias"))
        expected = excited(normalised(expected), network, f"{name}.att{layer}")
    assert expected.shape == (2, 128, 11, 11)
    expected = expected.flatten(1) @ weight(network, "image_encoder.module.fc.weight").T
    expected += weight(network, "image_encoder.module.fc.bias")
    torch.testing.assert_close(network.embed_images(x), expected, atol=1e-3, rtol=1e-4)


def test_image_decoder(network: JatNetwork) -> None:
    hidden, name = torch.randn(2, SMALL.hidden_size), "image_decoder.module"
    x = hidden @ weight(network, f"{name}.fc.weight").T + weight(network, f"{name}.fc.bias")
    x = x.reshape(2, 128, 11, 11)
    for layer in "123":
        kernel = weight(network, f"{name}.deconv{layer}.weight")
        x = deconvolved(x, kernel, weight(network, f"{name}.deconv{layer}.bias"))
        if layer == "1":
            x = normalised(x)
            nearest = (torch.arange(21) * 22) // 21  # 22 x 22 to 21 x 21
            x = excited(x[:, :, nearest][..., nearest], network, f"{name}.att1")
        elif layer == "2":
            x = excited(normalised(x), network, f"{name}.att2")
    assert x.shape == (2, 4, 84, 84)
    decoded = network.image_decoder["module"](hidden)
    torch.testing.assert_close(decoded, x.tanh(), atol=1e-4, rtol=1e-4)


def test_captions_patches_come_first(network: JatNetwork) -> None:
    image, ids = torch.rand(1, 3, 32, 32), torch.tensor([[4, 7, 1]])
    kernel = weight(network, "vit_encoder.projection.weight")
    bias = weight(network, "vit_encoder.projection.bias")
    patches = [
        (kernel * image[0, :, row : row + 16, column : column + 16]).sum((1, 2, 3)) + bias
        for row in (0, 16)
        for column in (0, 16)
    ]
    tokens = torch.cat([torch.stack(patches), weight(network, "transformer.wte.weight")[ids[0]]])
    hidden = network.transformer(tokens[None])[0, 4:]
    expected = hidden @ weight(network, "single_discrete_decoder.weight").T
    logits = network.text_logits(TextBatch(ids, image))[0]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    shares = logits.softmax(-1)
    loss = -(shares[0, 7].log() + shares[1, 1].log()) / 2
    torch.testing.assert_close(network.text_loss(TextBatch(ids, image)), loss)


def interleaved(observations: Tensor, actions: Tensor) -> Tensor:
    steps = observations.shape[1]
    return torch.stack(
        [x for t in range(steps) for x in (observations[:, t], actions[:, t])], dim=1
    )


def test_losses_of_vectors(network: JatNetwork) -> None:
    """κ times the observations', 0.995 of the actions', with weights and padding."""
    generator = torch.Generator().manual_seed(3)
    observations = torch.randn(2, 5, 4, generator=generator)
    actions = torch.randn(2, 5, 2, generator=generator)
    rewards = torch.randn(2, 5, generator=generator)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    weights = torch.rand(2, 5, generator=generator)
    rewarded = torch.cat([observations, rewards[..., None]], -1)
    rewarded = torch.cat([rewarded, rewarded], -1)[..., :9]
    repeated = torch.cat([actions] * 5, -1)[..., :9]
    tokens = interleaved(network.continuous_encoder(rewarded), network.continuous_encoder(repeated))
    hidden = network.transformer(tokens, mask.repeat_interleave(2, 1))
    decoded = network.continuous_decoder(hidden)
    action = observation = 0.0
    for row, length in ((0, 5), (1, 3)):
        for t in range(length):
            error = (decoded[row, 2 * t] - repeated[row, t]).square().mean()
            action += float(weights[row, t] * error) / 8
            if t:
                error = (decoded[row, 2 * t - 1] - rewarded[row, t]).square().mean()
                observation += float(weights[row, t] * error) / 6
    batch = EpisodeBatch(
        rewards, continuous_observations=observations, continuous_actions=actions, mask=mask,
        weights=weights,
    )  # fmt: skip
    losses = network.losses(batch)
    assert float(losses.action) == pytest.approx(action, rel=1e-4)
    assert float(losses.observation) == pytest.approx(observation, rel=1e-4)
    assert float(losses.total) == pytest.approx(0.005 * observation + 0.995 * action, rel=1e-4)


def test_losses_of_choices_and_images(network: JatNetwork) -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(1, 3, 4, 84, 84, generator=generator) * 2 - 1
    actions = torch.tensor([[3, 0, 5]])
    table = weight(network, "transformer.wte.weight")
    tokens = interleaved(network.embed_images(images), table[actions])
    hidden = network.transformer(tokens)
    logits = hidden[:, ::2] @ weight(network, "single_discrete_decoder.weight").T
    shares = logits.softmax(-1)[0]
    action = -np.mean([float(shares[t, actions[0, t]].log()) for t in range(3)])
    following = network.image_decoder["module"](hidden[0, 1:4:2])
    observation = float((following - images[0, 1:]).square().mean())
    batch = EpisodeBatch(torch.zeros(1, 3), image_observations=images, discrete_actions=actions)
    losses = network.losses(batch)
    assert float(losses.action) == pytest.approx(action, rel=1e-4)
    assert float(losses.observation) == pytest.approx(observation, rel=1e-4)


def test_discrete_observations_are_not_predicted(network: JatNetwork) -> None:
    symbols = torch.randint(0, 300, (1, 3, 7), generator=torch.Generator().manual_seed(5))
    batch = EpisodeBatch(
        torch.zeros(1, 3), discrete_observations=symbols, discrete_actions=torch.tensor([[1, 2, 0]])
    )
    losses = network.losses(batch)
    assert float(losses.observation) == 0
    assert float(losses.total) == pytest.approx(0.995 * float(losses.action))
    assert network(batch).observations is None


def test_a_batch_has_one_kind_of_each() -> None:
    with pytest.raises(ValueError, match="batch has 0 kinds of observations: expected one"):
        EpisodeBatch(torch.zeros(1, 2), discrete_actions=torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt_neo"}, "model_type is 'gpt_neo', expected 'jat'"),
        ({"activation_function": "relu"}, "activation_function is 'relu', expected 'gelu_new'"),
        ({"num_heads": 7}, "num_heads is 7 and hidden_size 768"),
        ({"attention_types": [[["dense"], 12]]}, "attention_layers has \\['dense'\\]"),
        ({"attention_types": [[["global"], 3]]}, "attention_layers has 3 entries"),
        ({"attention_types": [[["global"], 10**9]]}, "attention_types repeats a run"),
        ({"num_layers": 10**9}, "num_layers is 1000000000"),
        ({"hidden_size": "768"}, "hidden_size is '768', expected a whole number"),
        ({"context_tokens": 3}, "context_tokens is 3: expected an even number of 2 to 512"),
        ({"context_tokens": 514}, "context_tokens is 514: expected an even number of 2 to 512"),
    ],
)
def test_configurations_that_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JatConfig.from_json({"model_type": "jat", **values})


def test_a_configuration_is_read_again(tmp_path: Path) -> None:
    text = json.dumps({**SMALL.to_json(), "auto_map": {"AutoModel": "evil.py"}, "torch_dtype": "x"})
    again = JatConfig.from_json(json.loads(text))
    assert again.layers == SMALL.layers
    assert again.to_json() == SMALL.to_json()
