"""The KL estimators on Exact-v0, where expectations are sums over every response: no sampling.

With lr_t = log pi(y_t) - log pi_ref(y_t) and LR their sum over the response, an estimator k is used
in three ways:

    token      k(lr_t), an estimate of KL(pi(.|s_t) || pi_ref(.|s_t)) from the one token drawn there
    response   sum_t k(lr_t): what the reward charges, whichever its placement
    sequence   k(LR), an estimate of the whole response's KL from its joint log-ratio

The gradient of the KL is taken with respect to the logits of a table, one for each prefix and
token, so that it is exact and belongs to no architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact.judge import ExactJudge
from rlhf_gym.envs.exact.solver import NodeTable, ResponseTree
from rlhf_gym.rewards.kl_estimators import kl_exact, kl_k1, kl_k2, kl_k3

Use = Literal["token", "response", "sequence"]

ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": kl_k1,
    "k2": kl_k2,
    "k3": kl_k3,
}


_SLOPES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "k1": torch.ones_like,
    "k2": torch.clone,
    "k3": lambda log_ratio: -torch.expm1(-log_ratio),
}
"""d k / d lr."""


class Error(NamedTuple):
    """How far an estimator is off, in nats.

    Attributes:
        truth: what it estimates; the mean over tokens, or over responses.
        bias: expectation minus truth.
        deviation: of one estimate around its expectation, given the state that it is made in.
    """

    truth: float
    bias: float
    deviation: float


@dataclass(frozen=True)
class EveryResponse:
    """All responses to all prompts under a policy, float64; prompts are equally likely.

    Attributes:
        weight: probability of prompt and response together, shape (prompts, responses).
        log_probs: log pi of each token, 0 behind the last, shape (prompts, responses, time).
        reference_log_probs: the same of the reference.
        kl: of the next token's distributions before each token, the same shape.
        onehot_distance: |onehot - pi|^2 of each token and its state's probabilities, the same
            shape; how far the token's log-probability pulls at the logits, squared.
        kl_pull: the same of the state's KL, sum over v of pi(v)^2 (log-ratio(v) - KL)^2.
        mask: True at tokens, shape (responses, time).
    """

    weight: Tensor
    log_probs: Tensor
    reference_log_probs: Tensor
    kl: Tensor
    onehot_distance: Tensor
    kl_pull: Tensor
    mask: Tensor


def every_response(tree: ResponseTree, policy: NodeTable, reference: NodeTable) -> EveryResponse:
    """Enumerate; differentiable in the policy's table, but for `weight`."""
    log_probs = tokens_along(tree, policy)
    rows = list(zip(policy, reference, strict=True))
    # A row of the vocabulary has one KL: spread over its tokens, it can be gathered as they are.
    kl = tuple(kl_exact(p, q).unsqueeze(-1).expand_as(p) for p, q in rows)
    probs = tuple(p.detach().exp() for p in policy)
    distance = tuple(1 - 2 * p + p.square().sum(-1, keepdim=True) for p in probs)
    pull = tuple(_kl_pull(p.detach(), q) for p, q in rows)
    _, lengths = tree.responses()
    weight = log_probs.detach().sum(-1).exp() / len(log_probs)
    # What the policy never writes counts 0, whatever its log-ratio: 0 * inf would be NaN.
    never = (weight == 0).unsqueeze(-1)
    return EveryResponse(
        weight=weight,
        log_probs=log_probs.masked_fill(never, 0.0),
        reference_log_probs=tokens_along(tree, reference).masked_fill(never, 0.0),
        kl=tokens_along(tree, kl),
        onehot_distance=tokens_along(tree, distance),
        kl_pull=tokens_along(tree, pull),
        mask=torch.arange(tree.horizon) < lengths.unsqueeze(-1),
    )


def _kl_pull(policy: Tensor, reference: Tensor) -> Tensor:
    """|d KL / d logits|^2 of each row, spread over its tokens, shape as `policy`."""
    probs = policy.exp()
    log_ratio = (policy - reference).masked_fill(probs == 0, 0.0)
    slope = probs * (log_ratio - kl_exact(policy, reference).unsqueeze(-1))
    return slope.square().sum(-1, keepdim=True).expand_as(policy)


def tokens_along(tree: ResponseTree, table: NodeTable) -> Tensor:
    """A table's entry at each token of every response, shape (prompts, responses, horizon)."""
    rows, lengths = tree.responses()
    place = torch.full((tree.rules.vocab_size,), -1)
    place[list(tree.letters)] = torch.arange(len(tree.letters))
    node = torch.zeros(len(rows), dtype=torch.long)
    columns = []
    for depth in range(tree.horizon):
        alive, token = depth < lengths, rows[:, depth]
        at = torch.where(alive, node, 0), torch.where(alive, token, tree.letters[0])
        columns.append(table[depth][:, at[0], at[1]] * alive)
        node = torch.where(depth + 1 < lengths, node * len(tree.letters) + place[token], 0)
    return torch.stack(columns, -1)


