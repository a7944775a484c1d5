"""How likely a judgement is under a reward model: one family, pure functions of scores.

Each function returns log-probabilities, one per judgement, in nats; `mean_loss` makes a loss of
them. The kinds of judgement agree where they meet: a ranking of two is a pair, a scale of two
levels with its cut at 0 is a thumb.

- Ties: half a preference for each side (`bradley_terry` with 0.5), or an outcome of its own
  (`davidson`).
- Skips: a label of NaN has log-probability 0, and `mean_loss` leaves it out.
- Rater noise: with probability `noise` a rater answers at random, so that one wrong label costs at
  most a bounded loss (Christiano et al. 2017, section 2.2.3, with noise = 0.1). It may be known, or
  learned for each rater (rlhf_gym.core.raters).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlhf_gym.core.errors import InvalidArgument

Noise = Tensor | float
"""Probability that a rater answers at random, from 0 to below 1."""


def bradley_terry(
    first: Tensor, second: Tensor, preference: Tensor | float = 1.0, *, noise: Noise = 0.0
) -> Tensor:
    """A pair: P(first is better) = sigmoid(first - second).

    Args:
        first: scores of one side, shape (batch,).
        second: scores of the other side, shape (batch,).
        preference: 1 where the first is preferred, 0 the second, 0.5 neither, anything between for
            a soft label (its log-probability is then minus the cross-entropy), NaN for a skip.
        noise: probability that the rater answers at random; one for all or shape (batch,).

    Returns:
        Log-probability of each answer, shape (batch,).

    Raises:
        InvalidArgument: a noise outside [0, 1).

    Source: Bradley and Terry (1952); Christiano et al. (2017), equation 1.
    """
    return bernoulli(first - second, preference, noise=noise)


def davidson(
    first: Tensor, second: Tensor, outcome: Tensor, log_tie: Tensor | float = 0.0
) -> Tensor:
    """A pair whose third answer is "equally good".

    With a and b the exponentials of the scores, P(first), P(second), P(tie) are proportional to a,
    b, nu sqrt(a b).

    Args:
        first: scores of one side, shape (batch,).
        second: scores of the other side, shape (batch,).
        outcome: 1 where the first is preferred, 0 the second, 0.5 a tie, NaN a skip, shape
            (batch,).
        log_tie: log nu, how readily raters call a tie; 0 gives equal scores a third each.

    Returns:
        Log-probability of each answer, shape (batch,).

    Source: Davidson (1970), "On Extending the Bradley-Terry Model to Accommodate Ties".
    """
    tie = 0.5 * (first + second) + torch.as_tensor(log_tie, dtype=first.dtype, device=first.device)
    logits = torch.stack([second, tie, first], -1)
    # 0, 0.5 and 1 are the columns 0, 1 and 2.
    column = (2.0 * outcome.nan_to_num(0.0)).long().unsqueeze(-1)
    log_probs = logits.log_softmax(-1).gather(-1, column).squeeze(-1)
    return log_probs.masked_fill(outcome.isnan(), 0.0)


def plackett_luce(
    scores: Tensor,
    mask: Tensor | None = None,
    *,
    places: int | None = None,
    noise: Noise = 0.0,
) -> Tensor:
    """A ranking: the best is drawn by softmax, then the best of the rest, and so on.

        log P = sum over places i of s_i - log sum_{j >= i} exp(s_j)

    Args:
        scores: from best to worst, shape (batch, items).
        mask: True at real items, all before the first False, shape (batch, items); None for all.
        places: how many places were really ranked, the rest in no order; 1 is best of several; None
            for all.
        noise: probability that the rater answers at random; one for all or shape (batch,).

    Returns:
        Log-probability of each ranking, shape (batch,); 0 for a row without two real items.

    Raises:
        InvalidArgument: fewer than 1 place, or a noise outside [0, 1).

    Source: Plackett (1975); Luce (1959); as a preference loss Ouyang et al. (2022) use its pairs.
    """
    if places is not None and places < 1:
        raise InvalidArgument("places", places, "nothing is ranked", "Give 1 or more, or None")
    real = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    # What is not there can never be drawn. A large finite number, since gradients through
    # infinities are NaN.
    logits = scores.masked_fill(~real, torch.finfo(scores.dtype).min / 4)
    rest = logits.flip(-1).logcumsumexp(-1).flip(-1)
    count = real.sum(-1, keepdim=True)
    place = torch.arange(scores.shape[-1], device=scores.device)
    # The last of all has nothing left to win against.
    ranked = (place < count - 1) & (place < (places or scores.shape[-1]))
    log_probs = (logits - rest).masked_fill(~ranked, 0.0).sum(-1)
    # A random ranking of these places: 1 / (count (count - 1) ...), one factor per place.
    factors = (count - place).clamp_min(1).to(scores.dtype).log()
    return _with_noise(log_probs, -factors.masked_fill(~ranked, 0.0).sum(-1), noise)


def bernoulli(logits: Tensor, labels: Tensor | float, *, noise: Noise = 0.0) -> Tensor:
    """A thumb: P(up) = sigmoid(score).

    Args:
        logits: scores, shape (batch,).
        labels: 1 up, 0 down, anything between for a soft label, NaN for a skip; a number for all or
            shape (batch,).
        noise: probability that the rater answers at random; one for all or shape (batch,).

    Returns:
        Log-probability of each answer, shape (batch,).

    Raises:
        InvalidArgument: a noise outside [0, 1).
    """
    labels = torch.as_tensor(labels, dtype=logits.dtype, device=logits.device)
    half = torch.full_like(logits, -math.log(2.0))
    up = _with_noise(nn.functional.logsigmoid(logits), half, noise)
    down = _with_noise(nn.functional.logsigmoid(-logits), half, noise)
    known = labels.nan_to_num(0.5)
    return (known * up + (1.0 - known) * down).masked_fill(labels.isnan(), 0.0)


def ordinal(scores: Tensor, levels: Tensor, cuts: Tensor) -> Tensor:
    """A level on an ordered scale (Likert): P(level <= c) = sigmoid(cut_c - score).

    Args:
        scores: shape (batch,).
        levels: 0 (worst) to the number of cuts (best), -1 for a skip, int64, shape (batch,).
        cuts: where one level ends and the next begins, ascending, shape (number of levels - 1,).

    Returns:
        Log-probability of each level, shape (batch,).

    Raises:
        InvalidArgument: cuts that do not ascend, or a level that there is not.

    Source: McCullagh (1980), "Regression Models for Ordinal Data", the proportional-odds model.
    """
    if not (cuts.diff() > 0).all() or not len(cuts):
        raise InvalidArgument(
            "cuts", cuts.tolist(), "not one or more ascending numbers", "Sort them, without equals"
        )
    if ((levels < -1) | (levels > len(cuts))).any():
        raise InvalidArgument(
            "levels",
            levels.tolist(),
            f"{len(cuts)} cuts make the levels 0 to {len(cuts)}",
            "Count levels from 0, and -1 for a skip",
        )
    top = levels == len(cuts)
    bottom = levels <= 0
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), which keeps its digits
    # where both sigmoids are near 0 or near 1. b is the cut above the level, a the one below.
    above = cuts[levels.clamp(0, len(cuts) - 1)]
    below = cuts[(levels - 1).clamp(0, len(cuts) - 1)]
    log_above = nn.functional.logsigmoid(above - scores).masked_fill(top, 0.0)
    log_below = nn.functional.logsigmoid(scores - below).masked_fill(bottom, 0.0)
    gap = (above - below).masked_fill(top | bottom, torch.inf)
    log_between = torch.log(-torch.expm1(-gap))
    return (log_above + log_below + log_between).masked_fill(levels < 0, 0.0)


def regression(
    scores: Tensor, ratings: Tensor, std: Tensor | float = 1.0, *, noise: Noise = 0.0
) -> Tensor:
    """A rating on a scale of its own: normal with the score as its mean.

    Args:
        scores: shape (batch,).
        ratings: in the unit of the scores, NaN for a skip, shape (batch,).
        std: standard deviation of raters around the score, above 0.
        noise: probability that the rater answers at random, that is, draws from all ratings there
            are, whose mean is taken to be 0 and deviation 1; one for all or shape (batch,).

    Returns:
        Log-density of each rating, shape (batch,).

    Raises:
        InvalidArgument: a noise outside [0, 1).
    """
    spread = torch.as_tensor(std, dtype=scores.dtype, device=scores.device)
    known = ratings.nan_to_num(0.0)
    log_density = log_normal((known - scores) / spread) - spread.log()
    return _with_noise(log_density, log_normal(known), noise).masked_fill(ratings.isnan(), 0.0)


def log_normal(values: Tensor) -> Tensor:
    """Log-density of the standard normal, nats, shape of `values`."""
    return -0.5 * values.square() - 0.5 * math.log(2.0 * math.pi)


def mean_loss(log_probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Mean negative log-probability of the judgements that were given, a scalar; 0 if none was.

    Args:
        log_probs: of each judgement, shape (batch,).
        answered: True where it was not skipped, shape (batch,); None for all.
    """
    counted = torch.ones_like(log_probs, dtype=torch.bool) if answered is None else answered
    return -log_probs.masked_fill(~counted, 0.0).sum() / counted.sum().clamp_min(1)


