"""The training loop: resumable, with checkpoints that appear whole or not at all.

* :class:`Trainer` -- one run in a folder.
* :class:`Interrupts` -- remembers that the run is to stop, so that no update is torn in two.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gato_gym.files.atomic_io import appearing, appearing_file, surviving, write_whole
from gato_gym.files.bounded_io import read_json
from policies.allocation import keep_memory
from policies.model.quantization import choose_device
from policies.training.checkpoint_scorer import CheckpointScorer
from policies.training.config import TrainConfig, as_begun, check_same_config
from policies.training.data.adaptive import TaskShares
from policies.training.data.prefetch import Prefetcher, usual_processes
from policies.training.distributed import ProcessGroup
from policies.training.families.registry import find_family
from policies.training.loss import LossReport
from policies.training.metrics import Metrics, bars, measured_peak
from policies.training.optimizer import Optimiser

STATE_FILES = ("progress.json", "model.safetensors", "optimiser.safetensors")
"""What ``last/`` holds."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered, the first signal is remembered; a second one acts at once.

    Outside the main thread, where signals cannot be handled, nothing changes.

    Attributes:
        asked: Whether the run is to stop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient stopped being a number; no update was made with it."""


def kept_weights(run: Path, step: int) -> Path:
    """The file of the averaged weights that a run keeps of a step."""
    return run / "kept" / f"step-{step:06d}.safetensors"


def _device(name: str, ranks: ProcessGroup) -> torch.device:
    if name == "auto" and torch.cuda.is_available():
        name = f"cuda:{ranks.local}"
    return choose_device(name)


class Trainer:
    """One run in a folder.

    Nothing but ``config`` decides what is learned; the rest is how.

    Args:
        config: What to train.
        shards: On what, by task id, as its family reads them.
        output: The run's folder: ``config.json``, ``metrics.csv``, ``last/``.
        save_every: Steps between two checkpoints.
        kept_every: Steps between two sets of averaged weights that are kept; None keeps none.
        until: Step to stop at; None is the configuration's last.
        log_every: Steps that a row of the metrics is the average of.
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        attention: How attention is computed, see :data:`policies.model.attention.ATTENTIONS`.
        on_save: Called after each checkpoint, in the first process.
        texts: Texts and pairs to train on beside the tasks, by name.
        begin: Called with the fresh network: gives it the weights that it starts from.
        fsdp: Whether each of several processes holds a part of the backbone instead of all of it.
        tensorboard: Whether to write TensorBoard's events, where it is installed.
        wandb: Project of Weights & Biases to log to, where that is installed; None logs to none.
        score: Plays some tasks every so often, in every process, after ``on_save`` in the first.
        score_every: Steps between two scores; the run's last is scored too. 0 scores none.
        loaders: Processes that prepare batches; 0 prepares them in a thread, and None does so on a
            CPU.

    Raises:
        ValueError: A batch has fewer rows than all processes have parts.
    """

    def __init__(
        self,
        config: TrainConfig,
        shards: Mapping[str, Any],
        output: Path,
        *,
        save_every: int = 100,
        kept_every: int | None = None,
        until: int | None = None,
        log_every: int = 50,
        device: str = "auto",
        attention: str = "auto",
        on_save: Callable[[Trainer], None] | None = None,
        texts: Mapping[str, Any] | None = None,
        begin: Callable[[Any], None] | None = None,
        fsdp: bool = False,
        tensorboard: bool = False,
        wandb: str | None = None,
        score: CheckpointScorer | None = None,
        score_every: int = 0,
        loaders: int | None = None,
    ) -> None:
        config = as_begun(config, output)
        self.config, self.output = config, output
        self.family = find_family(config.family)
        self.save_every, self.kept_every, self.log_every = save_every, kept_every, log_every
        self.on_save, self.tensorboard, self.wandb = on_save, tensorboard, wandb
        self.score, self.score_every = score, score_every
        self.ranks = ProcessGroup.join()
        if config.rows < self.ranks.world * config.accumulate:
            raise ValueError(
                f"rows is {config.rows} for {self.ranks.world} processes of {config.accumulate} "
                "parts: expected a row for each, use more rows or fewer processes"
            )
        self.device = _device(device, self.ranks)
        if self.device.type == "cpu":
            keep_memory()
        torch.manual_seed(config.seed)
        network = self.family.build(config.network)
        if begin is not None:
            begin(network)
        self.network = network.to(self.device)
        self.family.prepare(self.network, config, attention, self.device)
        self.divided = fsdp and self.ranks.world > 1
        if self.divided:
            self.family.divide(self.network, self.ranks, self.device)
        self.optimiser = Optimiser(
            self.network,
            config.optimiser,
            total=config.steps,
            ranks=self.ranks,
            backbone=self.family.backbone,
            half=config.precision == "bfloat16",
        )
        self.packer = self.family.packer(config, shards, texts)
        usual = usual_processes(self.device, sharing=self.ranks.world)
        self.batches = Prefetcher(
            self._batches,
            last=config.steps,
            processes=usual if loaders is None else loaders,
            device=self.device,
        )
        self.step, self.minutes, self.saved = 0, 0.0, -1
        self.metrics: Metrics | None = None
        self._progress: Mapping[str, Any] = {}
        adaptive = config.adaptive
        self.shares = None if adaptive is None else TaskShares(adaptive, self.packer.tasks)
        self.last = min(config.steps, until or config.steps)

    def _batches(self, step: int) -> tuple[list[Any], float]:
        """This process's parts of a step's batch, and their weight in the loss."""
        parts = self.config.accumulate
        world, first = self.ranks.world * parts, self.ranks.rank * parts
        batches = [self.packer.batch(step, rank=first + i, world=world) for i in range(parts)]
        scales = [self.family.scale(self.config, batch) for batch in batches]
        return batches, float(torch.stack(scales).sum())

    def resume(self) -> None:
        """Take up the run in the output folder, if there is one.

        Raises:
            ValueError: It was begun with another configuration, or nobody knows with which.
        """
        path, config = self.output / "config.json", self.config.to_json()
        if path.exists():
            check_same_config(read_json(path), config, self.output)
        elif surviving(self.output / "last").exists():
            raise ValueError(
                f"{self.output} holds a checkpoint and no config.json, so what it was trained "
                "with is not known: put the file back, or choose another folder"
            )
        self.output.mkdir(parents=True, exist_ok=True)
        if not self.ranks.rank and not path.exists():
            write_whole(path, json.dumps(config, indent=1))
        self.ranks.wait()
        last = surviving(self.output / "last")
        if not last.exists():
            return
        self._load_weights(load_file(last / "model.safetensors"))
        self.optimiser.load(load_file(last / "optimiser.safetensors"))
        progress = self._progress = read_json(last / "progress.json")
        self.step, self.minutes = progress["step"], progress["minutes"]
        if self.shares is not None:
            self.shares.load(progress["shares"])
            self._reweigh()

    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        parts = self.optimiser.parts
        buffers = {n: weights[n] for n in self.network.state_dict() if n not in parts}
        rows = {name: part.rows(weights[name]) for name, part in parts.items()}
        with torch.no_grad():
            for name, part in parts.items():
                part.held.copy_(rows[name])
        self.network.load_state_dict(buffers, strict=False)

    def save(self) -> None:
        """Write ``last/``, which a process killed meanwhile leaves as it was.

        Every tensor is whole in it, so that any number of processes, divided or not, can resume.
        """
        self.saved = self.step
        weights = self._gather(
            (name, part.whole(part.held.detach())) for name, part in self.optimiser.parts.items()
        )
        state = self._gather(self.optimiser.tensors())
        if not self.ranks.rank:
            with appearing(self.output / "last", own=STATE_FILES) as folder:
                save_file(weights, folder / "model.safetensors")
                save_file(state, folder / "optimiser.safetensors")
                progress: dict[str, Any] = {"step": self.step, "minutes": self.minutes}
                if self.metrics is not None:
                    progress["metrics"] = self.metrics.to_json()
                if self.shares is not None:
                    progress["shares"] = self.shares.to_json()
                (folder / "progress.json").write_text(json.dumps(progress))
            if self.on_save is not None:
                self.on_save(self)
        self.ranks.wait()

    def keep(self) -> None:
        """Keep the averaged weights of this step, for the learning curve."""
        weights = self._gather((n, t.to(torch.bfloat16)) for n, t in self.optimiser.averages())
        if self.ranks.rank:
            return
        path = kept_weights(self.output, self.step)
        path.parent.mkdir(exist_ok=True)
        with appearing_file(path) as partial:
            save_file(weights, partial)

    def _gather(self, tensors: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors on the host, in the first process alone; the others have a part in each."""
        if not self.ranks.rank:
            return {name: tensor.cpu().contiguous() for name, tensor in tensors}
        if self.divided:
            for _ in tensors:
                pass
        return {}

    def update(self) -> tuple[LossReport, float]:
        """One step: batch, loss, update. With several processes each has its share of the rows.

        Returns:
            The whole batch's report, on the host and without gradient, and the gradient's norm.

        Raises:
            NonFiniteLossError: Before the weights are touched.
        """
        batches, weight = self.batches.take(self.step)
        scale = self.ranks.sum(torch.tensor(weight))
        divisor = scale.to(self.device)
        totals = torch.zeros(10 + 2 * len(self.packer.sources), device=self.device)
        for batch in batches:
            report = self._loss(batch)
            (report.total / divisor).backward()
            total = report.total.detach()
            totals += torch.cat([total[None], report.sums, report.tasks.flatten()])
        norm = self.optimiser.clip()
        values = torch.cat([self.ranks.sum(totals), norm[None]]).cpu()  # the step's only wait
        total, sums, tasks = values[0], values[1:10], values[10:-1]
        for what, number in (("loss", total), ("gradient's norm", values[-1])):
            if not math.isfinite(number):
                self._refuse(f"the {what} is {float(number)}", batches)
        self.optimiser.step(self.step)
        self.step += 1
        if self.shares is not None and self.shares.add_losses(self.step, tasks.view(-1, 2)):
            self._reweigh()
        return LossReport(total, scale, sums, tasks.view(-1, 2)), float(values[-1])

    def _reweigh(self) -> None:
        """Draw the next batches in the shares as they are now; none was drawn ahead in others."""
        assert self.shares is not None
        self.batches.close()
        self.packer.reweigh(self.shares.factors)

    def _loss(self, batch: Any) -> LossReport:
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            tasks = len(self.packer.sources)
            return self.family.loss(self.network, batch, self.config, tasks=tasks)

    def _refuse(self, what: str, batches: list[Any]) -> NoReturn:
        self.network.zero_grad(set_to_none=True)
        tasks = sorted(set().union(*(batch.task_tokens for batch in batches)))
        last = surviving(self.output / "last")
        good = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint"
        raise NonFiniteLossError(
            f"{what} at step {self.step}, in a batch of {', '.join(tasks)}: the weights were not "
            f"touched; {good}. Look for extreme numbers in these datasets, or use a smaller "
            "learning rate"
        )

    def run(self) -> None:
        """Train to the last step; on Ctrl-C finish the step, save and stop.

        Raises:
            KeyboardInterrupt: The run was stopped, and saved.
            NonFiniteLossError: The loss is no longer a number.
        """
        for _ in self.steps():
            pass

    def steps(self) -> Generator[float, None, None]:
        """What :meth:`run` does, step by step: yields each loss, and raises as it does."""
        tokens = self.config.rows * self.config.length
        metrics = self.metrics = self._metrics() if not self.ranks.rank else None
        written = nullcontext() if metrics is None else closing(metrics)
        shown = bars(shown=metrics is not None)
        with written, shown as progress, Interrupts() as interrupts, self.batches:
            bar = progress.add_task(
                "train", total=self.last, completed=self.step, state="first step"
            )
            say = partial(progress.console.print, highlight=False, soft_wrap=True)
            reported = self._any(metrics is not None and metrics.is_due)
            if reported or (self.shares is not None and self.shares.is_due(self.step)):
                scores = self._scores()
                if metrics is not None and reported:
                    self._report(metrics, scores, say)
            while self.step < self.last:
                begun = time.perf_counter()
                report, norm = self.update()
                seconds = time.perf_counter() - begun
                self.minutes += seconds / 60
                loss = float(report.total / report.scale)
                if metrics is not None:
                    full = metrics.add(self.step, seconds, report, norm)
                    state = metrics.state(loss, tokens / seconds)
                    progress.update(bar, completed=self.step, state=state)
                scores = self._after_step(stop := self._any(interrupts.asked))
                if metrics is not None and (full or scores):
                    self._report(metrics, scores, say)
                if stop and self.step < self.last:
                    say(f"stopped at step {self.step}: run again to resume")
                    raise KeyboardInterrupt
                yield loss
        if self.saved != self.step:
            self.save()

    def _metrics(self) -> Metrics:
        config = self.config
        resumed = self._progress.get("step") == self.step
        begun = self._progress.get("metrics") if resumed else None
        cost = self.family.flops(config)
        return Metrics(
            self.output,
            self.packer.sources,
            scored=[task.id for task in self.score.tasks] if self.score is not None else (),
            step=self.step,
            begun=begun,
            is_scored=self._is_scored(),
            tokens=config.rows * config.length,
            log_every=self.log_every,
            peak=self.ranks.world * measured_peak(self.device) / cost,
            tensorboard=self.tensorboard,
            wandb=self.wandb,
        )

    def _after_step(self, stop: bool) -> Mapping[str, float]:
        """Save, keep and score where it is time to; returns the scores."""
        if stop or self._is_scored() or self.step % self.save_every == 0:
            self.save()
        if self.kept_every and self.step % self.kept_every == 0:
            self.keep()
        return {} if stop else self._scores()

    def _is_scored(self) -> bool:
        if self.score is None or not self.score_every:
            return False
        return not self.step % self.score_every or self.step == self.config.steps

    def _scores(self) -> Mapping[str, float]:
        if self.score is None or not self._is_scored():
            return {}
        scores = self.score()
        if self.shares is not None and self.shares.adaptive.by == "scores":
            self.shares.measure(self.step, self.score.distances(scores))
            self._reweigh()
        return scores

    def _report(
        self, metrics: Metrics, scores: Mapping[str, float], say: Callable[..., None]
    ) -> None:
        """Write a row and print it; late in a run, warn of play that does not follow the loss."""
        line = metrics.write(self.step, self.minutes, scores)
        if self.score is None or not scores:
            say(line)
            return
        say(line + self.score.describe(scores))
        warnings = self.score.disagreements(scores, metrics.task_losses)
        for warning in warnings if 5 * self.step > 3 * self.last else ():
            say(warning, style="yellow")

    def _any(self, asked: bool) -> bool:
        """Whether any process was asked to stop: they stop at the same step."""
        return bool(self.ranks.sum(torch.tensor(float(asked))))
