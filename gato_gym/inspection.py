"""An environment's timestep as tokens, for people: ``gato-gym inspect ENV_ID``.

* :func:`inspect_environment` -- an environment's plan, and one real timestep as tokens.
* :class:`Inspection` -- both, with a table and a list of tokens.
* :class:`Token` -- one token of the timestep: its kinds and its content.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.typing import NDArray
from rich.table import Table

from gato_gym.plans.tokenized import Field, TokenizedStep
from gato_gym.spaces import Plan, compile_plan
from gato_gym.tasks.task import NAMESPACE
from gato_gym.wrappers import resolve_options

__all__ = ["Inspection", "Token", "inspect_environment"]

SHOWN = 4
"""How many ids or numbers of a part an example shows."""


@dataclass(frozen=True)
class Token:
    """One token of a timestep.

    Attributes:
        kinds: The kinds of its contributions, in order.
        label: Their content, one line each.
        patch: uint8 ``[P, P, C]`` of an image patch, else None.
    """

    kinds: tuple[str, ...]
    label: str
    patch: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Inspection:
    """An environment's plan, and one real timestep.

    Attributes:
        name: The environment's id.
        plan: Its plan.
        step: The first observation of an episode, encoded.
        action: int32 ``[A]``, a random action's ids.
        frame: uint8 ``[H, W, 3]``, the rendered frame, or None.
    """

    name: str
    plan: Plan
    step: TokenizedStep
    action: NDArray[np.int32]
    frame: NDArray[np.uint8] | None = None

    def pieces(self) -> list[str]:
        """The text's pieces, one a token; a byte without a character of its own as ``<0xE2>``."""
        start = self.plan.vocabulary.text.start
        return [self.plan.tokenizer.piece(int(i) - start) for i in self.step.text]

    def examples(self) -> list[tuple[Field, str]]:
        """Each part of the timestep, with what this one holds there."""
        tokens, position = [], dict.fromkeys(("ids", "images", "grids", "action"), 0)
        for field in self.plan.fields:
            source = _SOURCES.get(field.kind, "ids")
            first = position.get(source, 0)
            if source in position:
                position[source] = first + field.count
            values = getattr(self, source, None) if source == "action" else None
            if values is None:
                values = getattr(self.step, source)
            tokens.append((field, self._example(field, values[first : first + field.count])))
        return tokens

    def _example(self, field: Field, values: NDArray[Any]) -> str:
        if field.kind == "text":
            return _shortened([piece.replace("▁", "_") for piece in self.pieces()])
        if field.kind == "vector":
            return _shortened([f"{v:.2f}" for v in self.step.vectors.ravel()])
        if field.kind in ("image", "grid"):
            what = "patches" if field.kind == "image" else "of cells and symbols"
            return f"{'×'.join(map(str, values.shape[1:]))} {what}"
        return _shortened([str(v) for v in values.tolist()])

    def table(self) -> Table:
        """A row for each part: path, kind, tokens, ids, example."""
        table = Table(title=f"{self.name} ({self.plan.options.layout})", title_justify="left")
        for column in ("path", "kind", "tokens", "ids", "this timestep"):
            table.add_column(column, overflow="fold")
        for field, example in self.examples():
            row = (field.path or "-", field.kind, field.tokens_in_words, field.ids_in_words)
            table.add_row(*row, example)
        return table

    def summary(self, window: int) -> str:
        """Tokens of a timestep, and how many timesteps a window holds.

        Args:
            window: Tokens of the window.
        """
        plan, text = self.plan, len(self.step.text)
        each = plan.num_tokens + plan.num_actions
        always = plan.options.text == "always"
        cost = f"{plan.num_tokens} body + {plan.num_actions} action"
        if plan.has_text and always:
            each, cost = each + text, f"{text} text + {cost}"
        line = f"{each} tokens a timestep ({cost}); "
        line += f"{max(0, window // each):,} timesteps in a window of {window:,}"
        if plan.has_text and not always:
            line += (
                f"; text of {text} tokens more when it changes and every "
                f"{plan.options.text_refresh} timesteps"
            )
        return line

    def tokens(self) -> list[Token]:
        """The timestep's tokens in order: text, body, actions."""
        plan, step = self.plan, self.step
        tokens = [Token(("text",), piece) for piece in self.pieces()]
        body: list[list[tuple[int, str, str, NDArray[np.uint8] | None]]]
        body = [[] for _ in range(plan.num_tokens)]
        kinds = [field for field in plan.fields if field.kind not in _SOURCES]
        names = [field.kind for field in kinds for _ in range(field.count)]
        for i, (slot, place) in enumerate(zip(plan.id_slots, plan.id_places, strict=True)):
            body[slot].append((place, names[i], str(step.ids[i]), None))
        for i, (slot, place) in enumerate(zip(plan.vector_slots, plan.vector_places, strict=True)):
            used = min(plan.vector_length - i * plan.options.vector_size, plan.options.vector_size)
            body[slot].append((place, "vector", f"{used} numbers", None))
        for i, (slot, place) in enumerate(zip(plan.image_slots, plan.image_places, strict=True)):
            body[slot].append((place, "image", f"patch {i}", step.images[i]))
        for slot, place in zip(plan.grid_slots, plan.grid_places, strict=True):
            size = "×".join(map(str, plan.grid_size))
            body[slot].append((place, "grid", f"{size} grid", None))
        for parts in body:
            ordered = sorted(parts, key=lambda part: part[0])
            label = "\n".join(part[2] for part in ordered)
            tokens.append(Token(tuple(part[1] for part in ordered), label, ordered[0][3]))
        return tokens + [Token(("action",), str(i)) for i in self.action.tolist()]


