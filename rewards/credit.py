"""From what `step` returned to which token earned it."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_gym.core.errors import RewardWasWrapped

RELATIVE_TOLERANCE = 1e-4
"""Of the sum of absolute token rewards: room for float32 sums, not for a wrapper."""

ABSOLUTE_TOLERANCE = 1e-5


def credit_by_token(step_rewards: Tensor, token_rewards: Tensor, mask: Tensor) -> Tensor:
    """Address the rewards that `step` returned to the tokens that earned them.

    The environment reports in `info["token_rewards"]` which token earned what, but an agent must
    train on what `step` returned, wrappers included. Both are compared: equal sums give the tokens'
    rewards as they are; if one common factor explains the difference (a scaling wrapper), the
    tokens are scaled by it; anything else cannot be addressed.

    Args:
        step_rewards: what `step` returned, shape (batch, time).
        token_rewards: the environment's rewards per token, shape (batch, time).
        mask: True at response tokens, shape (batch, time).

    Returns:
        Shape (batch, time), 0 off the mask; each row sums to what `step` returned in it.

    Raises:
        RewardWasWrapped: a wrapper clipped, shifted, normalised or otherwise changed the rewards,
            or paid some of them in other steps than the environment did.
    """
    tokens = torch.where(mask, token_rewards, 0.0).double()
    steps = torch.where(mask, step_rewards, 0.0).double()
    size = tokens.abs().sum(-1)
    factor = _common_factor(steps.sum(-1), tokens.sum(-1), size)
    if factor is None or not _paid_where_expected(steps, factor * tokens, mask):
        raise RewardWasWrapped(
            "step_rewards: what `step` returned is not a multiple of what the environment credited "
            "to tokens (info['token_rewards']); a wrapper clipped, shifted or normalised it. Build "
            "the environment with reward_timing='step', which an agent can train on whatever "
            "wrappers do to it, or remove the wrapper."
        )
    return (factor * tokens).to(token_rewards.dtype)


def _common_factor(returned: Tensor, credited: Tensor, size: Tensor) -> float | None:
    """The one factor with returned = factor * credited in every row, 1 if they agree; None if none.

    Args:
        returned: return of each episode as `step` paid it, shape (batch,).
        credited: the same as the environment credited it, shape (batch,).
        size: sum of absolute token rewards of each episode, shape (batch,).
    """
    tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * size
    if ((returned - credited).abs() <= tolerance).all():
        return 1.0
    # Least squares: argmin over c of |returned - c credited|^2.
    factor = float((returned * credited).sum() / credited.square().sum().clamp_min(1e-30))
    tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * size * abs(factor)
    fits = ((returned - factor * credited).abs() <= tolerance).all()
    # A factor of 0 is a wrapper that pays nothing, or rows that were mixed up: never a scaling.
    return factor if fits and factor != 0 else None


def _paid_where_expected(steps: Tensor, tokens: Tensor, mask: Tensor) -> bool:
    """True if the steps paid token by token, or all at the last one; a bonus per step does neither.

    With one episode alone any return is a multiple of any other, so the sums would not show it.

    Args:
        steps: what `step` returned, 0 off the mask, shape (batch, time).
        tokens: the credited rewards, scaled, shape (batch, time).
        mask: True at response tokens, shape (batch, time).
    """
    tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * tokens.abs().sum(-1, keepdim=True)
    last = mask & (mask.long().cumsum(-1) == mask.sum(-1, keepdim=True))
    paid_at_end = (steps.abs() <= tolerance) | last
    paid_by_token = (steps - tokens).abs() <= tolerance
    return bool(paid_at_end.all() or paid_by_token.all())