def estimator_error(responses: EveryResponse, estimator: str, use: Use) -> Error:
    """Bias and deviation of an estimator, exactly.

    Args:
        responses: of the policy.
        estimator: "k1", "k2", "k3"; or "exact", which is no estimate of a token's KL, but of a
            response's: other states could have been met.
        use: see the module.
    """
    weight, log_probs, reference = (
        responses.weight,
        responses.log_probs,
        responses.reference_log_probs,
    )
    if use == "token":
        estimate = (
            responses.kl if estimator == "exact" else ESTIMATORS[estimator](log_probs, reference)
        )
        error = (estimate - responses.kl) * responses.mask
        tokens = (weight.unsqueeze(-1) * responses.mask).sum()
        weights = weight.unsqueeze(-1) * responses.mask / tokens
        bias = (weights * error).sum()
        deviation = (weights * (error - bias).square()).sum().sqrt()
        return Error(float((weights * responses.kl).sum()), float(bias), float(deviation))
    truth = (weight * (log_probs - reference).sum(-1)).sum()
    if use == "sequence":
        if estimator == "exact":
            raise InvalidArgument(
                "estimator",
                estimator,
                "whole responses have no table to sum",
                "Take use='response'",
            )
        estimate = ESTIMATORS[estimator](log_probs.sum(-1), reference.sum(-1))
    else:
        estimate = _token_estimates(responses, estimator).sum(-1)
    mean = (weight * estimate).sum()
    deviation = (weight * (estimate - mean).square()).sum().sqrt()
    return Error(float(truth), float(mean - truth), float(deviation))


class GradientError(NamedTuple):
    """How far an expected gradient is from that of the KL of whole responses.

    Attributes:
        cosine: of the angle between the two; NaN if one of them is 0.
        ratio: of their norms.
        bias: norm of the difference, as a share of the true gradient's norm.
        noise: root of the expected squared deviation of one response's gradient, likewise.
    """

    cosine: float
    ratio: float
    bias: float
    noise: float


def gradient_error(judge: ExactJudge, policy: NodeTable, estimator: str, how: str) -> GradientError:
    """The expected gradient of a way to charge KL, beside the gradient of KL itself.

    Args:
        judge: of Exact-v0.
        policy: log-probabilities at every prefix.
        estimator: "k1", "k2", "k3" or "exact".
        how: "reward" (the estimates are a cost, credited to their token and those before it;
            score-function gradient), "loss" (the tokens' estimates are differentiated, their mean
            descended), or "sequence loss" (the same with k(LR)).
    """
    tree = judge.tree
    logits = tuple(table.clone().requires_grad_() for table in policy)
    tables = tuple(table.log_softmax(-1) for table in logits)
    responses = every_response(tree, tables, judge.reference)
    truth = _gradient(_score_function(responses, "k1"), logits)
    surrogate = {
        "reward": lambda: _score_function(responses, estimator),
        "loss": lambda: (responses.weight * _token_estimates(responses, estimator).sum(-1)).sum(),
        "sequence loss": lambda: (
            responses.weight
            * ESTIMATORS[estimator](
                responses.log_probs.sum(-1), responses.reference_log_probs.sum(-1)
            )
        ).sum(),
    }[how]()
    found = _gradient(surrogate, logits)
    norm, other = truth.norm(), found.norm()
    # What autograd leaves of a gradient that is 0 has a length, but no direction.
    vanishes = bool(other < 1e-9 * norm)
    return GradientError(
        cosine=float("nan") if vanishes else float(truth @ found / (norm * other)),
        ratio=float(other / norm),
        bias=float((found - truth).norm() / norm),
        noise=_noise(responses, estimator, how, found) / float(norm),
    )


def _token_estimates(responses: EveryResponse, estimator: str) -> Tensor:
    """Shape (prompts, responses, time), 0 off the mask."""
    if estimator == "exact":
        return responses.kl * responses.mask
    return ESTIMATORS[estimator](responses.log_probs, responses.reference_log_probs)


def _score_function(responses: EveryResponse, estimator: str) -> Tensor:
    """What has the gradient of a policy that pays the estimates, shape ()."""
    return (
        responses.weight.unsqueeze(-1) * _costs_to_go(responses, estimator) * responses.log_probs
    ).sum()


def _costs_to_go(responses: EveryResponse, estimator: str) -> Tensor:
    """Estimates of each token and those behind it, detached, shape (prompts, responses, time).

    The exact KL of a token's own state does not depend on the token, but on the policy there: its
    gradient is not in the score function's, which is what makes "exact" in the reward biased.
    """
    estimates = _token_estimates(responses, estimator).detach()
    return estimates.flip(-1).cumsum(-1).flip(-1) * responses.mask


def _gradient(surrogate: Tensor, logits: NodeTable) -> Tensor:
    """With respect to all logits, one vector; illegal tokens have none."""
    parts = torch.autograd.grad(surrogate, logits, retain_graph=True)
    return torch.cat([part.nan_to_num().flatten() for part in parts])


def _noise(responses: EveryResponse, estimator: str, how: str, mean: Tensor) -> float:
    """Root of E |g - E g|^2, g the gradient from one prompt and response.

    The states of a response are different rows of the table, so squares add up: a token of weight w
    adds w^2 |onehot - pi|^2.
    """
    log_probs, reference = responses.log_probs.detach(), responses.reference_log_probs
    if how == "loss" and estimator == "exact":
        per_token = responses.kl_pull
    else:
        if how == "reward":
            factor = _costs_to_go(responses, estimator)
        else:
            whole = how == "sequence loss"
            ratio = (
                (log_probs - reference).sum(-1, keepdim=True) if whole else log_probs - reference
            )
            factor = _SLOPES[estimator](ratio) * responses.mask
        per_token = factor.square() * responses.onehot_distance
    second = (responses.weight.unsqueeze(-1) * per_token * responses.mask).sum()
    return float((second - mean.square().sum()).clamp_min(0).sqrt())
