"""Feedback parted into what is learned from, what chooses the epoch and what judges the result."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlhf_gym.core.data import hold_out
from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.supervised.preference_data import Judgement, read_judgements

if TYPE_CHECKING:
    from rlhf_gym.core.supervised.reward_model import RewardModelConfig


class Split(NamedTuple):
    """Judgements by their use; no prompt is in two of them."""

    train: list[Judgement]
    validation: list[Judgement]
    held_out: list[Judgement]


def split_judgements(config: RewardModelConfig) -> Split:
    """Read the feedback and part it, so that a prompt is on one side only.

    Training rows whose prompt stands in held-out data of its own are left out, and so are rows of
    no weight. Ratings are brought to mean 0, deviation 1 of the training ratings of their scale,
    which is the size of a fresh head's scores, and weights to mean 1: they move no learning rate.

    Raises:
        InvalidData: rows that are no feedback; thumbs that all point the same way, as the first
            rows of a file sorted by label do; ratings that are all equal.
    """
    judgements = [j for path in config.data for j in read_judgements(path, columns=config.columns)]
    if config.limit is not None and config.limit < len(judgements):
        # The first rows of a sorted file would all be of one label.
        rng = np.random.default_rng(config.seed)
        drawn = rng.choice(len(judgements), config.limit, replace=False)
        judgements = [judgements[i] for i in sorted(drawn)]
    by_prompt = partial(hold_out, seed=config.seed, key=lambda judged: judged.group)
    if config.held_out_data:
        held = [
            j
            for path in config.held_out_data
            for j in read_judgements(path, columns=config.columns)
        ]
        theirs = {judged.group for judged in held}
        judgements = [judged for judged in judgements if judged.group not in theirs]
    else:
        judgements, held = by_prompt(judgements, config.held_out)
    if not judgements:
        raise InvalidData(
            "data",
            config.data,
            "every prompt stands in the held-out data too",
            "Give other data to train on",
        )
    train, validation = by_prompt(judgements, config.validation)
    train = _standardise_weights(train)
    _check_informative(train)
    return _standardise_ratings(Split(train, validation, held))


def _standardise_weights(judgements: list[Judgement]) -> list[Judgement]:
    counted = [judged for judged in judgements if judged.weight > 0]
    if not counted:
        raise InvalidData("weight", 0.0, "no row counts", "Give some rows a weight above 0")
    mean = sum(judged.weight for judged in counted) / len(counted)
    if all(judged.weight == mean for judged in counted) and mean == 1:
        return counted
    return [dataclasses.replace(judged, weight=judged.weight / mean) for judged in counted]


def _check_informative(judgements: list[Judgement]) -> None:
    for kind, column in (("thumbs", "label"), ("rating", "rating")):
        values = {j.value for j in judgements if j.kind == kind}
        if len(values) == 1 and all(j.kind == kind for j in judgements):
            raise InvalidData(
                column,
                values.pop(),
                f"all {len(judgements)} rows have this value, so there is nothing to learn",
                "Give data in which it differs",
            )


def _standardise_ratings(split: Split) -> Split:
    """Each scale by the mean and deviation of its own training ratings."""
    by_scale: dict[str, list[float]] = defaultdict(list)
    for judged in split.train:
        if judged.kind == "rating":
            by_scale[judged.scale].append(judged.value)
    # Equal ratings say nothing about what is better: all of them are the mean then.
    sizes = {s: (float(np.mean(v)), float(np.std(v)) or 1.0) for s, v in by_scale.items()}

    def standardised(judged: Judgement) -> Judgement:
        if judged.kind != "rating" or judged.scale not in sizes:
            return judged
        mean, std = sizes[judged.scale]
        return dataclasses.replace(judged, value=(judged.value - mean) / std)

    return Split(*([standardised(judged) for judged in part] for part in split))
