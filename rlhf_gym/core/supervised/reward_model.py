"""Reward models: from pairs, rankings, thumbs and ratings to one number for a response.

The base is a causal language model with a linear head in place of its vocabulary. What the data
says is made likely (Bradley-Terry, Plackett-Luce, Bernoulli, normal), the epoch that serves unseen
prompts best is kept, and the scores are normalised to mean 0, deviation 1.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.supervised.common import StageConfig, close_folder, last_checkpoint, open_folder
from rlhf_gym.core.supervised.noise_setting import NoiseSetting
from rlhf_gym.core.supervised.preference_data import (
    Judgement,
    encode,
    read_judgements,
)
from rlhf_gym.core.supervised.preference_split import split_judgements
from rlhf_gym.core.supervised.reward_scale import normalise, scale_responses
from rlhf_gym.core.tokenizers import TokenizerKind

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_gym.core.likelihoods import Noise
    from rlhf_gym.core.supervised.preference_noise import AnswerNoise
    from rlhf_gym.core.supervised.trainer import Batch

REPORT_FILE = "report.md"
"""Where a person reads what the result is worth, and to whom."""

_COPIED = (
    "accuracy",
    "loss",
    "calibration_error",
    "length_correlation",
    "longer_wins",
    "rating_concordance",
)


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(StageConfig):
    """Learn a reward from feedback: pairs, rankings, thumbs, ratings."""

    data: tuple[str, ...]
    """Files, folders or hub names; columns say which kind of feedback a row is (see the docs)."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns to rename: name in the file, then the name wanted (sentence text)."""
    limit: int | None = None
    """Learn from this many rows at most, drawn at random."""
    held_out_data: tuple[str, ...] = ()
    """Judge the result by these files in place of a share of the data."""
    validation: float = 0.1
    """Share of the training prompts that choose the best epoch; 0 keeps the last."""
    model: str | None = None
    """Base: directory or hub name of a language model."""
    size: str = "tiny"
    """Shape of a fresh base if there is no model: tiny, small, medium or gpt2."""
    tokenizer: TokenizerKind = "bpe"
    """Kind of tokenizer to train for a fresh base: bpe, word or char."""
    vocab_size: int = 4096
    """Tokens of that tokenizer, at most."""
    context: int = 256
    """Longest sequence in tokens; of longer ones the end is read."""
    trust_remote_code: bool = False
    """Let the directory of --model execute Python code of its own."""
    cut: float = 0.0
    """Share of the training responses that are cut at a random token; above 0 where the policy's
    budget is shorter than the responses here, so that unfinished ones get fair scores too."""
    token_loss: float = 0.0
    """Share of the loss that is taken at the mean score of a response's tokens, in place of the
    score at its last; 0.5 suits a few hundred labels. Causal base models only."""
    noise: float | str = 0.0
    """Wrong answers: share=0.1 (or 0.1) given at random, flipped=0.3 turned round; learned, one
    share for everybody; raters, one for each of them, by the column `rater`."""
    paraphrases: str | None = None
    """Feedback to try the result on, whose rows of one `meaning` ask the same in other words."""
    normalise_on: str | None = None
    """Responses (`prompt` and `completion`, or `text`) whose scores get mean 0 and deviation 1,
    such as samples of the policy to be trained; by default the training responses."""
    epochs: float = 3.0
    """Passes over the training data."""
    learning_rate: float = 5e-4
    """Peak of AdamW's learning rate; for a large pretrained base 1e-5, for example."""
    held_out: float = 0.1
    """Share of the prompts kept to judge the result, never used to choose anything."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise InvalidArgument("data", self.data, "nothing to read", "Name a file")
        self._check("context", self.context >= 2, "2 or more", "Give 256, for example")
        NoiseSetting.parse(self.noise)
        for name in ("validation", "cut"):
            value = getattr(self, name)
            self._check(name, 0 <= value < 1, "a share", "Give a number from 0 to below 1")
        self._check("token_loss", 0 <= self.token_loss <= 1, "a share", "Give a number from 0 to 1")
        self._check("limit", self.limit is None or self.limit >= 1, "a count", "Give 1 or more")


@dataclass(frozen=True)
class RewardModelResult:
    """What reward training came to; the held-out numbers are those of `RewardMetrics`.

    Attributes:
        output: the folder.
        parameters: of the model.
        train_judgements: rows learned from.
        held_out_judgements: rows of the held-out numbers.
        steps: updates.
        seconds: of training.
        accuracy: share of right decisions on held-out prompts.
        accuracy_interval: its 95 % interval.
        loss: nats a held-out judgement.
        calibration_error: mean distance of confidence and accuracy.
        length_correlation: rank correlation of score and length.
        longer_wins: accuracy of "the longer response is better".
        rating_concordance: share of differently rated pairs that the scores order alike.
        score_mean: of the scores before normalisation.
        score_std: of the scores before normalisation; sigmoid(score_std (a - b)) is the probability
            that the response with score a beats that with score b.
    """

    output: Path
    parameters: int
    train_judgements: int
    held_out_judgements: int
    steps: int
    seconds: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    loss: float
    calibration_error: float
    length_correlation: float
    longer_wins: float
    rating_concordance: float
    score_mean: float
    score_std: float


def train_reward_model(config: RewardModelConfig) -> RewardModelResult:
    """Train a reward model on feedback and write it with its tokenizer.

    Raises:
        FolderNotWritable, InvalidCheckpoint: the output folder or the base cannot be used.
        InvalidData: rows that are no feedback, or feedback that says nothing.
        NonFiniteTraining: training diverged.
    """
    folder = open_folder(config, "reward-model")
    split = split_judgements(config)
    worded = [] if config.paraphrases is None else read_judgements(config.paraphrases)
    scaled_on = scale_responses(config, split.train)
    model, tokenizer = _starting_point(config, folder, split.train)

    from rlhf_gym.core.models import context_length
    from rlhf_gym.core.supervised.best_model import BestModel
    from rlhf_gym.core.supervised.preference_batches import FeedbackCollator, cut_responses
    from rlhf_gym.core.supervised.preference_noise import (
        NO_NOISE,
        AnswerNoise,
    )
    from rlhf_gym.core.supervised.reward_evaluation import evaluate_reward_model
    from rlhf_gym.core.supervised.reward_report import examine
    from rlhf_gym.core.supervised.trainer import Examples, train

    # Who gave held-out data of its own is not known: it is taken at its word.
    ours = split.train + split.validation + ([] if config.held_out_data else split.held_out)
    noise = AnswerNoise(NoiseSetting.parse(config.noise), ours)
    held_noise = NO_NOISE if config.held_out_data else noise
    context = min(config.context, context_length(model.config) or config.context)
    parts = (encode(part, tokenizer, context) for part in (*split, scaled_on, worded))
    examples, chosen_by, held, scaled, reworded = parts
    examples = cut_responses(examples, config.cut, config.seed)
    pad_id = int(tokenizer.pad_token_id)
    best = BestModel(folder)

    def validate(current: PreTrainedModel) -> dict[str, float]:
        seen = (chosen_by, noise) if chosen_by else (held, held_noise)
        metrics, _ = evaluate_reward_model(current, seen[0], pad_id, seen[1])
        if chosen_by:
            best.offer(current, metrics.loss)
        return {k: v for k, v in dataclasses.asdict(metrics).items() if math.isfinite(v)}

    trained = train(
        model,
        Examples(examples, [example.width for example in examples]),
        FeedbackCollator(pad_id, noise.numbers),
        config,
        stage="reward-model",
        evaluate=validate if chosen_by or held else None,
        loss=partial(feedback_loss, noise=noise, token_loss=config.token_loss),
        callbacks=noise.callbacks,
    )
    best.restore(model)
    metrics, bands = evaluate_reward_model(model, held, pad_id, held_noise)
    report = examine(model, held, reworded, pad_id, noise.by_rater)
    mean, std = normalise(model, scaled, pad_id)
    result = RewardModelResult(
        output=folder,
        parameters=model.num_parameters(),
        train_judgements=len(examples),
        held_out_judgements=len(held),
        steps=trained.steps,
        seconds=trained.seconds,
        accuracy_interval=(metrics.accuracy_low, metrics.accuracy_high),
        score_mean=mean,
        score_std=std,
        **{name: getattr(metrics, name) for name in _COPIED},
    )
    details = {
        "held_out": metrics,
        "reliability": [band._asdict() for band in bands],
        "report": report,
    }
    (folder / REPORT_FILE).write_text(report.markdown(), encoding="utf-8")
    close_folder(config, model, tokenizer, {"result": result, **details})
    return result


def feedback_loss(
    model: nn.Module,
    batch: Batch,
    *,
    noise: AnswerNoise | None = None,
    token_loss: float = 0.0,
) -> Tensor:
    """Mean negative log-probability of a batch of judgements, each by its weight, in nats.

    With a token loss every prefix of a response has to say something of the judgement. Few labels
    then teach what the words are worth, and less of what the last token can be made to remember.

    Args:
        model: a sequence classifier with one output, as Trainer may have wrapped it.
        batch: made by `FeedbackCollator`.
        noise: of the raters, who are watched where their noise is learned; None for none.
        token_loss: share of the loss that is taken at the mean score of a response's tokens.

    Source: Cobbe et al. (2021), "Training Verifiers to Solve Math Word Problems", section 4.3,
        whose verifiers judge after every token. There each token has a loss; here it is their mean.
    """
    from rlhf_gym.core.supervised.preference_batches import judgement_log_probs, targets_of

    targets = targets_of(batch)
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        output_hidden_states=token_loss > 0,
    )
    scores = output.logits[:, 0].float()
    shares: Noise = 0.0
    if noise is not None:
        noise.observe(scores, targets)
        shares = noise.in_training(targets.raters)
    log_probs = judgement_log_probs(scores, targets, shares)
    if token_loss > 0:
        means = _mean_scores(model, output.hidden_states[-1], batch["response_mask"])
        of_tokens = judgement_log_probs(means, targets, shares)
        log_probs = (1 - token_loss) * log_probs + token_loss * of_tokens
    # Weights have mean 1 over all data: a batch of experts may well move more than another.
    return -(targets.weights * log_probs).mean()


def _mean_scores(model: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over each response of its prefixes' scores, float32, shape (responses,).

    Args:
        model: a causal sequence classifier, as Trainer may have wrapped it.
        hidden: last hidden states, shape (responses, width, hidden).
        mask: True at tokens of the responses, shape (responses, width).
    """
    from transformers import PreTrainedModel

    from rlhf_gym.core.reward_head import causal_head

    bare = model if isinstance(model, PreTrainedModel) else model.get_submodule("module")
    scores: Tensor = causal_head(cast("PreTrainedModel", bare))(hidden)[..., 0].float()
    return (scores * mask).sum(-1) / mask.sum(-1)


def _starting_point(
    config: RewardModelConfig, folder: Path, judgements: list[Judgement]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model to train, with a fresh head, and its tokenizer."""
    import torch

    from rlhf_gym.core.models import load_tokenizer, new_causal_lm
    from rlhf_gym.core.reward_head import reward_model_from_lm
    from rlhf_gym.core.supervised.language_model import load_for_training
    from rlhf_gym.core.tokenizers import train_tokenizer

    if config.model is not None:
        lm, tokenizer = load_for_training(
            config.model, trust_remote_code=config.trust_remote_code, device=config.device
        )
    else:
        if last_checkpoint(folder) is not None:
            tokenizer = load_tokenizer(folder)
        else:
            texts = (text for j in judgements for text in (j.prompt, *j.responses))
            tokenizer = train_tokenizer(
                texts, config.tokenizer, config.vocab_size, context=config.context
            )
            tokenizer.save_pretrained(folder)
        lm = new_causal_lm(config.size, tokenizer, config.context, config.seed)
    return reward_model_from_lm(lm, torch.Generator().manual_seed(config.seed)), tokenizer
