"""The token MDP itself, N rows at a time: what one step writes, ends and earns.

Gymnasium's rules (autoreset, spaces, infos) are `vector.py`'s; nothing here knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_gym.core.channel import SampledActions
from rlhf_gym.core.episodes import Episodes
from rlhf_gym.envs.text.calls import Tokens
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.envs.text.prompts import PromptOrder, PromptSet
from rlhf_gym.envs.text.responses import NO_ROWS, Responses
from rlhf_gym.envs.text.scoring import RewardLedger
from rlhf_gym.envs.text.stepwise import Stepwise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

FINISH_REASONS = np.array(["length", "stop"], dtype=object)
"""By whether a stop token ended the response."""


class Ending(NamedTuple):
    """Episodes that have ended.

    Attributes:
        stopped: True where a stop token ended it, False at the length limit, shape (k,).
        due: what they earn in the step that ends them, shape (k,).
        values: what info says about them, name -> shape (k, ...), for `infos.spread`.
    """

    stopped: BoolArray
    due: FloatArray
    values: dict[str, Any]


class TextEngine:
    """N responses being written and scored.

    Args:
        prompts: the prompts.
        order: which comes next.
        tokenizer: decodes responses for rewards.
        masks: which actions are allowed; its rules say what stops a response.
        ledger: what is paid.
        num_envs: N.
        prompt_width: columns of the prompt.
        max_response_tokens: the response budget.
        max_bytes: most memory for distributions or masks that are kept per episode.
        device: where the reference is.

    Attributes:
        responses: prompt and response of every row.
        episodes_seen: episodes that have ended.
    """

    def __init__(
        self,
        prompts: PromptSet,
        order: PromptOrder,
        tokenizer: PreTrainedTokenizerBase,
        masks: ActionMasks,
        ledger: RewardLedger,
        *,
        num_envs: int,
        prompt_width: int,
        max_response_tokens: int,
        max_bytes: int,
        device: torch.device,
    ) -> None:
        self.prompts = prompts
        self.order = order
        self.ledger = ledger
        self._tokenizer = tokenizer
        self._rules = masks.rules
        self._device = device
        self.responses = Responses(num_envs, prompt_width, max_response_tokens, masks.rules.pad_id)
        self._stepwise = Stepwise(
            self.responses,
            masks,
            ledger,
            max_bytes=max_bytes,
            device=device,
            begun=self._begun,
        )
        self._stops = np.zeros(masks.rules.vocab_size, dtype=np.bool_)
        self._stops[list(masks.rules.stop_ids)] = True
        self._stop_ids = frozenset(masks.rules.stop_ids)
        self._last_length = max_response_tokens - 1
        self._unpaid = np.zeros(num_envs)
        self.episodes_seen = 0

    def begin(
        self, rows: IntArray, rng: np.random.Generator, given: IntArray | None = None
    ) -> None:
        """Start episodes.

        Args:
            rows: in these rows, shape (k,).
            rng: shuffles the prompts when a new round of them begins.
            given: answer these prompts, shape (k,), instead of the next ones.
        """
        index = self.order.draw(len(rows), rng) if given is None else given
        width = self.responses.prompt_width
        ids, mask = self.prompts.padded(index, width, self._rules.pad_id)
        self.responses.begin(rows, index, ids, mask)
        if self._stepwise.is_needed:
            self._stepwise.begin(rows)

    def write(self, tokens: Tokens, record: SampledActions | None) -> tuple[IntArray, FloatArray]:
        """Append one token to every live row.

        Args:
            tokens: token ids of all rows; what stands in rows that are not live is ignored.
            record: what the policy wrote about them.

        Returns:
            The rows whose episodes this ends, shape (k,), and what stepwise terms pay, shape
            (num_envs,).
        """
        ending = self._ending_rows(tokens)
        rewards = self._unpaid.copy()
        if self._stepwise.is_needed:
            rows = self.responses.live_rows
            ended = np.zeros(len(tokens.ids), dtype=np.bool_)
            ended[ending] = True
            rewards[rows] = self._stepwise.observe(rows, tokens.ids, ended[rows], record)
        self.responses.append(tokens.ids, None if record is None else record.log_probs)
        return ending, rewards

    def end(self, rows: IntArray) -> Ending:
        """Score the episodes that have ended in some rows, shape (k,), all in one batch."""
        responses = self.responses
        # First of all: should a reward raise, nothing is written behind the end of these rows.
        responses.close(rows)
        lengths, index = responses.lengths[rows], responses.prompt_index[rows]
        last = responses.ids[rows, responses.prompt_width + lengths - 1]
        stopped = self._stops[last]
        scored = self.ledger.score(
            self._episodes(rows, stopped),
            self._stepwise.paid(rows),
            self._stepwise.reference_log_probs(rows),
        )
        self.episodes_seen += len(rows)
        known = scored.kl_known.numpy()
        values: dict[str, Any] = {
            "finish_reason": FINISH_REASONS[stopped.astype(np.int64)],
            "token_rewards": scored.token_rewards.numpy(),
            "reward_terms": {name: total.numpy() for name, total in scored.terms.items()},
            "score": scored.score.numpy(),
            "kl_known": known,
            "response_length": lengths,
            "prompt_index": index,
        }
        if scored.gold is not None:
            values["gold_reward"] = scored.gold.numpy()
        if scored.kl is not None:
            values["kl"] = (scored.kl.numpy(), known)
        return Ending(stopped, scored.due.numpy(), values)

    def allowed(self) -> BoolArray:
        """Which actions are allowed in every row, shape (num_envs, vocab); a copy."""
        return self._stepwise.allowed().numpy().copy()

    def texts(self) -> tuple[str, ...]:
        """Prompt and response so far of every row."""
        rows = zip(self.responses.ids, self.responses.mask.astype(np.bool_), strict=True)
        ids: list[list[int]] = [ids[mask].tolist() for ids, mask in rows]
        return tuple(self._tokenizer.batch_decode(ids))

    def state_dict(self) -> dict[str, Any]:
        """Prompt order, episodes, KL and reward states."""
        return {
            "episodes_seen": self.episodes_seen,
            "prompt_order": self.order.state_dict(),
            "responses": self.responses.state_dict(),
            "stepwise": self._stepwise.state_dict(),
            "ledger": self.ledger.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.order.load_state_dict(state["prompt_order"])
        self.responses.load_state_dict(state["responses"])
        self._stepwise.load_state_dict(state["stepwise"])
        self.ledger.load_state_dict(state["ledger"])
        self.episodes_seen = int(state["episodes_seen"])

    def _ending_rows(self, tokens: Tokens) -> IntArray:
        """Rows whose episode ends with this token, shape (k,)."""
        length = self.responses.even_length
        in_budget = length is not None and length < self._last_length
        if in_budget and self._stop_ids.isdisjoint(tokens.numbers):  # nearly every step
            return NO_ROWS
        ended = self._stops[tokens.ids] | (self.responses.lengths >= self._last_length)
        return np.flatnonzero(ended & self.responses.live)

    def _episodes(self, rows: IntArray, stopped: BoolArray) -> Episodes:
        log_probs = torch.from_numpy(self.responses.log_probs[rows])
        return replace(
            self._begun(rows),
            stopped=torch.from_numpy(stopped).to(self._device),
            # None rather than all NaN, so that no pass of the reference is made for nothing.
            log_probs=None if bool(log_probs.isnan().all()) else log_probs,
            log_distributions=self._stepwise.log_distributions(rows),
            action_masks=self._stepwise.action_masks(rows),
        )

    def _begun(self, rows: IntArray) -> Episodes:
        """The episodes of some rows as they stand, shape (k,), what the policy wrote left out."""
        responses = self.responses
        index = responses.prompt_index[rows]
        return Episodes(
            input_ids=torch.from_numpy(responses.ids[rows]).to(self._device),
            attention_mask=torch.from_numpy(responses.mask[rows]).bool().to(self._device),
            prompt_width=responses.prompt_width,
            stopped=torch.zeros(len(rows), dtype=torch.bool, device=self._device),
            rules=self._rules,
            tokenizer=self._tokenizer,
            prompts=[self.prompts.texts[i] for i in index],
            rows=[self.prompts.rows[i] for i in index],
        )
