"""How often each rater answers at random, learned together with the scores they are judged by.

A rater answers at random with probability `noise`, and otherwise by the scores. Who is random where
is not known, so it is expectation maximisation, in turn with the training of the scores: the scores
learn from the answers with that noise in their likelihood; meanwhile it is noted how likely each
answer was, by the scores and by chance; from these the noise of each rater follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.likelihoods import random_share

MOST = 0.99
"""A rater of noise 1 could never be heard again, whatever the scores learn later."""

STEPS = 100
"""Steps of expectation maximisation in one update; without scores in between they cost nothing."""


class RaterNoise:
    """The noise of each rater.

    Args:
        names: the raters, each once.
        prior: noise expected of a rater of whom nothing is known yet.
        strength: how many answers that expectation is worth.
        window: how many of the last answers are remembered; scores that have changed since make
            older ones say little.

    Raises:
        InvalidArgument: a name twice, a prior that is no probability, no strength or no window.

    Source: Dawid and Skene (1979), "Maximum Likelihood Estimation of Observer Error-Rates Using the
        EM Algorithm", with one error rate per rater, and scores in the place of true classes; with
        a model that is trained meanwhile, Raykar et al. (2010), "Learning From Crowds".
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        prior: float = 0.1,
        strength: float = 10.0,
        window: int = 20_000,
    ) -> None:
        if len(set(names)) < len(names):
            raise InvalidArgument("names", list(names), "a name twice", "Give each rater once")
        if not 0 < prior < 1:
            raise InvalidArgument("prior", prior, "not between 0 and 1", "Give 0.1, for example")
        if not strength > 0:
            raise InvalidArgument(
                "strength", strength, "a rater without answers would have no noise", "Give 10"
            )
        if window < 1:
            raise InvalidArgument("window", window, "nothing is remembered", "Give 1 or more")
        self._index = {name: number for number, name in enumerate(names)}
        self._prior = prior
        self._strength = strength
        self._window = window
        self._noise = torch.full((len(names),), prior, dtype=torch.float64)
        self._noted: list[Tensor] = []
        """Rater, log-probability and log-probability by chance, each of shape (3, answers)."""

    @property
    def by_rater(self) -> dict[str, float]:
        """The noise of each rater, by name."""
        return dict(zip(self._index, self._noise.tolist(), strict=True))

    @property
    def numbers(self) -> Mapping[str, int]:
        """The number of each rater, by name."""
        return self._index

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
        return self._noise.float().to(raters.device)[raters]

    def observe(self, raters: Tensor, log_probs: Tensor, log_random: Tensor) -> None:
        """Note some answers.

        Args:
            raters: who gave them, shape (batch,).
            log_probs: of the answers by the scores, without noise, nats, shape (batch,).
            log_random: of the answers by a rater who answers at random, shape (batch,).
        """
        rows = torch.stack([part.detach().double() for part in (raters, log_probs, log_random)])
        self._noted.append(rows.cpu())
        remembered = sum(part.shape[1] for part in self._noted)
        while remembered - self._noted[0].shape[1] >= self._window:
            remembered -= self._noted.pop(0).shape[1]

    def update(self) -> None:
        """Move every rater's noise to what is likeliest by the answers that are remembered.

        Each step: from the noise the probability that each answer was random, and from these the
        noise, the prior counting as so many answers more.
        """
        if self._noted:
            noted = torch.cat(self._noted, -1)
            raters, log_probs, log_random = noted[0].long(), noted[1], noted[2]
            answers = torch.zeros_like(self._noise).index_add_(
                0, raters, torch.ones_like(log_probs)
            )
            for _ in range(STEPS):
                shares = random_share(log_probs, log_random, self._noise[raters])
                expected = torch.full_like(self._noise, self._prior * self._strength)
                expected.index_add_(0, raters, shares)
                self._noise = (expected / (answers + self._strength)).clamp(max=MOST)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, in what JSON can hold."""
        noted = torch.cat(self._noted, -1) if self._noted else torch.zeros(3, 0)
        return {
            "names": list(self._index),
            "noise": self._noise.tolist(),
            "noted": noted.tolist(),
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
        self._noise = torch.tensor(state["noise"], dtype=torch.float64)
        self._noted = [torch.tensor(state["noted"], dtype=torch.float64).reshape(3, -1)]
