"""How the environment learns log pi(a|s): the policy writes it down while it samples.

No environment sees the policy, and asking the policy again at the end of an episode gives another
policy's answer once an update has happened in between. So a policy that samples writes what it
drew and with which log-probability, and `step` takes the record if it was given those actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class SampledActions(NamedTuple):
    """One step's record.

    Attributes:
        actions: token ids, shape (batch,).
        log_probs: their log-probabilities in nats, shape (batch,); NaN where unknown.
        log_distribution: log-probabilities of the vocabulary, shape (batch, vocab), or None.
    """

    actions: Tensor
    log_probs: Tensor
    log_distribution: Tensor | None = None


class LogProbChannel:
    """A mailbox for one step, shared by an environment and the policy that acts in it.

    It survives `deepcopy` by reference (environment and policy stay connected when either is
    copied) and pickles to an empty one. Each environment has its own.

    Attributes:
        wants_distribution: set by an environment whose KL estimator is exact; a policy then writes
            the full distribution too.
    """

    def __init__(self) -> None:
        self.wants_distribution = False
        self._record: SampledActions | None = None

    def write(
        self,
        actions: Tensor | np.ndarray[Any, Any],
        log_probs: Tensor | np.ndarray[Any, Any],
        log_distribution: Tensor | None = None,
    ) -> None:
        """Record what was just sampled; replaces a record that nobody took.

        Args:
            actions: token ids, shape (batch,).
            log_probs: log-probability of each in nats, shape (batch,); NaN where it is not known.
            log_distribution: log-probabilities of the whole vocabulary, shape (batch, vocab).
        """
        self._record = SampledActions(
            _on_cpu(actions),
            _on_cpu(log_probs).float(),
            None if log_distribution is None else log_distribution.detach(),
        )

    def take(self, actions: Tensor | np.ndarray[Any, Any] | Sequence[int]) -> SampledActions | None:
        """Hand over the record if it is about these actions, and empty the channel either way."""
        record, self._record = self._record, None
        # Lists compare several times faster than tensors of a few dozen numbers.
        numbers = actions.tolist() if isinstance(actions, Tensor | np.ndarray) else list(actions)
        if record is None or record.actions.tolist() != numbers:
            return None
        return record

    def __deepcopy__(self, memo: dict[int, Any]) -> LogProbChannel:
        return self

    def __eq__(self, other: object) -> bool:
        # SB3 compares the settings of a saved policy with those it is loaded with: which channel it
        # is, is no setting. A loaded one would never be equal otherwise.
        return isinstance(other, LogProbChannel)

    def __hash__(self) -> int:
        return hash(LogProbChannel)

    def __reduce__(self) -> tuple[type[LogProbChannel], tuple[()]]:
        return (LogProbChannel, ())


def _on_cpu(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """The values as a tensor on the CPU, without gradients."""
    # Nearly always it is one; this runs in every step, and each call costs when caches are cold.
    if isinstance(values, Tensor) and values.is_cpu and not values.requires_grad:
        return values
    return torch.as_tensor(values).detach().cpu()
