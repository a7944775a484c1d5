"""What a policy writes after given prompts, and how far that is from its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.sampler import complete
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.pipelines.text_metrics import distinct_n

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Writing:
    """Responses of one policy.

    Attributes:
        episodes: prompts and responses as a reward reads them.
        kl: mean of log pi - log pi_ref, summed over each response, nats.
        perplexity: under the reference, over all response tokens.
    """

    episodes: Episodes
    kl: float
    perplexity: float

    @property
    def responses(self) -> list[str]:
        """The responses alone."""
        return self.episodes.responses

    @property
    def texts(self) -> list[str]:
        """Prompts and responses together."""
        pairs = zip(self.episodes.prompts, self.responses, strict=True)
        return [prompt + response for prompt, response in pairs]

    @property
    def distinct_2(self) -> float:
        """Share of different pairs of neighbouring words."""
        return distinct_n([text.split() for text in self.responses], 2)

    @property
    def length(self) -> float:
        """Mean tokens of a response."""
        return float(self.episodes.lengths.double().mean())

    @property
    def stopped(self) -> float:
        """Share of responses that ended by themselves."""
        return float(self.episodes.stopped.double().mean())


def write(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    seed: int = 0,
) -> Writing:
    """Let a policy answer prompts.

    Args:
        policy: who writes.
        reference: who is compared with.
        tokenizer: of both; pads with a token of its own and ends with EOS.
        prompts: one response each.
        max_new_tokens: response budget.
        seed: of the sampling.
    """
    encoded = tokenizer(list(prompts), padding=True, padding_side="left", return_tensors="pt")
    ids, prompt_mask = encoded["input_ids"], encoded["attention_mask"].bool()
    rules = TokenRules(len(tokenizer), tokenizer.pad_token_id, (tokenizer.eos_token_id,))
    generator = torch.Generator().manual_seed(seed)
    done = complete(policy, ids, prompt_mask, rules, max_new_tokens, generator, batch_size=128)
    episodes = Episodes(
        input_ids=torch.cat([ids, done.response_ids], dim=1),
        attention_mask=torch.cat([prompt_mask, done.mask], dim=1),
        prompt_width=ids.shape[1],
        stopped=done.stopped,
        rules=rules,
        tokenizer=tokenizer,
        prompts=list(prompts),
        log_probs=done.log_probs,
    )
    reference_log_probs = episodes.reference_log_probs(reference)
    kl = (done.log_probs - reference_log_probs).double().sum(-1).mean()
    nats = -reference_log_probs.double().sum() / done.mask.sum()
    return Writing(episodes, float(kl), float(nats.exp()))
