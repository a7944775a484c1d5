"""What has to be remembered or computed in every step, for the settings that ask for it.

Most environments need none of it: their reward is scored in one pass when an episode ends, and
their `step` only writes a token. Masks of the reference's top-k, rewards paid token by token and
the exact KL estimator do need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.channel import SampledActions
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import legal_logits
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.envs.text.reference import ReferenceAlongside
from rlhf_gym.envs.text.responses import Responses
from rlhf_gym.envs.text.scoring import RewardLedger
from rlhf_gym.rewards.base import TokenStep

IntArray = NDArray[np.int64]


class VocabularyHistory:
    """One number per row, response token and vocabulary entry, kept until the episode ends.

    Args:
        shape: (rows, time, vocab).
        dtype: float32 for log-probabilities, bool for masks.
        unknown: what stands where nothing was written.
        limit: most bytes this may take.
        reason: which setting needs it, for the message.

    Raises:
        InvalidArgument: more bytes than the limit.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        unknown: float | bool,
        *,
        limit: int,
        reason: str,
    ) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        if size > limit:
            raise InvalidArgument(
                "max_distribution_bytes",
                limit,
                f"{reason} keeps {shape[0]} x {shape[1]} x {shape[2]} values, {size} bytes",
                "Use reward_timing='step' (for the estimator), fewer num_envs, or a higher limit",
            )
        self.values = torch.full(shape, unknown, dtype=dtype)
        self._unknown = unknown

    def begin(self, rows: IntArray) -> None:
        """Forget what was written in some rows, shape (k,)."""
        self.values[torch.from_numpy(rows)] = self._unknown

    def write(self, rows: IntArray, lengths: IntArray, values: Tensor) -> None:
        """Keep values, shape (k, vocab), at the token that comes next in some rows, shape (k,)."""
        at = torch.from_numpy(rows), torch.from_numpy(lengths)
        self.values[at] = values.to(self.values)

    def read(self, rows: IntArray) -> Tensor:
        """A copy of some rows, shape (k, time, vocab)."""
        return self.values[torch.from_numpy(rows)]


class Stepwise:
    """Masks, distributions and rewards that belong to single steps.

    Args:
        responses: the episodes.
        masks: which actions are allowed.
        ledger: pays stepwise terms and says which distributions it needs later.
        max_bytes: limit of each history.
        device: where the reference is.

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
    ) -> None:
        self._responses = responses
        self._masks = masks
        self._ledger = ledger
        rows, time = responses.log_probs.shape
        shape = (rows, time, masks.rules.vocab_size)
        self._alongside = None
        if ledger.reference is not None and (masks.needs_reference or ledger.step_names):
            capacity = responses.ids.shape[1]
            self._alongside = ReferenceAlongside(ledger.reference, capacity, device)
        # The reference's masks in the current state; asked for by the agent and again by `observe`.
        self._allowed: Tensor | None = None
        self._mask_history = None
        if masks.needs_reference and ledger.reference is not None:
            self._mask_history = VocabularyHistory(
                shape, torch.bool, True, limit=max_bytes, reason="top_k or top_p"
            )
        self._distributions = None
        if ledger.keeps_distributions:
            self._distributions = VocabularyHistory(
                shape, torch.float32, torch.nan, limit=max_bytes, reason="estimator='exact'"
            )
        self._paid = {name: torch.zeros(rows, time) for name in ledger.step_names}
        self._reference_log_probs = torch.zeros(rows, time)
        self.is_needed = bool(self._alongside or self._distributions or self._paid)

    def begin(self, rows: IntArray) -> None:
        """Episodes have begun in some rows, shape (k,)."""
        width = self._responses.prompt_width
        if self._alongside is not None:
            ids, mask = self._responses.ids[rows, :width], self._responses.mask[rows, :width]
            if len(rows) == len(self._responses.ids):
                self._alongside.begin(ids, mask)
            else:
                self._alongside.replace(rows, ids, mask)
        for history in (self._mask_history, self._distributions):
            if history is not None:
                history.begin(rows)
        for paid in (*self._paid.values(), self._reference_log_probs):
            paid[torch.from_numpy(rows)] = 0.0
        self._allowed = None

    def allowed(self) -> Tensor:
        """Which actions are allowed in every row, shape (rows, vocab)."""
        lengths = self._responses.lengths
        if self._alongside is None or not self._masks.needs_reference:
            return torch.from_numpy(self._masks.by_length(lengths))
        if self._allowed is None:
            self._allowed = self._masks.of_reference(self._alongside.logits(), lengths).cpu()
        return self._allowed

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
        if self._mask_history is not None:
            self._mask_history.write(rows, lengths, self.allowed()[torch.from_numpy(rows)])
        distribution = _rows_of(record, torch.from_numpy(rows))
        if self._distributions is not None and distribution is not None:
            self._distributions.write(rows, lengths, distribution)
        rewards = np.zeros(len(rows))
        if self._paid and len(rows):
            rewards = self._pay(rows, tokens, ended, record)
        if self._alongside is not None and not ended.all():
            self._alongside.advance(tokens)
        self._allowed = None
        return rewards

    def log_distributions(self, rows: IntArray) -> Tensor | None:
        """log pi of the whole vocabulary in some rows, shape (k, time, vocab), if it was kept."""
        return None if self._distributions is None else self._distributions.read(rows)

    def action_masks(self, rows: IntArray) -> Tensor | None:
        """What was allowed at each token of some rows, shape (k, time, vocab); None if all was."""
        if self._mask_history is not None:
            return self._mask_history.read(rows)
        if not self._masks.depends_on_state:
            return None
        # A minimum length alone is the same in every row: no copies.
        times = np.arange(self._responses.max_response_tokens)
        return torch.from_numpy(self._masks.by_length(times)).expand(len(rows), -1, -1)

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
        if self._mask_history is not None:
            state["masks"] = self._mask_history.values.numpy().copy()
        if self._distributions is not None:
            state["distributions"] = self._distributions.values.numpy().copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the responses must be loaded before."""
        for name, paid in self._paid.items():
            paid.copy_(torch.as_tensor(state["paid"][name]))
        self._reference_log_probs.copy_(torch.as_tensor(state["reference_log_probs"]))
        if self._mask_history is not None:
            self._mask_history.values.copy_(torch.as_tensor(state["masks"]))
        if self._distributions is not None:
            self._distributions.values.copy_(torch.as_tensor(state["distributions"]))
        self._allowed = None
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
