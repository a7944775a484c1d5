"""The scale of a reward model's scores: mean 0, deviation 1 on chosen responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.supervised.preference_data import Example, Judgement, read_responses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlhf_gym.core.supervised.reward_model import RewardModelConfig

SCALE_JUDGEMENTS = 4096
"""Scores are normalised on the responses of so many rows at most: to within 2 %."""


def scale_responses(config: RewardModelConfig, train: list[Judgement]) -> list[Judgement]:
    """Whose scores get mean 0 and deviation 1: given responses, or the training ones.

    Args:
        config: of the stage.
        train: rows learned from.

    Raises:
        InvalidData: all of them are the same.
    """
    judgements = train
    if config.normalise_on is not None:
        judgements = read_responses(config.normalise_on, columns=config.columns)
    if len({(j.prompt, response) for j in judgements for response in j.responses}) < 2:
        raise InvalidData(
            "normalise_on",
            config.normalise_on,
            "one response has one score, and no deviation",
            "Give many different ones",
        )
    if len(judgements) <= SCALE_JUDGEMENTS:
        return judgements
    drawn = np.random.default_rng(config.seed).choice(
        len(judgements), SCALE_JUDGEMENTS, replace=False
    )
    return [judgements[i] for i in drawn]


def normalise(model: PreTrainedModel, examples: list[Example], pad_id: int) -> tuple[float, float]:
    """Fold mean 0 and deviation 1 on these responses into the model.

    Args:
        model: a sequence classifier with one output.
        examples: encoded responses.
        pad_id: of its tokenizer.

    Returns:
        Mean and deviation as they were before.
    """
    from rlhf_gym.core.reward_head import fold_normalisation
    from rlhf_gym.core.supervised.reward_evaluation import score_sequences

    scores = score_sequences(model, [ids for e in examples for ids in e.sequences], pad_id)
    mean, std = float(scores.mean()), float(scores.std(correction=0))
    fold_normalisation(model, mean, std)
    return mean, std
