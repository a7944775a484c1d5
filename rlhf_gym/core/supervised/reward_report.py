"""Where a reward model is right: by margin, by rater, by length, and whatever the wording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from rlhf_gym.core.calibration import Estimate, accuracy_interval
from rlhf_gym.core.supervised.preference_batches import make_targets
from rlhf_gym.core.supervised.preference_data import Example
from rlhf_gym.core.supervised.reward_evaluation import (
    Decisions,
    Floats,
    decisions,
    score_sequences,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BANDS = 4
"""Bands of margin, each with as many decisions."""


@dataclass(frozen=True)
class Accuracy:
    """How often a reward model was right about some decisions.

    Attributes:
        of: which ones.
        accuracy: with its interval over prompts.
        size: how many they are.
    """

    of: str
    accuracy: Estimate
    size: int


@dataclass(frozen=True)
class Wording:
    """What other words for the same question change.

    Attributes:
        meanings: groups of judgements that ask the same in other words.
        spread: root mean square distance of a response's score from its mean over wordings, as a
            share of the deviation of all scores; 0 if wording does not matter.
        flips: share of pairs of wordings of one comparison that are decided differently.
    """

    meanings: int
    spread: float
    flips: float


@dataclass(frozen=True)
class RewardReport:
    """The tables of one reward model.

    Attributes:
        by_margin: by how far apart the model sees the two sides, smallest first.
        by_worth: by how far apart they really are, where the data says.
        by_rater: by who judged, where the data says.
        by_length: where the better one is the longer, or the shorter.
        noise: share of random answers that was learned, by rater.
        wording: None without paraphrases.
    """

    by_margin: list[Accuracy] = field(default_factory=list)
    by_worth: list[Accuracy] = field(default_factory=list)
    by_rater: list[Accuracy] = field(default_factory=list)
    by_length: list[Accuracy] = field(default_factory=list)
    noise: Mapping[str, float] = field(default_factory=dict)
    wording: Wording | None = None

    def markdown(self) -> str:
        """All tables for a person."""
        titles = {
            "Accuracy by margin of the scores": self.by_margin,
            "Accuracy by what the sides are really worth": self.by_worth,
            "Accuracy by rater": self.by_rater,
            "Accuracy by length": self.by_length,
        }
        lines = ["# What the reward model is worth on held-out feedback", ""]
        for title, rows in titles.items():
            if rows:
                lines += [f"## {title}", "", "| of | right, 95 % interval | decisions |"]
                lines += ["|---|---|---|", *(f"| {r.of} | {r.accuracy} | {r.size} |" for r in rows)]
                lines.append("")
        if self.noise:
            lines += [
                "## Answers given at random, as learned",
                "",
                "| rater | share |",
                "|---|---|",
            ]
            lines += [*(f"| {name} | {share:.3f} |" for name, share in self.noise.items()), ""]
        if self.wording is not None:
            lines += [
                "## The same in other words",
                "",
                f"{self.wording.meanings} groups of paraphrases: a score moves by "
                f"{self.wording.spread:.3f} of the deviation of all scores; "
                f"{self.wording.flips:.1%} of the decisions turn round.",
                "",
            ]
        return "\n".join(lines)


def examine(
    model: PreTrainedModel,
    held: Sequence[Example],
    reworded: Sequence[Example],
    pad_id: int,
    noise: Mapping[str, float],
) -> RewardReport:
    """Look at a reward model from all sides.

    Args:
        model: a sequence classifier with one output, in eval mode.
        held: judgements that it was not trained on.
        reworded: judgements some of which ask the same in other words (`meaning`).
        pad_id: fills rows.
        noise: what was learned about raters.
    """
    wording = wording_sensitivity(_scores(model, reworded, pad_id), reworded) if reworded else None
    if not held:
        return RewardReport(noise=noise, wording=wording)
    lengths = np.array([n for e in held for n in e.response_lengths])
    targets = make_targets([example.judgement for example in held])
    found = decisions(_scores(model, held, pad_id), lengths, held, targets)
    raters = np.array([held[i].judgement.rater for i in found.judgements])
    worth = _worth_margins(held, found)
    named = bool(set(raters.tolist()) - {""})
    return RewardReport(
        by_margin=by_size(found, np.abs(found.margins)),
        by_worth=by_size(found, worth),
        by_rater=[_accuracy(found, raters == n, n) for n in np.unique(raters)] if named else [],
        by_length=[
            _accuracy(found, found.longer == value, name)
            for name, value in (("longer is better", 1.0), ("shorter is better", 0.0))
            if (found.longer == value).any()
        ],
        noise=noise,
        wording=wording,
    )


def by_size(found: Decisions, sizes: Floats, bands: int = BANDS) -> list[Accuracy]:
    """Accuracy in bands of equally many decisions.

    Args:
        found: the decisions.
        sizes: what to sort them by, NaN for those to leave out, shape (decisions,).
        bands: how many.
    """
    known = np.flatnonzero(~np.isnan(sizes))
    if not len(known):
        return []
    edges = np.unique(np.quantile(sizes[known], np.linspace(0, 1, bands + 1)))
    band = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for number in np.unique(band[known]):
        chosen = (band == number) & ~np.isnan(sizes)
        name = f"{sizes[chosen].min():.2f} to {sizes[chosen].max():.2f}"
        rows.append(_accuracy(found, chosen, name))
    return rows


def wording_sensitivity(scores: Floats, examples: Sequence[Example]) -> Wording:
    """How far scores and decisions depend on wording alone.

    Args:
        scores: of the flat set of responses, shape (responses,).
        examples: judgements; those of one `meaning` have as many responses each, in one order.
    """
    groups: dict[str, list[Floats]] = {}
    first = 0
    for example in examples:
        count = len(example.sequences)
        if example.judgement.meaning:
            groups.setdefault(example.judgement.meaning, []).append(scores[first : first + count])
        first += count
    tables = [np.stack(rows) for rows in groups.values() if len(rows) > 1]
    if not tables:
        return Wording(0, float("nan"), float("nan"))
    moved = np.concatenate([(table - table.mean(0)).ravel() for table in tables])
    deviation = float(np.std(np.concatenate([table.ravel() for table in tables])))
    turned = [
        decided[a] != decided[b]
        for table in tables
        if table.shape[1] > 1
        for decided in [table[:, 0] > table[:, 1]]
        for a, b in combinations(range(len(decided)), 2)
    ]
    return Wording(
        len(tables),
        float(np.sqrt(np.mean(moved**2))) / deviation if deviation else float("nan"),
        float(np.mean(turned)) if turned else float("nan"),
    )


def _scores(model: PreTrainedModel, examples: Sequence[Example], pad_id: int) -> Floats:
    found = score_sequences(model, [ids for e in examples for ids in e.sequences], pad_id)
    return np.asarray(found.double().numpy(), dtype=np.float64)


def _worth_margins(held: Sequence[Example], found: Decisions) -> Floats:
    """True margin of each decision about a pair, NaN where it is not known."""
    worth = [example.judgement.worth for example in held]
    margins = [abs(w[0] - w[1]) if len(w) == 2 else np.nan for w in worth]
    return np.array(margins, dtype=np.float64)[found.judgements]


def _accuracy(
    found: Decisions, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]], of: str
) -> Accuracy:
    right = (1 + np.sign(found.margins[chosen])) / 2
    prompts = [found.groups[i] for i in np.flatnonzero(chosen)]
    return Accuracy(str(of), accuracy_interval(right, prompts), int(chosen.sum()))
