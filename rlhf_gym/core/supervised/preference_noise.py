"""Rater noise in reward training: known, or learned by a callback of Trainer meanwhile.

Known noise is believed step by step. An answer that contradicts what a model is sure of teaches it
next to nothing under noise, and what it is sure of in its first steps is chance: at first every
answer is taken at its word, and from the middle of training on the noise counts in full.

Learned noise: each answer is noted as the model judged it before it learned from it; ten times an
epoch the noise moves to what the answers of the last epoch say (`RaterNoise.update`), and training
goes on with it. Trainer stays as it is, and its checkpoints hold the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.likelihoods import Noise
from rlhf_gym.core.raters import RaterNoise
from rlhf_gym.core.supervised.noise_setting import NoiseSetting
from rlhf_gym.core.supervised.preference_batches import (
    Targets,
    judgement_log_probs,
    random_log_probs,
)
from rlhf_gym.core.supervised.preference_data import Judgement

EVERYBODY = "everybody"
UPDATES = 10
"""Updates of the noise in an epoch."""
GRADUAL = 0.5
"""Share of the training after which known noise counts in full."""
MOST_REMEMBERED = 20_000
"""Answers; they go into every checkpoint, and more would say no more."""


class AnswerNoise:
    """How likely each answer was given at random.

    Args:
        setting: known or learned.
        judgements: all that will be met; their raters are known from then on.

    Attributes:
        numbers: of the raters by name, for `make_targets`; all the same number where nobody is told
            apart.
        learned: the noise that is learned; None if it is known.
        belief: share of known noise that training reckons with, from 0 to 1.

    Raises:
        InvalidArgument: noise by rater, and judgements without a rater.
    """

    def __init__(self, setting: NoiseSetting, judgements: Sequence[Judgement] = ()) -> None:
        names = sorted({judged.rater for judged in judgements})
        window = max(1, min(len(judgements), MOST_REMEMBERED))
        self.numbers: Mapping[str, int] = dict.fromkeys(names, 0)
        self.learned: RaterNoise | None = None
        self.belief = 1.0
        self._known = setting.random
        if setting.kind == "raters":
            if "" in names:
                raise InvalidArgument(
                    "noise", setting.kind, "some rows name no rater", "Give each row a 'rater'"
                )
            self.learned = RaterNoise(names, window=window)
            self.numbers = self.learned.numbers
        elif setting.kind == "learned":
            self.learned = RaterNoise([EVERYBODY], window=window)

    def of(self, raters: Tensor) -> Noise:
        """Probability that answers by these raters are random, for a likelihood.

        Args:
            raters: their numbers, shape (judgements,).

        Returns:
            One for all, or shape (judgements,).
        """
        return self._known if self.learned is None else self.learned.noise(raters)

    def in_training(self, raters: Tensor) -> Noise:
        """As `of`, but known noise no further than it is believed by now."""
        noise = self.of(raters)
        return noise if self.learned is not None else self.belief * noise

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """What Trainer needs for it."""
        if self.learned is not None:
            return [RaterNoiseCallback(self.learned)]
        return [GradualNoiseCallback(self)] if self._known else []

    def observe(self, scores: Tensor, targets: Targets) -> None:
        """Note how a batch of answers looks to the model, if noise is learned.

        A tie is no evidence: of two answers, it is neither.

        Args:
            scores: of the flat set of responses, shape (responses,).
            targets: what was judged.
        """
        if self.learned is None:
            return
        with torch.no_grad():
            log_probs = judgement_log_probs(scores.detach(), targets)
            log_random = random_log_probs(targets)
        told = targets.decided
        self.learned.observe(targets.raters[told], log_probs[told], log_random[told])

    @property
    def by_rater(self) -> dict[str, float]:
        """What was learned, by rater; empty if it is known."""
        return {} if self.learned is None else self.learned.by_rater


NO_NOISE = AnswerNoise(NoiseSetting("share"))


class GradualNoiseCallback(TrainerCallback):
    """Lets training believe in known noise step by step; a resumed run is where it was.

    Args:
        noise: what the loss uses, changed in place.
    """

    def __init__(self, noise: AnswerNoise) -> None:
        self._noise = noise

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """From nothing at the first step to all of it after `GRADUAL` of them."""
        self._noise.belief = min(1.0, state.global_step / max(1.0, GRADUAL * state.max_steps))


class RaterNoiseCallback(TrainerCallback, ExportableState):
    """Expectation maximisation beside training: every now and then the noise is updated.

    Args:
        noise: what the loss uses, changed in place.
    """

    def __init__(self, noise: RaterNoise) -> None:
        self._noise = noise

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take up what a checkpoint holds.

        Raises:
            InvalidArgument: several processes, each of which would see a part of the answers.
        """
        if args.world_size > 1:
            raise InvalidArgument(
                "noise",
                "learned",
                f"each of {args.world_size} processes would learn a noise of its own",
                "Train in one process, or give the share: share=0.1",
            )
        kept: Any = state.stateful_callbacks  # a dictionary by now, whatever it is declared to be
        if kept and type(self).__name__ in kept:
            self._noise.load_state_dict(kept[type(self).__name__]["attributes"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Maximisation, ten times an epoch, and with its last step before it is evaluated."""
        every = max(1, int(state.max_steps / max(1.0, args.num_train_epochs)) // UPDATES)
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            self._noise.update()

    def state(self) -> dict[str, Any]:
        """For Trainer's checkpoint."""
        return {"args": {}, "attributes": self._noise.state_dict()}