def random_share(log_probs: Tensor, log_random: Tensor, noise: Noise) -> Tensor:
    """Probability that an answer was given at random, now that it is known.

        noise P_random / ((1 - noise) P + noise P_random)

    Args:
        log_probs: of the answers without noise, nats, shape (batch,).
        log_random: of the same answers by a rater who draws any with equal chance, shape (batch,).
        noise: probability that the rater answers at random; one for all or shape (batch,).

    Returns:
        Shape (batch,).

    Raises:
        InvalidArgument: a noise outside [0, 1).
    """
    mixed = _with_noise(log_probs, log_random, noise)
    return torch.as_tensor(noise, dtype=mixed.dtype) * (log_random - mixed).exp()


def _with_noise(log_probs: Tensor, log_random: Tensor, noise: Noise) -> Tensor:
    """log((1 - noise) P + noise P_random), shapes alike."""
    if isinstance(noise, float | int) and noise == 0:
        return log_probs
    share = torch.as_tensor(noise, dtype=log_probs.dtype, device=log_probs.device)
    if not ((share >= 0) & (share < 1)).all():
        raise InvalidArgument(
            "noise", noise, "a probability below 1 was expected", "Give for example 0.1"
        )
    return torch.logaddexp(log_probs + torch.log1p(-share), log_random + share.log())
