"""The arithmetic of policy-gradient agents: pure functions on (batch, time) tensors, no state.

Rows are responses, right padded. `mask` is True where a token counts, the stop token included. What
stands off the mask never changes a result, and results are 0 there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf_gym.core.tokens import TokenRules, legal_logits


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that count, shape (); 0 if none does.

    Args:
        values: shape (batch, time).
        mask: True where a token counts, shape (batch, time).
    """
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp_min(1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance over the tokens that count, shape ().

    Args:
        values: shape (batch, time).
        mask: True where a token counts, shape (batch, time).
    """
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scale to deviation 1 over the tokens that count.

    Args:
        values: shape (batch, time).
        mask: True where a token counts, shape (batch, time).
        shift_mean: also shift the mean to 0. Advantages are shifted; rewards are not, because a
            shift would pay or charge every further token.
        eps: added to the variance.

    Returns:
        Shape (batch, time), 0 off the mask.

    Source: Ziegler et al. (2019), openai/lm-human-preferences, `utils.whiten`: population variance.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + eps)
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0.0)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation of episodes that end with their last token.

        delta_t = r_t + gamma V_{t+1} - V_t,    V = 0 behind the last token
        A_t     = delta_t + gamma lambda A_{t+1}
        R_t     = A_t + V_t

    Args:
        rewards: per token, shape (batch, time).
        values: of the state before each token, shape (batch, time).
        mask: True at response tokens, shape (batch, time).
        gamma: discount per token.
        gae_lambda: 1 is the return minus the value, 0 the one-step error.

    Returns:
        Advantages and returns (the targets of the values), each of shape (batch, time), 0 off the
        mask.

    Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation" (2016), equation 16.
    """
    rewards = rewards.masked_fill(~mask, 0.0)
    values = values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Off the mask all three terms are 0, so nothing leaks from the padding into the last token.
        next_advantage = delta + gamma * gae_lambda * next_advantage
        advantages[:, t] = next_advantage
        next_value = values[:, t]
    return advantages, advantages + values


def leave_one_out(returns: Tensor, group: int) -> Tensor:
    """Return of each response minus the mean return of the others to the same prompt.

        A_i = R_i - (1 / (k - 1)) sum_{j != i} R_j = k / (k - 1) (R_i - mean R)

    Args:
        returns: of whole responses, those to a prompt one after another, shape (batch,).
        group: k, responses to a prompt, 2 or more.

    Returns:
        Shape (batch,).

    Source: Kool et al. (2019), "Buy 4 REINFORCE Samples, Get a Baseline for Free!", equation 6;
    Ahmadian et al. (2024), "Back to Basics", equation 8.
    """
    by_prompt = returns.view(-1, group)
    advantages = (by_prompt - by_prompt.mean(-1, keepdim=True)) * (group / (group - 1))
    return advantages.flatten()


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """PPO's pessimistic surrogate, negated, at each token, shape (batch, time).

        L_t = max(-A_t ratio_t, -A_t clip(ratio_t, 1 - eps, 1 + eps)),  ratio_t = pi / pi_old

    Args:
        log_probs: of the sampled tokens under the policy being trained, shape (batch, time).
        old_log_probs: the same under the policy that sampled, shape (batch, time).
        advantages: shape (batch, time).
        clip_range: eps.

    Source: Schulman et al., "Proximal Policy Optimization Algorithms" (2017), equation 7.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None
) -> Tensor:
    """Half the squared error of the values, pessimistic about large moves, shape (batch, time).

    Args:
        values: predicted now, shape (batch, time).
        old_values: predicted while sampling, shape (batch, time).
        returns: targets, shape (batch, time).
        clip_range: how far a value may move from its old one and still gain; None clips nothing.

    Source: openai/lm-human-preferences, `train_policy.py`, `loss`; "The N Implementation Details of
    RLHF with PPO" (2023), section on the value function.
    """
    error = (values - returns).square()
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        error = torch.maximum(error, (clipped - returns).square())
    return 0.5 * error


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share of the returns' variance that the values explain, shape (): 1 is perfect, 0 a constant.

    Args:
        values: shape (batch, time).
        returns: shape (batch, time).
        mask: True where a token counts, shape (batch, time).

    Returns:
        1 - Var[returns - values] / Var[returns]; NaN when the returns do not vary.
    """
    variance = masked_variance(returns, mask)
    share = 1.0 - masked_variance(returns - values, mask) / variance
    return share.where(variance > 0, torch.nan)


class _LogProbsAndEntropy(torch.autograd.Function):
    """Chosen log-probabilities and entropies with one buffer of the logits' size kept for backward.

    Autograd through log_softmax, gather and the entropy's products would keep four.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, actions: Tensor, rules: TokenRules, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        shifted = legal_logits(logits.float(), rules, mask)
        shifted -= shifted.amax(-1, keepdim=True)
        probs = shifted.exp()
        total = probs.sum(-1, keepdim=True)
        probs /= total
        log_total = total.squeeze(-1).log()
        log_probs = shifted.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - log_total
        # H = -sum_j pi_j (shifted_j - log_total); 0 log 0 = 0, so what is illegal becomes finite.
        finite = shifted.clamp_min_(torch.finfo(shifted.dtype).min)
        entropy = log_total - torch.linalg.vecdot(probs, finite)
        ctx.save_for_backward(probs, actions, entropy)
        ctx.temperature = rules.temperature
        ctx.model_vocab = logits.shape[-1]
        ctx.dtype = logits.dtype
        # Without an entropy bonus its gradient stays None.
        ctx.set_materialize_grads(False)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_chosen: Tensor | None, d_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        probs, actions, entropy = ctx.saved_tensors
        if d_chosen is None:
            d_chosen = torch.zeros_like(entropy)
        # d log pi(a) / d logit_j = [j = a] - pi_j
        gradient = probs * -d_chosen.unsqueeze(-1)
        gradient.scatter_add_(-1, actions.unsqueeze(-1), d_chosen.unsqueeze(-1))
        if d_entropy is not None:
            # d H / d logit_j = -pi_j (log pi_j + H), 0 where pi_j is
            surprise = probs.log().masked_fill_(probs == 0, 0.0).add_(entropy.unsqueeze(-1))
            gradient -= surprise.mul_(probs).mul_(d_entropy.unsqueeze(-1))
        if ctx.temperature != 1.0:
            gradient /= ctx.temperature
        unused = ctx.model_vocab - gradient.shape[-1]
        if unused:
            gradient = torch.nn.functional.pad(gradient, (0, unused))
        return gradient.to(ctx.dtype), None, None, None


def log_probs_and_entropy(
    logits: Tensor, actions: Tensor, rules: TokenRules, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each action and entropy of its distribution, both differentiable once.

    Args:
        logits: a model's raw logits, shape (..., at least vocab).
        actions: token ids, shape (...).
        rules: temperature and the tokens that are never legal.
        mask: True where an action was allowed, shape (..., vocab); None allows all.

    Returns:
        log pi(a) and H(pi) in nats, float32, each of shape (...).
    """
    result: tuple[Tensor, Tensor] = _LogProbsAndEntropy.apply(  # type: ignore[no-untyped-call]
        logits, actions, rules, mask
    )
    return result