_SOURCES = {"text": "text", "image": "images", "vector": "vectors", "grid": "grids"} | {
    "action": "action"
}
"""Where a kind of field has its values; all others are ids."""


def _shortened(parts: list[str]) -> str:
    return " ".join(parts[:SHOWN]) + (" …" if len(parts) > SHOWN else "")


def inspect_environment(
    name: str, *, layout: str | None = None, seed: int = 0, render: bool = False
) -> Inspection:
    """Make an environment, and encode the first timestep of an episode and a random action.

    Args:
        name: A Gymnasium id, ``Gato/<task>`` too; with the module that registers it before a
            colon, as in ``gym.make``: ``ale_py:ALE/Pong-v5``.
        layout: "paper" or "lean"; None for the task's own, or the default.
        seed: Seed of the episode and the action.
        render: Whether to render the frame, if the environment can.

    Raises:
        gymnasium.error.Error: There is no such environment, or a package is missing.
        ValueError: Its spaces have no plan.
    """
    module, _, identifier = name.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gym.spec(identifier)
    modes = _render_modes(spec) if render else ()
    mode = "rgb_array" if "rgb_array" in modes else None
    env = gym.make(spec, render_mode=mode) if mode else gym.make(spec)
    try:
        options = resolve_options(None, env)
        if layout not in (None, options.layout):
            options = dataclasses.replace(options, layout=layout, text="")
        plan = compile_plan(env.observation_space, env.action_space, options)
        observation, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        action = plan.encode_action(env.action_space.sample())
        frame = _rendered(env) if mode else None
        return Inspection(name, plan, plan.encode(observation), action, frame)
    finally:
        env.close()


def _rendered(env: gym.Env[Any, Any]) -> NDArray[np.uint8] | None:
    """The rendered frame; None, with a warning, if the renderer fails."""
    try:
        return np.asarray(env.render(), np.uint8)
    except Exception as error:  # renderers raise errors of their own libraries
        warnings.warn(
            f"{env.spec and env.spec.id} is drawn without its frame, it did not render: {error}; "
            "without a display, MuJoCo renders with MUJOCO_GL=egl or osmesa",
            stacklevel=3,
        )
        return None


def _render_modes(spec: EnvSpec) -> tuple[str, ...]:
    if spec.namespace == NAMESPACE:
        return ("rgb_array",)
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return tuple(getattr(creator, "metadata", {}).get("render_modes", ()))
