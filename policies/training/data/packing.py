"""Documents from shards, packed into rows.

* :class:`Mixture` -- which tasks are drawn how often, and how many are prompted.
* :class:`DocumentSampler` -- which task or text a document is of, for any kind of documents.
* :class:`Packer` -- batch number ``k`` of a seed, always the same one.

A document of a task is an optional prompt and a run of live timesteps. Tasks that remember see
consecutive timesteps of one episode, from its start or from a timestep that emits its text; tasks
that do not remember see a random sample of timesteps. The prompt always comes from another
episode than every live timestep of its document. Documents of text are drawn by
:mod:`policies.training.data.text_shards` and lie in the same rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gato_gym.ranges import check_range
from policies.gato.task_specs import check_row
from policies.model.config import NetworkConfig
from policies.model.inputs.sequence import (
    Layout,
    TimestepArrays,
    fed_actions,
    lay_out,
    lay_out_prompt,
    prompt_steps,
)
from policies.model.network import PackedBatch
from policies.training.data.augmentation import hidden_actions, kept_blocks, noisy
from policies.training.data.collator import BatchBuilder, BatchSpec, Document
from policies.training.data.retrieved_prompts import RetrievedPrompts
from policies.training.data.shards import EpisodeArrays, TaskShard
from policies.training.data.text_shards import (
    TextDocument,
    TextShard,
    draw_text_document,
    usual_text_size,
)

Ints = NDArray[np.int64]
ShardT = TypeVar("ShardT", bound=EpisodeArrays)
BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Mixture:
    """How documents are drawn.

    Attributes:
        weights: Share of the tokens by group, or by the name of texts; the tasks of a group, such
            as those of a suite, share theirs in proportion to
            ``mean episode length ** balance * emphasis``: long tasks are the hard ones.
        prompt_share: Share of each group's documents that carry a prompt.
        prompt_end: Share of the prompts taken from their episode's end; the rest start uniformly.
        prompt_retrieved: Share of the prompts that are steps of other episodes that are nearest to
            the document's first live step, see
            :class:`policies.training.data.retrieved_prompts.RetrievedPrompts`.
        balance: 0 gives a group's tasks equal shares, 1 shares in proportion to their length.
        emphasis: Factor of a task's share by task id; 1 where none is given.
        memoryless_steps: Timesteps of a document whose task remembers nothing.
        smallest: Tokens left in a row under which no further document is begun.
        action_drop: Share of timesteps whose actions later timesteps do not see, in [0, 1], for
            tasks that remember all. In training alone, and not in prompts.
        observation_noise: Standard deviation of what is added to the numbers of live
            observations in training, see :func:`policies.training.data.augmentation.noisy`.
        pairs: Pairs of an image and a text that one document has; Gato's have five.
        soft_labels: Whether what an expert chose from is the label of its action, where a shard
            has it; otherwise the action alone.
    """

    weights: Mapping[str, float]
    prompt_share: Mapping[str, float] = field(default_factory=dict)
    prompt_end: float = 0.5
    prompt_retrieved: float = 0.0
    balance: float = 0.5
    emphasis: Mapping[str, float] = field(default_factory=dict)
    memoryless_steps: int = 32
    smallest: int = 8
    action_drop: float = 0.0
    observation_noise: float = 0.0
    pairs: int = 5
    soft_labels: bool = True

    def __post_init__(self) -> None:
        check_range(self, "weights", "emphasis", "balance", "observation_noise")
        check_range(self, "prompt_share", "prompt_end", "prompt_retrieved", high=1)
        check_range(self, "action_drop", high=1)
        check_range(self, "memoryless_steps", "smallest", "pairs", low=1)


class DocumentSampler(ABC, Generic[ShardT, BatchT]):
    """Draws the tasks and texts of documents in the shares of a mixture.

    Args:
        shards: By task id.
        mixture: How documents are drawn.
        rows: B, of a batch.
        length: T, tokens of a row.
        seed: Batch k is a function of (seed, k), and of the shares, alone.
        texts: Shards of texts and of pairs, by name.

    Attributes:
        sources: Names of the tasks and of the texts.
        numbers: Number of each.

    Raises:
        ValueError: The mixture names what is not there, or leaves nothing to train on.
    """

    def __init__(
        self,
        shards: Mapping[str, ShardT],
        mixture: Mixture,
        *,
        rows: int,
        length: int,
        seed: int,
        texts: Mapping[str, Any] | None = None,
    ) -> None:
        self.shards = dict(sorted(shards.items()))
        self.texts = dict(sorted((texts or {}).items()))
        self.groups = {task: shard.group for task, shard in self.shards.items()}
        self.mixture = mixture
        self.rows, self.length, self.seed = rows, length, seed
        self.tasks = list(self.shards)
        self.sources = [*self.tasks, *self.texts]
        self.numbers = {source: number for number, source in enumerate(self.sources)}
        self.probabilities = self._probabilities()

    def draw_source(self, generator: np.random.Generator) -> str:
        """The task, or text, of a document."""
        return self.sources[generator.choice(len(self.sources), p=self.probabilities)]

    def reweigh(self, factors: Mapping[str, float]) -> None:
        """Draw tasks in other shares from now on: those of the mixture by these factors, by id."""
        self.probabilities = self._probabilities(factors)

    @abstractmethod
    def _usual_size(self, task: str) -> float:
        """Expected tokens of a document of this source."""

    @abstractmethod
    def num_tokens(self, task: str) -> int:
        """Tokens of all that a source has, laid out once without prompts."""

    @abstractmethod
    def batch(self, index: int, *, rank: int = 0, world: int = 1) -> BatchT:
        """Batch number ``index``, or every ``world``-th row of it from row ``rank`` on.

        A row is a function of the seed, the batch's number and the row's, so that any number of
        processes together see the same batch.
        """

    @abstractmethod
    def count_documents(self, batch: BatchT) -> tuple[int, int]:
        """Documents of a batch, and those of them that carry a prompt."""

    def _probabilities(self, factors: Mapping[str, float] = {}) -> NDArray[np.float64]:
        """Probability that a document is of each source: token share over the usual size."""
        if both := sorted(set(self.texts) & {*self.tasks, *self.groups.values()}):
            raise ValueError(f"texts are named {both} as tasks are: rename their files")
        if unknown := sorted(set(self.mixture.emphasis) - set(self.tasks)):
            raise ValueError(f"the mixture emphasises {unknown}, of which no shard is open")
        shares = np.zeros(len(self.sources))
        for group, weight in self.mixture.weights.items():
            if group in self.texts:
                shares[self.numbers[group]] = weight
                continue
            mine = [i for i, task in enumerate(self.tasks) if self.groups[task] == group]
            if not mine:
                raise ValueError(
                    f"the mixture has group {group!r} but no shard of it is open: "
                    f"open are {sorted({*self.groups.values(), *self.texts})}"
                )
            shards = [self.shards[self.tasks[i]] for i in mine]
            lengths = np.array([shard.num_steps / len(shard.ends) for shard in shards])
            emphasis = [self.mixture.emphasis.get(self.tasks[i], 1.0) for i in mine]
            parts = lengths**self.mixture.balance * np.array(emphasis)
            parts *= [factors.get(self.tasks[i], 1.0) for i in mine]
            shares[mine] = weight * parts / parts.sum()
        usual = np.array([self._usual_size(source) for source in self.sources])
        probabilities = shares / usual
        if not np.isfinite(probabilities).all() or not probabilities.sum() > 0:
            raise ValueError(
                f"the mixture's weights are {dict(self.mixture.weights)} and its emphasis "
                f"{dict(self.mixture.emphasis)}: expected more than 0 for something to train on"
            )
        return probabilities / probabilities.sum()


class Packer(DocumentSampler[TaskShard, PackedBatch]):
    """Packed batches of a mixture of shards.

    Args:
        shards, mixture, rows, length, seed, texts: As :class:`DocumentSampler` has them.
        config: The network's sizes.
        depth_drop: Share of the sub-layers that stochastic depth skips.

    Raises:
        ValueError: A task has no timestep that fits a row.
    """

    def __init__(
        self,
        shards: Mapping[str, TaskShard],
        mixture: Mixture,
        config: NetworkConfig,
        *,
        rows: int,
        length: int,
        seed: int,
        depth_drop: float = 0.0,
        texts: Mapping[str, TextShard] | None = None,
    ) -> None:
        self.config, self.depth_drop = config, depth_drop
        self.retrieved = RetrievedPrompts(config.prompt_tokens)
        if not mixture.soft_labels:
            shards = {task: shard.without_labels() for task, shard in shards.items()}
        for task, shard in shards.items():
            check_row(shard.plan, length, text=shard.shortest_text, task=task)
        super().__init__(shards, mixture, rows=rows, length=length, seed=seed, texts=texts)
        self.spec = BatchSpec(config, length, tuple(self.sources))

    def _usual_size(self, task: str) -> float:
        """Expected tokens of a document of this source."""
        if task in self.texts:
            pairs = self.mixture.pairs
            return usual_text_size(self.texts[task], length=self.length, pairs=pairs)
        shard = self.shards[task]
        plan = shard.plan
        step = plan.num_tokens + fed_actions(plan)
        prompt = self.mixture.prompt_share.get(self.groups[task], 0.0) * self.config.prompt_tokens
        if plan.options.memory == "none":
            return prompt + self.mixture.memoryless_steps * step
        steps = shard.ends - shard.starts
        texts = np.diff(np.r_[0, shard.arrays["text_ends"]]).mean() if plan.has_text else 0.0
        return prompt + float(np.minimum(steps * step + texts, self.length).mean())

    def num_tokens(self, task: str) -> int:
        """As :meth:`DocumentSampler.num_tokens`."""
        if task in self.texts:
            return int(self.texts[task].sizes.sum())
        shard = self.shards[task]
        plan = shard.plan
        body = shard.num_steps * (plan.num_tokens + fed_actions(plan))
        if not plan.has_text:
            return body
        shown = np.asarray(shard.arrays["text_index"])[shard.emits]
        lengths = np.array([len(shard.text(i)) for i in range(len(shard.arrays["text_ends"]))])
        return body + int(lengths[shown].sum())

    def count_documents(self, batch: PackedBatch) -> tuple[int, int]:
        """As :meth:`DocumentSampler.count_documents`."""
        owners = batch.roles.documents.numpy() + 1
        keys = owners + (np.arange(len(owners)) * (owners.max() + 1))[:, None]
        prompted = keys[batch.roles.prompts.numpy() == 1]
        return len(np.unique(keys[owners > 0])), len(np.unique(prompted))

    def batch(self, index: int, *, rank: int = 0, world: int = 1) -> PackedBatch:
        """As :meth:`DocumentSampler.batch`."""
        rows = range(rank, self.rows, world)
        builder = BatchBuilder(self.spec, len(rows))
        for place, row in enumerate(rows):
            generator = np.random.default_rng([self.seed, index, row])
            changes = np.random.default_rng([self.seed, index, row, 1])
            if self.depth_drop:
                builder.residual_masks.append(
                    kept_blocks(self.config.layers, self.depth_drop, changes)
                )
            offset, document = 0, 0
            while self.length - offset >= self.mixture.smallest:
                doc = self._document(generator, self.length - offset)
                if doc is None:
                    break
                if isinstance(doc, TextDocument):
                    builder.add_text(doc, place, offset, document, generator)
                else:
                    builder.add(self._changed(doc, changes), place, offset, document, generator)
                offset += doc.size
                document += 1
        return builder.finish()

    def _changed(self, doc: Document, generator: np.random.Generator) -> Document:
        """The document as training shows it."""
        mixture, plan = self.mixture, doc.shard.plan
        if mixture.action_drop and plan.options.memory == "all":
            doc.hidden = hidden_actions(len(doc.actions), mixture.action_drop, generator)
        if mixture.observation_noise:
            layout, arrays, steps = doc.parts[-1]
            arrays = noisy(plan, arrays, mixture.observation_noise, generator)
            doc.parts[-1] = (layout, arrays, steps)
        return doc

    def _document(
        self, generator: np.random.Generator, budget: int
    ) -> Document | TextDocument | None:
        """A document of at most ``budget`` tokens; None after several that did not fit."""
        for _ in range(8):
            source = self.draw_source(generator)
            doc: Document | TextDocument | None
            if source in self.texts:
                doc = draw_text_document(
                    self.texts[source], generator, self.config, budget=budget, length=self.length,
                    pairs=self.mixture.pairs,
                )  # fmt: skip
            else:
                share = self.mixture.prompt_share.get(self.groups[source], 0.0)
                prompted = generator.random() < share
                doc = self._draw(self.shards[source], generator, budget, prompted=prompted)
            if doc is not None:
                return doc
        return None

    def _draw(
        self, shard: TaskShard, generator: np.random.Generator, budget: int, *, prompted: bool
    ) -> Document | None:
        episode = int(generator.integers(len(shard.ends)))
        parts = []
        share = self.mixture.prompt_retrieved if prompted and len(shard.ends) > 1 else 0.0
        if share and generator.random() < share:
            return self._draw_retrieved(shard, episode, generator, budget)
        if prompted and len(shard.ends) > 1:
            other = int(generator.integers(len(shard.ends) - 1))
            other += other >= episode
            parts.append(self._prompt(shard, other, generator))
        else:
            other = -1
        budget -= sum(len(layout.ids) for layout, _, _ in parts)
        if shard.plan.options.memory == "none":
            steps, first = self._sample_steps(shard, other, generator), self.config.prompt_tokens
        else:
            steps, first = self._run_of_steps(shard, episode, generator)
        live = self._live(shard, steps, first, budget)
        if live is None:
            return None
        return Document(shard, [*parts, live], np.asarray(live[1].actions))

    def _draw_retrieved(
        self, shard: TaskShard, episode: int, generator: np.random.Generator, budget: int
    ) -> Document | None:
        """A run of an episode's steps, after what is retrieved for the first of them."""
        if shard.plan.options.memory == "none":
            begin = int(generator.integers(shard.starts[episode], shard.ends[episode]))
            stop = min(int(shard.ends[episode]), begin + self.mixture.memoryless_steps)
            steps, first = np.arange(begin, stop), self.config.prompt_tokens
        else:
            steps, first = self._run_of_steps(shard, episode, generator)
        prompt = self.retrieved.draw(shard, int(steps[0]), generator)
        live = self._live(shard, steps, first, budget - len(prompt[0].ids))
        return (
            None if live is None else Document(shard, [prompt, live], np.asarray(live[1].actions))
        )

    def _sample_steps(self, shard: TaskShard, other: int, generator: np.random.Generator) -> Ints:
        """Random timesteps of all episodes but ``other`` (-1 for none)."""
        start, stop = (shard.starts[other], shard.ends[other]) if other >= 0 else (0, 0)
        steps = generator.integers(
            shard.num_steps - (stop - start), size=self.mixture.memoryless_steps
        )
        return steps + np.where(steps >= start, stop - start, 0)

    def _run_of_steps(
        self, shard: TaskShard, episode: int, generator: np.random.Generator
    ) -> tuple[Ints, int]:
        """Timesteps of one episode from an emission on, and the position of the first."""
        start, stop = int(shard.starts[episode]), int(shard.ends[episode])
        begins = self._entrances(shard, start, stop)
        begin = int(begins[generator.integers(len(begins))])
        steps = np.arange(start, stop)[begin - start :]
        first = self.config.prompt_tokens + self._tokens_before(shard, start, begin)
        return steps, first

    def _entrances(self, shard: TaskShard, start: int, stop: int) -> Ints:
        """Where a run may begin: where a text is emitted, or every half row of timesteps."""
        if not shard.plan.has_text:
            return np.arange(start, stop, max(1, self.length // 2))
        return start + np.flatnonzero(shard.emits[start:stop])

    def _tokens_before(self, shard: TaskShard, start: int, begin: int) -> int:
        """Positions that the timesteps ``[start, begin)`` of an episode leave behind."""
        plan = shard.plan
        kept = plan.num_tokens + (plan.num_actions if plan.options.memory == "all" else 0)
        emitted = start + np.flatnonzero(shard.emits[start:begin])
        texts = sum(len(shard.text(int(shard.arrays["text_index"][s]))) for s in emitted)
        return (begin - start) * kept + texts

    def _live(
        self, shard: TaskShard, steps: Ints, first: int, budget: int
    ) -> tuple[Layout, TimestepArrays, Ints] | None:
        """As many of ``steps`` as fit in ``budget`` tokens; None when not even one does."""
        plan, fed = shard.plan, fed_actions(shard.plan)
        emits = shard.emits[steps] if plan.has_text else np.zeros(len(steps), np.bool_)
        longest = max(1, budget // (plan.num_tokens + fed))
        texts = self._texts(shard, steps[:longest], emits[:longest])
        sizes = [plan.num_tokens + fed + (0 if t is None else len(t)) for t in texts]
        count = int(np.searchsorted(np.cumsum(sizes), budget, side="right"))
        if count == 0:
            return None
        chosen = steps[:count]
        arrays = shard.timesteps(chosen)
        layout = lay_out(plan, texts[:count], arrays.actions, first_position=first, fed=fed)
        return layout, arrays, chosen

    def _texts(
        self, shard: TaskShard, steps: Ints, emits: NDArray[np.bool_]
    ) -> list[NDArray[np.int32] | None]:
        texts: list[NDArray[np.int32] | None] = [None] * len(steps)
        for i in np.flatnonzero(emits):
            texts[i] = shard.text(int(shard.arrays["text_index"][steps[i]]))
        return texts

    def _prompt(
        self, shard: TaskShard, episode: int, generator: np.random.Generator
    ) -> tuple[Layout, TimestepArrays, Ints]:
        """A prompt from this episode: its end, or a uniform place."""
        start, stop = int(shard.starts[episode]), int(shard.ends[episode])
        text = (
            shard.text(int(shard.arrays["text_index"][stop - 1])) if shard.plan.has_text else None
        )
        steps = prompt_steps(shard.plan, stop - start, text, self.config.prompt_tokens)
        latest = stop - start - steps
        begin = latest
        if generator.random() >= self.mixture.prompt_end:
            begin = int(generator.integers(latest + 1))
        chosen = np.arange(start + begin, start + begin + steps)
        arrays = shard.timesteps(chosen)
        return lay_out_prompt(shard.plan, text, arrays), arrays, np.full(steps, stop - 1)
