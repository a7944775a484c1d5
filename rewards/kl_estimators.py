"""Estimators of KL(policy || reference) from one sampled token, and the exact sum: pure functions.

With x drawn from the policy and lr = log pi(x) - log pi_ref(x):

    k1 = lr                     unbiased, high variance, may be negative
    k2 = lr^2 / 2               biased, low variance, never negative
    k3 = exp(-lr) - 1 + lr      unbiased, lower variance than k1 near the reference, never negative

These are statements about values. About gradients, as a reward and as a loss, see docs/kl.md.

Source: Schulman, "Approximating KL Divergence" (2020), http://joschu.net/blog/kl-approx.html
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_k1(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) at each token, in nats; unbiased, negative at times.

    Args:
        log_probs: log-probability of each sampled token, shape (batch, time).
        reference_log_probs: the same under the frozen reference, shape (batch, time).

    Source: Schulman (2020), estimator k1; the penalty of Ziegler et al. (2019), equation 2.
    """
    return log_probs - reference_log_probs


def kl_k2(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) at each token, in nats; biased, never negative.

    Args:
        log_probs: log-probability of each sampled token, shape (batch, time).
        reference_log_probs: the same under the frozen reference, shape (batch, time).

    Source: Schulman (2020), estimator k2.
    """
    return 0.5 * (log_probs - reference_log_probs).square()


def kl_k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) at each token, in nats; unbiased, never negative.

    Args:
        log_probs: log-probability of each sampled token, shape (batch, time).
        reference_log_probs: the same under the frozen reference, shape (batch, time).

    Source: Schulman (2020), estimator k3.
    """
    log_ratio = log_probs - reference_log_probs
    # expm1 keeps the digits where policy and reference nearly agree: exp(-lr) - 1 cancels there.
    return torch.expm1(-log_ratio) + log_ratio


def kl_exact(log_distribution: Tensor, reference_log_distribution: Tensor) -> Tensor:
    """KL(policy || reference) of the next-token distributions, in nats; no sampling noise.

    Args:
        log_distribution: log pi of the whole vocabulary, shape (..., vocab); minus infinity where a
            token is illegal.
        reference_log_distribution: log pi_ref, shape (..., vocab).

    Returns:
        Shape (...): sum over v of pi(v) (log pi(v) - log pi_ref(v)). A token that the policy never
        emits counts 0, whatever the reference thinks of it; one that only the reference excludes
        makes the sum infinite. NaN in the policy's distribution stays NaN. Its gradient is finite.
    """
    probs = log_distribution.exp()
    # 0 log 0 = 0. Masked before the product: inf - inf and 0 * inf would both be NaN.
    log_ratio = (log_distribution - reference_log_distribution).masked_fill(probs == 0, 0.0)
    return (probs * log_ratio).sum(-1)
