"""What a step led to, as a reward network reads it: what is seen then, and what changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.stacked_layers import StackedLinear

FARTHEST = 5.0
"""Deviations at which a change is cut off: an event (a vase falls) has a tiny deviation."""


class Outcomes(nn.Module):
    """How each number changed in a step, in deviations, and what was done; and a line through both.

    How far a robot came is the difference of two numbers that it sees, each many times larger. A
    network that has to find that difference itself needs many labels for it; one that is shown it
    needs few, and with a linear path beside its layers fewer still.

    Args:
        encoding: with both ends of a step.
        members: of the ensemble.
        generator: of the beginnings. The line begins flat.

    Attributes:
        width: numbers of `forward`.
        deviation: of each number's change, 1 before `cover`, shape (features,).
    """

    deviation: Tensor

    def __init__(self, encoding: Encoding, members: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = encoding.observation_features + encoding.action_features
        self.line = StackedLinear(members, self.width, 1, generator)
        nn.init.zeros_(self.line.weight)
        self.register_buffer("deviation", torch.ones(encoding.observation_features))

    def forward(self, before: Tensor, after: Tensor, actions: Tensor) -> Tensor:
        """Changes and actions side by side, shape (n, width).

        Args:
            before: shape (n, features).
            after: shape (n, features).
            actions: shape (n, action_features).
        """
        change = ((after - before) / self.deviation).clamp(-FARTHEST, FARTHEST)
        return torch.cat([change, actions], -1)

    def straight(self, outcomes: Tensor) -> Tensor:
        """The members' linear terms, shape (members, n) from (n, width)."""
        terms: Tensor = self.line(outcomes)
        return terms.squeeze(-1)

    @torch.no_grad()
    def cover(self, before: Tensor, after: Tensor) -> None:
        """Measure the changes' deviations, shapes (n, features)."""
        # A number that never changes needs some width.
        self.deviation.copy_((after - before).std(0, correction=0) + 1e-3)
