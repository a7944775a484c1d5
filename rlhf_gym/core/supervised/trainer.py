"""`transformers.Trainer` as the stages use it: quiet, resumable, stopped by the first NaN.

Source: transformers 5, `Trainer`. What differs: examples of like length share a batch, in an order
that is a function of seed and epoch alone; evaluation is whatever the stage calls its metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from rlhf_gym.core.errors import NonFiniteTraining
from rlhf_gym.core.models import quiet_transformers
from rlhf_gym.core.supervised.common import CHECKPOINTS, TENSORBOARD, StageConfig, last_checkpoint
from rlhf_gym.core.supervised.progress import StageProgress

Batch = dict[str, Any]
Metrics = dict[str, float]
Item = TypeVar("Item")

Collate = Callable[[Any], Batch]
"""Makes a batch of a list of examples: tensors by the names of the model's arguments."""
Evaluate = Callable[[PreTrainedModel], Metrics]
Loss = Callable[[nn.Module, Batch], Tensor]


class Examples(torch.utils.data.Dataset[Item]):
    """Tokenised examples and how long each is.

    Args:
        items: what `collate` makes batches of.
        lengths: tokens of each; those of like length share a batch.
    """

    def __init__(self, items: Sequence[Item], lengths: Sequence[int]) -> None:
        self.items = items
        self.lengths = np.asarray(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]


class BucketSampler(torch.utils.data.Sampler[int]):
    """A new permutation every epoch in which neighbours have like length.

    The data is shuffled and cut into pools of 50 batches; each pool is sorted by length and cut
    into batches, and the batches are shuffled. Equal lengths make it a plain permutation.

    Args:
        lengths: tokens of each example.
        batch_size: examples of a batch.
        seed: with the epoch, the only source of the order; a resumed run sees the same one.
    """

    def __init__(self, lengths: np.ndarray[Any, Any], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        # A short batch anywhere but at the end would shift all batches behind it.
        whole = len(order) // self.batch_size * self.batch_size
        order, rest = order[:whole], order[whole:]
        pool = np.arange(whole) // (50 * self.batch_size)
        batches = order[np.lexsort((self.lengths[order], pool))].reshape(-1, self.batch_size)
        yield from rng.permutation(batches).ravel().tolist()
        yield from rest.tolist()


@dataclass(frozen=True)
class Trained:
    """What a training run came to.

    Attributes:
        steps: updates, those before a resumption included.
        seconds: wall time of this process's part.
        metrics: of the evaluation at the end; empty if there is none.
    """

    steps: int
    seconds: float
    metrics: Metrics


def train(
    model: PreTrainedModel,
    examples: Examples[Any],
    collate: Collate,
    config: StageConfig,
    *,
    stage: str,
    evaluate: Evaluate | None = None,
    loss: Loss | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Train a model in place; go on where an unfinished run in the output folder stopped.

    Args:
        model: any Hugging Face model; left in eval mode.
        examples: training data.
        collate: makes batches of it.
        config: of the stage.
        stage: its name, for the progress bar.
        evaluate: metrics by name, logged as `eval/<name>`; called every `config.evaluate_every`
            updates, or after each epoch, and at the end.
        loss: gives the mean loss of a batch; None takes the model's own, which for a causal LM is
            the mean over all tokens of the update, however they are spread over forward passes.
        callbacks: the stage's own, called before an epoch's evaluation and checkpoint.

    Raises:
        NonFiniteTraining: a gradient became NaN or infinite. Checkpoints are kept.
    """
    folder = Path(config.output)
    tensorboard = TensorBoardCallback()  # type: ignore[no-untyped-call]
    tensorboard.logging_dir = str(folder / TENSORBOARD)
    watchers: list[TrainerCallback] = [*callbacks, _Guard(folder), tensorboard]
    checkpoint = last_checkpoint(folder)
    started = time.monotonic()
    with quiet_transformers(), ExitStack() as stack:
        if config.progress:
            watchers.append(stack.enter_context(StageProgress(stage)))
        trainer = StageTrainer(model, examples, collate, config, watchers, evaluate, loss)
        steps = trainer.train(None if checkpoint is None else str(checkpoint)).global_step
    model.config.use_cache = True  # Trainer switches it off; whoever loads the result wants it
    model.eval()  # type: ignore[no-untyped-call]
    return Trained(steps, time.monotonic() - started, trainer.evaluate())


class StageTrainer(Trainer):
    """Trainer with bucketed batches and the stage's own loss and metrics; arguments as `train`."""

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Examples[Any],
        collate: Collate,
        config: StageConfig,
        callbacks: list[TrainerCallback],
        evaluate: Evaluate | None,
        loss: Loss | None,
    ) -> None:
        self._trained = model
        self._examples = examples
        self._config = config
        self._stage_evaluate = evaluate
        self._stage_loss = loss
        self._evaluated: tuple[int, Metrics] = (-1, {})
        super().__init__(
            model=model,
            args=_arguments(config),
            train_dataset=examples,
            data_collator=collate,
            callbacks=[*callbacks, _EvaluateWhenDue(config.evaluate_every)],
        )
        self.remove_callback(PrinterCallback)
        if loss is not None:
            # Trainer then divides by the number of forward passes of an update.
            self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> BucketSampler:
        return BucketSampler(self._examples.lengths, self._config.batch_size, self._config.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The stage's loss, or else the model's own."""
        if self._stage_loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return self._stage_loss(model, inputs)

    def evaluate(self, *_: Any, **__: Any) -> Metrics:
        """The stage's metrics, logged; not computed twice at the same update."""
        step = self.state.global_step
        if self._stage_evaluate is not None and self._evaluated[0] != step:
            self._trained.eval()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self._evaluated = (step, self._stage_evaluate(self._trained))
            self.log({f"eval_{name}": value for name, value in self._evaluated[1].items()})
        return self._evaluated[1]


class _EvaluateWhenDue(TrainerCallback):
    """Asks for an evaluation every so many updates, or after each epoch."""

    def __init__(self, every: int | None) -> None:
        self.every = every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.every is not None and state.global_step % self.every == 0:
            control.should_evaluate = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        control.should_evaluate |= self.every is None


class _Guard(TrainerCallback):
    """Stops before an update that would put NaN into the parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        gradients = (parameter.grad for parameter in kwargs["model"].parameters())
        norm = torch.nn.utils.get_total_norm(g for g in gradients if g is not None)
        if not torch.isfinite(norm):
            kept = last_checkpoint(self.folder)
            raise NonFiniteTraining(
                f"the gradient of update {state.global_step + 1} is not finite; nothing was changed"
                f" by it. The last checkpoint is {kept or 'none yet'}. Lower learning_rate, or"
                " raise warmup, and start with --no-resume."
            )


def _arguments(config: StageConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(config.output) / CHECKPOINTS),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="epoch" if config.checkpoint_every is None else "steps",
        save_steps=config.checkpoint_every or 500,
        save_total_limit=2,  # a run killed while it writes one still has the other
        seed=config.seed,
        # Trainer finds that out itself, but not before it has refused bf16.
        use_cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        bf16=config.bf16,
        dataloader_pin_memory=config.device == "auto" and torch.cuda.is_available(),
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
