"""What has to be remembered or computed in every step, for the settings that ask for it.

Most environments need none of it: their reward is scored in one pass when an episode ends, and
their `step` only writes a token. Masks of the reference's top-k, rewards paid token by token and
the exact KL estimator do need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.channel import SampledActions
from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.tokens import legal_logits
from rlhf_gym.envs.text.history import VocabularyHistory
from rlhf_gym.envs.text.mask_tracking import MaskTracker
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.envs.text.reference import ReferenceAlongside
from rlhf_gym.envs.text.responses import Responses
from rlhf_gym.envs.text.scoring import RewardLedger
from rlhf_gym.rewards.base import TokenStep

IntArray = NDArray[np.int64]


class Stepwise:
    """Masks, distributions and rewards that belong to single steps.

    Args:
        responses: the episodes.
        masks: which actions are allowed.
        ledger: pays stepwise terms and says which distributions it needs later.
        max_bytes: limit of each history.
        device: where the reference is.
        begun: some rows' episodes as they stand.

    Attributes:
        is_needed: False if a step has nothing to remember or compute but the token itself.
    """

    def __init__(
        self,
        responses: Responses,
        masks: ActionMasks,
        ledger: RewardLedger,
        *,
        max_bytes: int,
        device: torch.device | str,
        begun: Callable[[IntArray], Episodes],
    ) -> None:
        self._begun = begun
        self._responses = responses
        self._masks = masks
        self._ledger = ledger
        rows, time = responses.log_probs.shape
        shape = (rows, time, masks.rules.vocab_size)
        self._alongside = None
        if ledger.reference is not None and (masks.needs_reference or ledger.step_names):
            capacity = responses.ids.shape[1]
            self._alongside = ReferenceAlongside(ledger.reference, capacity, device)
        logits = None if self._alongside is None else self._alongside.logits
        self._tracker = MaskTracker(responses, masks, logits, max_bytes=max_bytes)
        self._distributions = None
        if ledger.keeps_distributions:
            self._distributions = VocabularyHistory(
                shape, torch.float32, torch.nan, limit=max_bytes, reason="estimator='exact'"
            )
        self._paid = {name: torch.zeros(rows, time) for name in ledger.step_names}
        self._reference_log_probs = torch.zeros(rows, time)
        self.is_needed = bool(
            self._alongside or self._distributions or self._paid or self._tracker.is_needed
        )

    def begin(self, rows: IntArray) -> None:
        """Episodes have begun in some rows, shape (k,)."""
        width = self._responses.prompt_width
        if self._alongside is not None:
            ids, mask = self._responses.ids[rows, :width], self._responses.mask[rows, :width]
            if len(rows) == len(self._responses.ids):
                self._alongside.begin(ids, mask)
            else:
                self._alongside.replace(rows, ids, mask)
        if self._distributions is not None:
            self._distributions.begin(rows)
        for paid in (*self._paid.values(), self._reference_log_probs):
            paid[torch.from_numpy(rows)] = 0.0
        self._tracker.begin(rows)

    def allowed(self) -> Tensor:
        """Which actions are allowed in every row, shape (rows, vocab)."""
        return self._tracker.allowed()

    def observe(
        self,
        rows: IntArray,
        tokens: IntArray,
        ended: NDArray[np.bool_],
        record: SampledActions | None,
    ) -> NDArray[np.float64]:
        """Look at one step before it is written down.

        Args:
            rows: rows that act, shape (k,).
            tokens: what every row emits, shape (num_envs,).
            ended: True where this token ends the episode, shape (k,).
            record: what the policy wrote about all rows.

        Returns:
            What stepwise terms pay, shape (k,).
        """
        lengths = self._responses.lengths[rows]
        self._tracker.remember(rows)
        distribution = _rows_of(record, torch.from_numpy(rows))
        if self._distributions is not None and distribution is not None:
            self._distributions.write(rows, lengths, distribution)
        rewards = np.zeros(len(rows))
        if self._paid and len(rows):
            rewards = self._pay(rows, tokens, ended, record)
        if self._alongside is not None and not ended.all():
            self._alongside.advance(tokens)
        self._tracker.advance(tokens)
        return rewards

    def log_distributions(self, rows: IntArray) -> Tensor | None:
        """log pi of the whole vocabulary in some rows, shape (k, time, vocab), if it was kept."""
        return None if self._distributions is None else self._distributions.read(rows)

    def action_masks(self, rows: IntArray) -> Tensor | None:
        """What was allowed at each token of some rows, shape (k, time, vocab); None if all was."""
        return self._tracker.at_tokens(rows)

    def paid(self, rows: IntArray) -> dict[str, Tensor]:
        """What stepwise terms have paid at each token of some rows, name -> shape (k, time)."""
        return {name: paid[torch.from_numpy(rows)] for name, paid in self._paid.items()}

    def reference_log_probs(self, rows: IntArray) -> Tensor | None:
        """log pi_ref of the tokens of some rows, shape (k, time), if it was decoded along."""
        if self._alongside is None or not self._paid:
            return None
        return self._reference_log_probs[torch.from_numpy(rows)]

    def state_dict(self) -> dict[str, Any]:
        """What was kept of running episodes, as arrays; the reference's cache is rebuilt."""
        state: dict[str, Any] = {"paid": {name: p.numpy().copy() for name, p in self._paid.items()}}
        state["reference_log_probs"] = self._reference_log_probs.numpy().copy()
        state |= self._tracker.state_dict()
        if self._distributions is not None:
            state["distributions"] = self._distributions.values.numpy().copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the responses must be loaded before."""
        for name, paid in self._paid.items():
            paid.copy_(torch.as_tensor(state["paid"][name]))
        self._reference_log_probs.copy_(torch.as_tensor(state["reference_log_probs"]))
        if self._distributions is not None:
            self._distributions.values.copy_(torch.as_tensor(state["distributions"]))
        self._tracker.load_state_dict(state)
        self._replay()

    def _pay(
        self,
        rows: IntArray,
        tokens: IntArray,
        ended: NDArray[np.bool_],
        record: SampledActions | None,
    ) -> NDArray[np.float64]:
        which = torch.from_numpy(rows)
        actions = torch.from_numpy(tokens)[which]
        at = which, torch.from_numpy(self._responses.lengths[rows])
        distribution = self._reference_distribution(which)
        if distribution is not None:
            chosen = distribution.gather(-1, actions.to(distribution.device).unsqueeze(-1))
            self._reference_log_probs[at] = chosen.squeeze(-1).cpu()
        step = TokenStep(
            rows=which,
            input_ids=torch.from_numpy(self._responses.ids)[which],
            attention_mask=torch.from_numpy(self._responses.mask)[which],
            actions=actions,
            ended=torch.from_numpy(ended),
            log_probs=None if record is None else record.log_probs[which],
            log_distribution=_rows_of(record, which),
            reference_log_distribution=distribution,
            begun=lambda: self._begun(rows),
        )
        total = np.zeros(len(rows))
        for name, share in self._ledger.pay_step(step).items():
            self._paid[name][at] = share.detach().float().cpu()
            total += share.detach().double().cpu().numpy()
        return total

    def _reference_distribution(self, rows: Tensor) -> Tensor | None:
        """log pi_ref of the whole vocabulary in some rows' states, shape (k, vocab)."""
        if self._alongside is None:
            return None
        logits = self._alongside.logits()
        rows = rows.to(logits.device)
        mask = None
        if self._masks.depends_on_state:
            mask = self.allowed().to(logits.device)[rows]
        return legal_logits(logits[rows].float(), self._masks.rules, mask).log_softmax(-1)

    def _replay(self) -> None:
        """Let the reference read running episodes again, as it read them: one token per step.

        Rows that began together are stepped together, which gives the very same numbers; a prefill
        of prompt and response would differ in the last digits.
        """
        if self._alongside is None or not self._responses.live.any():
            return
        width, ids, mask = self._responses.prompt_width, self._responses.ids, self._responses.mask
        lengths = np.where(self._responses.live, self._responses.lengths, -1)
        longest = int(lengths.max())
        self._alongside.begin(ids[:, :width], mask[:, :width])
        for step in range(longest):
            late = np.flatnonzero(lengths == longest - step)
            if step and len(late):
                self._alongside.replace(late, ids[late, :width], mask[late, :width])
            column = np.clip(width + step - longest + lengths, width, None)
            self._alongside.advance(ids[np.arange(len(ids)), column])
        fresh = np.flatnonzero(lengths == 0)
        if longest and len(fresh):
            self._alongside.replace(fresh, ids[fresh, :width], mask[fresh, :width])


def _rows_of(record: SampledActions | None, rows: Tensor) -> Tensor | None:
    if record is None or record.log_distribution is None:
        return None
    return record.log_distribution[rows.to(record.log_distribution.device)]
