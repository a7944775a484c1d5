"""Numbers as soft bins: how a reward network of few labels is shown what an environment tells."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SoftBins(nn.Module):
    """Each number as Gaussian bumps side by side over the range that it has in the data.

    From few labels a network then learns number by number how much is good, and says little where
    nobody was asked: beyond the range all bumps vanish, whereas a network of plain numbers goes on
    rising, and an agent follows it there. Few wide bins carry what was said of one amount over to
    the next; many narrow ones have to be told of each.

    Args:
        features: how many numbers.
        bins: bumps of each; 0 shows plain numbers.

    Attributes:
        width: numbers that are shown.
        low, high: range of each number, 0 to 1 before `cover`, shape (features,).
    """

    low: Tensor
    high: Tensor

    def __init__(self, features: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.width = features * max(1, bins)
        self.register_buffer("low", torch.zeros(features))
        self.register_buffer("high", torch.ones(features))

    def forward(self, numbers: Tensor) -> Tensor:
        """Shape (..., features) to (..., width)."""
        if not self.bins:
            return numbers
        # Centres at 0 ... bins - 1, each bump as wide as the way to the next.
        distance = (self.place(numbers) * (self.bins - 1))[..., None] - torch.arange(self.bins)
        # In place: no gradient goes through it.
        return distance.square_().mul_(-0.5).exp_().flatten(-2)

    def place(self, numbers: Tensor) -> Tensor:
        """Where numbers lie in their range: 0 at its lower end, 1 at its upper."""
        return (numbers - self.low) / (self.high - self.low)

    @torch.no_grad()
    def cover(self, numbers: Tensor) -> None:
        """Lay the bins over the range of some numbers, shape (n, features)."""
        self.low.copy_(numbers.amin(0))
        # A number that never changes needs some width.
        self.high.copy_(torch.maximum(numbers.amax(0), self.low + 1e-3))
