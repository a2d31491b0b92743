"""Files with the published names and shapes load; what is damaged or foreign is refused."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies import GatoPolicy
from policies.gato.tensor_files import CheckpointError
from policies.jat.checkpoint import load_checkpoint
from policies.jat.gpt2_text import Gpt2Tokenizer
from policies.jat.policy import JatPolicy
from policies.registry import make_policy

WIDTH, VOCABULARY, NUMBERS, SYMBOLS, LAYERS = 50, 300, 9, 212, 2

PUBLISHED = {
    "architectures": ["JatModel"],
    "model_type": "jat",
    "auto_map": {"AutoModelForCausalLM": "modeling_jat.JatModel"},
    "activation_function": "gelu_new",
    "attention_types": [[["global", "local"], 1]],
    "hidden_size": WIDTH,
    "num_layers": LAYERS,
    "num_heads": 2,
    "intermediate_size": None,
    "window_size": 256,
    "max_position_embeddings": 512,
    "vocab_size": VOCABULARY,
    "max_continuous_size": NUMBERS,
    "max_discrete_value": SYMBOLS,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "layer_norm_epsilon": 1e-05,
    "observation_loss_coef": 0.005,
    "action_loss_coef": 0.995,
    "bos_token_id": 50256,
    "eos_token_id": 299,
    "resid_dropout": 0.0,
    "torch_dtype": "float32",
    "transformers_version": "4.37.2",
    "use_cache": True,
}
TABLE = "transformer.wte.weight"
ALIASES = (TABLE, "single_discrete_encoder.weight", "multi_discrete_encoder.0.weight")


class Env:
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published file, of another width and fewer layers."""
    d, small = WIDTH, WIDTH // 50
    shapes: dict[str, tuple[int, ...]] = {
        TABLE: (VOCABULARY, d),
        "transformer.wpe.weight": (512, d),
    }
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (d,), f"{block}.{norm}.bias": (d,)}
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes[f"{block}.attn.attention.{name}.weight"] = (d, d)
        shapes[f"{block}.attn.attention.out_proj.bias"] = (d,)
        shapes |= {f"{block}.mlp.c_fc.weight": (4 * d, d), f"{block}.mlp.c_fc.bias": (4 * d,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (d, 4 * d), f"{block}.mlp.c_proj.bias": (d,)}
    shapes |= {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}
    shapes |= {"vit_encoder.projection.weight": (d, 3, 16, 16), "vit_encoder.projection.bias": (d,)}
    shapes |= {"continuous_encoder.weight": (d, NUMBERS), "continuous_encoder.bias": (d,)}
    shapes |= _linear("multi_discrete_encoder.1", small, d)
    shapes |= _linear("multi_discrete_encoder.4", d - 1, SYMBOLS * small)
    channels = (4, 32, 64, 128)
    for layer in (1, 2, 3):
        name, into, out = "image_encoder.module", channels[layer - 1], channels[layer]
        shapes |= {
            f"{name}.conv{layer}.weight": (out, into, 3, 3),
            f"{name}.conv{layer}.bias": (out,),
        }
        shapes |= _attention(f"{name}.att{layer}", out)
    shapes |= _linear("image_encoder.module.fc", d, 128 * 11 * 11)
    shapes["single_discrete_decoder.weight"] = (VOCABULARY, d)
    shapes |= _linear("continuous_decoder", NUMBERS, d)
    shapes |= _linear("multi_discrete_decoder.0", SYMBOLS * small, d)
    shapes |= _linear("multi_discrete_decoder.3", d, small)
    shapes["multi_discrete_decoder.5.weight"] = (8, d)
    shapes |= _linear("image_decoder.module.fc", 128 * 11 * 11, d)
    for layer, (into, out) in enumerate(((128, 64), (64, 32), (32, 4)), 1):
        name = f"image_decoder.module.deconv{layer}"
        shapes |= {f"{name}.weight": (into, out, 3, 3), f"{name}.bias": (out,)}
        if layer < 3:
            shapes |= _attention(f"image_decoder.module.att{layer}", out)
    return shapes


def _linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _attention(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    small = channels // 8
    return {f"{name}.fc.0.weight": (small, channels), f"{name}.fc.2.weight": (channels, small)}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a checkpoint as it is published, with changes."""

    def write(
        change: Callable[[dict[str, Tensor]], object] = lambda tensors: None, **config: Any
    ) -> Path:
        generator = torch.Generator().manual_seed(0)
        tensors = {
            name: torch.randn(shape, generator=generator) * 0.1
            for name, shape in published_shapes().items()
        }
        change(tensors)
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps({**PUBLISHED, **config}))
        return tmp_path

    return write


@pytest.mark.parametrize("alias", ALIASES)
def test_the_text_table_has_any_of_three_names(write: Write, alias: str) -> None:
    folder = write(lambda tensors: tensors.update({alias: tensors.pop(TABLE)}))
    stored = load_file(folder / "model.safetensors")
    network = load_checkpoint(folder).network
    assert len(stored) == len(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, stored[alias if name == TABLE else name])


def test_no_code_runs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a pickle nor ``transformers`` nor the code beside the weights is touched."""
    folder = write()
    (folder / "modeling_jat.py").write_text("raise SystemExit('it ran')")
    opened: list[str] = []
    real = builtins.open

    def watched(file: Any, *rest: Any, **options: Any) -> Any:
        opened.append(str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    policy = JatPolicy.load(folder, env=Env)
    assert not [name for name in opened if name.endswith(".py") and str(folder) in name]
    assert policy.predict(np.zeros(3, np.float32))[0].shape == (2,)


def test_a_policys_own_checkpoint_is_of_that_format(write: Write, tmp_path: Path) -> None:
    policy = JatPolicy.load(write(), env=Env, seed=3)
    policy.tokenizer, policy.card = Gpt2Tokenizer.of_bytes(), "A card."
    policy.save(tmp_path / "saved")
    again = JatPolicy.load(tmp_path / "saved", env=Env)
    assert again.card == "A card."
    assert again.tokenizer is not None
    assert again.tokenizer.vocabulary == policy.tokenizer.vocabulary
    assert {*load_file(tmp_path / "saved" / "model.safetensors")} == {*published_shapes()}
    observation = np.array([0.1, 0.2, 0.3], np.float32)
    np.testing.assert_array_equal(again.predict(observation)[0], policy.predict(observation)[0])
    policy.save(tmp_path / "saved")
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        policy.save(tmp_path / "saved")


def test_the_configuration_says_which_family_it_is(write: Write) -> None:
    env: Any = gym.make("Pendulum-v1")
    policy = make_policy(write(), env=env, seed=5)
    assert isinstance(policy, JatPolicy)
    assert policy.seed == 5
    assert isinstance(
        make_policy("gato-mini", env=gym.make("Gato/babyai-action-obj-door")), GatoPolicy
    )
    with pytest.raises(ValueError, match="acts after no demonstration"):
        make_policy(write(), env=env, prompt="some/dataset-v0")
    with pytest.raises(CheckpointError, match="no model_type 'jat'"):
        JatPolicy.load("gato-mini", env=env)
    env.close()


def test_a_hub_id_gives_its_data_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration comes first, then weights and tokenizer; never code or a pickle."""
    import huggingface_hub

    folder, fetched = write(), []

    def fetch(name: str, *, allow_patterns: list[str], **_: Any) -> str:
        fetched.extend(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr("policies.gato.hub._check_sizes", lambda *_: True)
    policy = make_policy("jat-project/jat", env=Env)
    assert isinstance(policy, JatPolicy)
    assert fetched == [
        "config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt", "card.md",
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_precisions(write: Write, precision: str, tmp_path: Path) -> None:
    policy = JatPolicy.load(write(), env=Env, precision=precision, device="cpu")
    assert f"parameters, {precision} on cpu" in repr(policy)
    state = None
    for _ in range(3):
        action, state = policy.predict(np.full(3, 0.5, np.float32), state)
    assert action.dtype == np.float32
    if precision == "int8":
        with pytest.raises(ValueError, match="in int8, and a checkpoint holds what was trained"):
            policy.save(tmp_path / "short")
    else:
        policy.save(tmp_path / "short")
    with pytest.raises(ValueError, match="precision is 'int4': expected one of 'auto', 'float32'"):
        JatPolicy.load(write(), env=Env, precision="int4")


def _differ(tensors: dict[str, Tensor]) -> None:
    tensors[ALIASES[1]] = tensors[TABLE] + 1


def _reshape(tensors: dict[str, Tensor]) -> None:
    tensors["continuous_encoder.weight"] = torch.zeros(WIDTH, NUMBERS - 1)


def _nan(tensors: dict[str, Tensor]) -> None:
    tensors["continuous_encoder.bias"][0] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(TABLE), f"missing {TABLE}"),
        (lambda tensors: tensors.pop("continuous_decoder.bias"), "missing continuous_decoder.bias"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "unknown more"),
        (_reshape, r"continuous_encoder.weight \[50, 8\] instead of \[50, 9\]"),
        (_differ, "one table under several names"),
        (_nan, "continuous_encoder.bias not finite"),
    ],
)
def test_weights_that_are_refused(
    write: Write, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(write(change))


def test_a_table_may_be_stored_twice(write: Write) -> None:
    folder = write(lambda tensors: tensors.update({ALIASES[2]: tensors[TABLE].clone()}))
    assert load_checkpoint(folder).network.transformer.wte.weight.shape == (VOCABULARY, WIDTH)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt_neo"}, "no model_type 'jat'"),
        ({"hidden_size": "50"}, "hidden_size is '50'"),
        ({"num_layers": 2**20, "attention_types": [[["global"], 2**20]]}, "for 1048576 layers"),
        ({"image_size": 2**20, "patch_size": 2**20, "num_channels": 2**20}, "sizes of no network"),
        ({"vocab_size": 400}, r"wte.weight \[300, 50\] instead of \[400, 50\]"),
    ],
)
def test_configurations_that_are_refused(write: Write, config: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(write(**config))


def test_a_tokenizer_of_more_ids_is_refused(write: Write) -> None:
    folder = write(vocab_size=VOCABULARY)
    tokenizer = Gpt2Tokenizer.of_bytes()
    vocabulary = {**tokenizer.vocabulary, "ab": VOCABULARY}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\na b\n", "utf-8")
    with pytest.raises(CheckpointError, match="ids of 0 to 300: expected 0 to 299"):
        load_checkpoint(folder)


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_that_are_cut_short(write: Write, name: str) -> None:
    path = write() / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"is not JSON|is damaged or cut short"):
        load_checkpoint(path.parent)


def test_weights_that_are_not_there(write: Write) -> None:
    folder = write()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_checkpoint(folder)
