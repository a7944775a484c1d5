"""How often each rater answers at random, learned together with the scores they are judged by.

A rater answers at random with probability `noise`, and otherwise by the scores. Who is random where
is not known, so it is expectation maximisation, one step of each in turn: from scores and noise the
probability that each answer was random (`likelihoods.random_share`), from these the noise of each
rater; the scores meanwhile learn from the answers with that noise in their likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument

MOST = 0.99
"""A rater of noise 1 could never be heard again, whatever the scores learn later."""


class RaterNoise:
    """The noise of each rater.

    Args:
        names: the raters, each once.
        prior: noise expected of a rater of whom nothing is known yet.
        strength: how many answers that expectation is worth.

    Raises:
        InvalidArgument: a name twice, a prior that is no probability, or no strength.

    Source: Dawid and Skene (1979), "Maximum Likelihood Estimation of Observer Error-Rates Using the
        EM Algorithm", with one error rate per rater, and scores in the place of true classes.
    """

    def __init__(self, names: Sequence[str], *, prior: float = 0.1, strength: float = 10.0) -> None:
        if len(set(names)) < len(names):
            raise InvalidArgument("names", list(names), "a name twice", "Give each rater once")
        if not 0 < prior < 1:
            raise InvalidArgument("prior", prior, "not between 0 and 1", "Give 0.1, for example")
        if not strength > 0:
            raise InvalidArgument(
                "strength", strength, "a rater without answers would have no noise", "Give 10"
            )
        self._index = {name: number for number, name in enumerate(names)}
        self._prior = prior
        self._strength = strength
        self._noise = torch.full((len(names),), prior, dtype=torch.float64)
        self._random = torch.zeros_like(self._noise)
        self._answers = torch.zeros_like(self._noise)

    @property
    def by_rater(self) -> dict[str, float]:
        """The noise of each rater, by name."""
        return dict(zip(self._index, self._noise.tolist(), strict=True))

    def index(self, names: Sequence[str]) -> Tensor:
        """Numbers of raters, int64, shape (batch,).

        Raises:
            InvalidArgument: a rater who was not announced.
        """
        unknown = set(names) - self._index.keys()
        if unknown:
            raise InvalidArgument(
                "rater", sorted(unknown)[0], "nobody of this name", "Name all raters at the start"
            )
        return torch.tensor([self._index[name] for name in names], dtype=torch.long)

    def noise(self, raters: Tensor) -> Tensor:
        """Noise of the raters of some answers, for a likelihood, float32, shape (batch,).

        Args:
            raters: their numbers, shape (batch,).
        """
        return self._noise.float()[raters]

    def observe(self, raters: Tensor, random_shares: Tensor) -> None:
        """Expectation: note how likely each of some answers was random.

        Args:
            raters: who gave them, shape (batch,).
            random_shares: from `likelihoods.random_share`, shape (batch,).
        """
        shares = random_shares.detach().to(self._random)
        self._random.index_add_(0, raters, shares)
        self._answers.index_add_(0, raters, torch.ones_like(shares))

    def update(self) -> None:
        """Maximisation: move every rater's noise to what was noted since the last call."""
        expected = self._random + self._prior * self._strength
        self._noise = (expected / (self._answers + self._strength)).clamp(max=MOST)
        self._random.zero_()
        self._answers.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "names": list(self._index),
            "noise": self._noise.tolist(),
            "random": self._random.tolist(),
            "answers": self._answers.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidArgument: it is about other raters.
        """
        if list(state["names"]) != list(self._index):
            raise InvalidArgument(
                "raters", state["names"], "not the raters of this run", "Resume with the same data"
            )
        for name in ("noise", "random", "answers"):
            getattr(self, f"_{name}").copy_(torch.tensor(state[name], dtype=torch.float64))
