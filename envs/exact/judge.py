"""Exact answers about `rlhf_gym/Exact-v0`: the optimum, and how near to it a policy is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules, legal_logits, next_token_logits
from rlhf_gym.envs.exact.ladder import LadderReward
from rlhf_gym.envs.exact.solver import (
    NodeTable,
    Performance,
    ResponseTree,
    Solution,
    evaluate_by_enumeration,
    solve,
)
from rlhf_gym.envs.text.masking import ActionMasks, Written

Observations = dict[str, Tensor]
"""`input_ids` (n, P + T) and `attention_mask` (n, P + T), as the environment shows them."""

ActionLogits = Callable[[Observations], Tensor]
"""Any agent: a batch of observations in, logits over the vocabulary out, shape (n, vocab)."""

CHUNK = 8192
"""Observations that a policy is asked about at once."""

Policy = nn.Module | ActionLogits | NodeTable
"""A Hugging Face causal LM, a function of observations, or a table of log-probabilities."""


@dataclass(frozen=True)
class Optimum:
    """The best that a policy can reach under a KL penalty.

    Attributes:
        kl_coef: reward per nat.
        value: E[reward] - kl_coef * KL of the optimal policy, the mean over prompts.
        reference_value: the same of the reference, whose KL is 0.
        reward: expected reward of the optimal policy.
        kl: its KL to the reference, in nats per response.
        log_probs: the optimal policy as a table, see `NodeTable`.
        values: per prefix, what can still be reached from it; entry d has shape (prompts, L**d).
        tree: the numbering of prefixes.
    """

    kl_coef: float
    value: float
    reference_value: float
    reward: float
    kl: float
    log_probs: NodeTable
    values: tuple[Tensor, ...]
    tree: ResponseTree

    def policy(self, prefix: Sequence[int] = (), prompt: int = 0) -> Tensor:
        """Probabilities of the next token after a prefix, shape (vocab,), float64.

        Args:
            prefix: response tokens so far, none of which ends it; shorter than the horizon.
            prompt: index of the prompt.

        Raises:
            InvalidArgument: a prefix that is none, or a prompt that does not exist.
        """
        if len(prefix) >= self.tree.horizon:
            raise InvalidArgument(
                "prefix",
                list(prefix),
                f"the response ended after {self.tree.horizon} tokens",
                "Give fewer tokens",
            )
        if not 0 <= prompt < len(self.log_probs[0]):
            raise InvalidArgument(
                "prompt", prompt, f"there are {len(self.log_probs[0])} prompts", "Give its index"
            )
        return self.log_probs[len(prefix)][prompt, self.tree.node(prefix)].exp()


class ExactJudge:
    """Knows all prefixes, the reference's log-probabilities there, and what each token earns.

    Args:
        prompts: ids of each prompt.
        rules: vocabulary, PAD, stop tokens, temperature.
        horizon: response budget in tokens.
        reference: the frozen LM.
        reward: what tokens earn.
        prompt_width: columns of the prompt in an observation.
        masks: the environment's action masks.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        rules: TokenRules,
        horizon: int,
        reference: nn.Module,
        reward: LadderReward,
        prompt_width: int,
        masks: ActionMasks,
    ) -> None:
        self.tree = ResponseTree(rules, horizon)
        self._prompts = prompts
        self._reference = reference
        self._reward = reward
        self._prompt_width = prompt_width
        self._masks = masks

    def optimum(self, kl_coef: float) -> Optimum:
        """The KL-regularised optimum, by dynamic programming.

        Raises:
            InvalidArgument: `kl_coef` is not above 0.
        """
        solution: Solution = solve(self.tree, self.reference, self.rewards, kl_coef)
        best = self.performance(solution.log_probs)
        return Optimum(
            kl_coef=kl_coef,
            value=float(solution.values[0].mean()),
            reference_value=self.performance(self.reference).objective(kl_coef),
            reward=float(best.reward.mean()),
            kl=float(best.kl.mean()),
            log_probs=solution.log_probs,
            values=solution.values,
            tree=self.tree,
        )

    def performance(self, policy: Policy) -> Performance:
        """Exact expected reward and KL of a policy, by summing over all responses."""
        return evaluate_by_enumeration(self.tree, self.table(policy), self.reference, self.rewards)

    def share_of_the_way(self, policy: Policy, kl_coef: float) -> float:
        """0 is the reference's objective, 1 the optimum's; below 0 is worse than untrained."""
        optimum = self.optimum(kl_coef)
        gained = self.performance(policy).objective(kl_coef) - optimum.reference_value
        return gained / (optimum.value - optimum.reference_value)

    def table(self, policy: Policy) -> NodeTable:
        """A policy's log-probabilities at every prefix, through `legal_logits`.

        Raises:
            InvalidArgument: something that gives no logits over the vocabulary.
        """
        if isinstance(policy, tuple):
            return policy
        logits = self._lm_logits(policy) if isinstance(policy, nn.Module) else self._logits(policy)
        return tuple(self._log_probs(raw, depth) for depth, raw in enumerate(logits))

    @cached_property
    def reference(self) -> NodeTable:
        """The reference's log-probabilities at every prefix."""
        return self.table(self._reference)

    @cached_property
    def rewards(self) -> NodeTable:
        """What every token earns at every prefix."""
        tree, vocab_size = self.tree, self.tree.rules.vocab_size
        tables = []
        for depth in range(tree.horizon):
            prefixes = tree.prefixes(depth)
            table = torch.zeros(len(self._prompts), len(prefixes), vocab_size, dtype=torch.float64)
            for row, prompt in enumerate(self._prompts):
                begun = torch.cat([prefixes.new_full((len(prefixes), 1), prompt[-1]), prefixes], 1)
                for token in (*tree.stops, *tree.letters):
                    sequence = torch.cat([begun, begun.new_full((len(begun), 1), token)], 1)
                    stopped = token in tree.stops
                    table[row, :, token] = self._reward.of_last_token(
                        sequence, ends=stopped or depth == tree.horizon - 1, stopped=stopped
                    )
            tables.append(table)
        return tuple(tables)

    @cached_property
    def _allowed(self) -> tuple[Tensor, ...]:
        """True where a token is allowed; entry d has shape (prompts, L**d, vocab)."""
        allowed = []
        for depth, logits in enumerate(self._lm_logits(self._reference)):
            rows = logits.flatten(0, 1).float()
            shown = self._observations(depth)
            written = Written(
                ids=shown["input_ids"].numpy(),
                mask=shown["attention_mask"].numpy(),
                prompt_width=self._prompt_width,
                lengths=np.full(len(rows), depth),
            )
            by_text = torch.from_numpy(self._masks.by_text(written))
            of_rows = self._masks.of_reference(rows, by_text)
            allowed.append(of_rows.reshape(*logits.shape[:2], -1))
        return tuple(allowed)

    def _log_probs(self, logits: Tensor, depth: int) -> Tensor:
        return legal_logits(logits, self.tree.rules, self._allowed[depth]).log_softmax(-1)

    def _observations(self, depth: int) -> Observations:
        """What the environment shows at every prefix of a length, prompts one after another."""
        prefixes = self.tree.prefixes(depth)
        width = self._prompt_width + self.tree.horizon
        ids = prefixes.new_full((len(self._prompts), len(prefixes), width), self.tree.rules.pad_id)
        mask = torch.zeros_like(ids, dtype=torch.int8)
        for row, prompt in enumerate(self._prompts):
            start, end = self._prompt_width - len(prompt), self._prompt_width
            ids[row, :, start:end] = torch.tensor(prompt)
            ids[row, :, end : end + depth] = prefixes
            mask[row, :, start : end + depth] = 1
        return {"input_ids": ids.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}

    @torch.no_grad()
    def _logits(self, policy: ActionLogits) -> tuple[Tensor, ...]:
        """Raw logits of an agent at every prefix, entries as of a `NodeTable`."""
        tables = []
        for depth in range(self.tree.horizon):
            observations = self._observations(depth)
            starts = range(0, len(observations["input_ids"]), CHUNK)
            chunks = (
                {name: rows[start : start + CHUNK] for name, rows in observations.items()}
                for start in starts
            )
            logits = torch.cat([self._checked(policy(chunk), chunk) for chunk in chunks])
            tables.append(logits.reshape(len(self._prompts), -1, logits.shape[1]))
        return tuple(tables)

    def _checked(self, logits: Tensor, observations: Observations) -> Tensor:
        count, vocab_size = len(observations["input_ids"]), self.tree.rules.vocab_size
        if logits.ndim != 2 or len(logits) != count or logits.shape[1] < vocab_size:
            raise InvalidArgument(
                "policy",
                tuple(logits.shape),
                f"logits for {count} observations and {vocab_size} tokens were expected",
                "Return a tensor of shape (observations, vocab)",
            )
        return logits.double().cpu()

    def _lm_logits(self, model: nn.Module) -> tuple[Tensor, ...]:
        """Raw logits of a causal LM at every prefix, dropout off whatever mode the model is in."""
        training = model.training
        model.eval()
        try:
            return self._logits(lambda observations: next_token_logits(model, observations))
        finally:
            model.train(training)
