"""Pays an agent by a scheme, and notes what each term of it came to."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.rewards.learned import ControlSteps, Floats, Payment, PaymentRule
from rlhf_gym.rewards.step_sums import StepSum

KEPT_EPISODES = 10_000


class SchemePayment:
    """The rule that a scheme means; its shaping is paid by the environment around the agent.

    Args:
        scheme: what is paid.
        learned: what `preferences` in it stands for; None where there is none.

    Attributes:
        episodes: of each finished episode what its terms came to, by name, oldest first; whoever
            reads them takes them out.
    """

    def __init__(self, scheme: StepSum, learned: PaymentRule | None = None) -> None:
        self.scheme = scheme
        self.learned = learned
        self.episodes: deque[dict[str, float]] = deque(maxlen=KEPT_EPISODES)
        self._sums: Floats = np.zeros((len(scheme.terms), 0))

    def __call__(self, steps: ControlSteps) -> Payment:
        """Pay for one step in each of n environments."""
        nothing = np.zeros(len(steps.automated))
        known = Payment(nothing, nothing) if self.learned is None else self.learned(steps)
        terms = self.scheme.by_term(steps, known.reward)
        self._note(terms, steps.ended)
        return Payment(known.learned, np.sum(list(terms.values()), axis=0) - known.learned)

    def _note(self, terms: dict[str, Floats], ended: NDArray[np.bool_]) -> None:
        amounts = np.stack(list(terms.values()))
        if self._sums.shape != amounts.shape:
            self._sums = np.zeros_like(amounts, dtype=np.float64)
        self._sums = self._sums + amounts
        self.episodes.extend(
            dict(zip(terms, sums, strict=True)) for sums in self._sums[:, ended].T.tolist()
        )
        self._sums[:, ended] = 0.0


class LearnedPotential:
    """Phi(s): how much a reward learned from comparisons would give for coming to s.

    For ensembles that judge what changed: those are potentials inside. It moves while they learn;
    whoever shapes by it must subtract what it said of a state when the agent came there.

    Args:
        ensemble: that keeps both ends of a step.
    """

    def __init__(self, ensemble: RewardEnsemble) -> None:
        self.ensemble = ensemble

    def __call__(self, observations: Any) -> Floats:
        """Phi of n observations, up to a constant, shape (n,)."""
        encoding = self.ensemble.encoding
        seen = encoding.observations(observations)
        # Where the change is measured from does not matter, as long as it is one place and one act.
        acts = np.zeros((len(seen), *encoding.action_shape), encoding.action_space.dtype)
        return self.ensemble.rewards(encoding.of_steps(np.zeros_like(seen), seen), acts)
