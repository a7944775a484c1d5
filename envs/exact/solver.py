"""The KL-regularised optimum over every response of a small vocabulary and horizon, exactly.

Maximise over policies  E_pi[r(y)] - beta KL(pi || pi_ref).  The optimum is known in closed form,

    pi*(y) = pi_ref(y) exp(r(y) / beta) / Z,    value = beta log Z,

and found here twice: by summing over all responses, and by dynamic programming over all prefixes. A
prefix is a string of letters, the legal tokens that do not end a response; prefixes of one length
are numbered as numbers in base L (L letters), so that the child of prefix n by letter j is nL + j.

Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (2019), equation 2;
Levine, "Reinforcement Learning and Control as Probabilistic Inference" (2018), section 2, for the
backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules

NodeTable = tuple[Tensor, ...]
"""One number per prompt, prefix and token: entry d has shape (prompts, L**d, vocab), float64."""

MAX_PREFIXES = 100_000


@dataclass(frozen=True)
class ResponseTree:
    """All responses: strings of letters that end with a stop token or at the horizon.

    Attributes:
        rules: vocabulary, PAD, stop tokens.
        horizon: longest response in tokens, stop token included.
    """

    rules: TokenRules
    horizon: int

    def __post_init__(self) -> None:
        prefixes = len(self.letters) ** (self.horizon - 1) if self.horizon > 0 else 0
        if not 0 < prefixes <= MAX_PREFIXES:
            raise InvalidArgument(
                "max_response_tokens",
                self.horizon,
                f"with {len(self.letters)} letters there are {prefixes} longest prefixes",
                f"Choose it so that there are 1 to {MAX_PREFIXES}",
            )

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Stop tokens that are legal, ascending."""
        return tuple(sorted(set(self.rules.stop_ids) - set(self.rules.illegal_ids)))

    @cached_property
    def letters(self) -> tuple[int, ...]:
        """Legal tokens that do not end a response, ascending."""
        legal = set(range(self.rules.vocab_size)) - set(self.rules.illegal_ids)
        return tuple(sorted(legal - set(self.rules.stop_ids)))

    def prefixes(self, length: int) -> Tensor:
        """Every prefix of one length, shape (L**length, length)."""
        letters = torch.tensor(self.letters)
        if length == 0:
            return torch.empty(1, 0, dtype=torch.long)
        return torch.cartesian_prod(*[letters] * length).reshape(-1, length)

    def node(self, prefix: Sequence[int]) -> int:
        """The number of a prefix among those of its length."""
        number = 0
        for token in prefix:
            if token not in self.letters:
                raise InvalidArgument(
                    "prefix", list(prefix), f"token {token} is no letter", f"Use {self.letters}"
                )
            number = number * len(self.letters) + self.letters.index(token)
        return number

    def responses(self) -> tuple[Tensor, Tensor]:
        """Every response, shape (responses, horizon), PAD behind it; and lengths, (responses,)."""
        rows, lengths = [], []
        for depth in range(self.horizon):
            prefix = self.prefixes(depth)
            last = self.stops if depth < self.horizon - 1 else (*self.stops, *self.letters)
            for token in last:
                row = torch.full((len(prefix), self.horizon), self.rules.pad_id)
                row[:, :depth] = prefix
                row[:, depth] = token
                rows.append(row)
                lengths.append(torch.full((len(prefix),), depth + 1))
        return torch.cat(rows), torch.cat(lengths)

    def along(self, table: NodeTable) -> Tensor:
        """Sum a table's entries along every response, shape (prompts, responses).

        Responses come in the order of `responses`.
        """
        rows, lengths = self.responses()
        place = torch.full((self.rules.vocab_size,), -1)
        place[list(self.letters)] = torch.arange(len(self.letters))
        total = torch.zeros(len(table[0]), len(rows), dtype=torch.float64)
        node = torch.zeros(len(rows), dtype=torch.long)
        for depth in range(self.horizon):
            alive = depth < lengths
            token = rows[:, depth]
            total[:, alive] += table[depth][:, node[alive], token[alive]]
            node = torch.where(depth + 1 < lengths, node * len(self.letters) + place[token], 0)
        return total


class Performance(NamedTuple):
    """What a policy reaches, per prompt, each of shape (prompts,), float64.

    Attributes:
        reward: expected reward.
        kl: KL(policy || reference) of whole responses, in nats.
    """

    reward: Tensor
    kl: Tensor

    def objective(self, kl_coef: float) -> float:
        """E[r] - kl_coef * KL, the mean over prompts."""
        return float((self.reward - kl_coef * self.kl).mean())


class Solution(NamedTuple):
    """The KL-regularised optimum.

    Attributes:
        log_probs: the optimal policy.
        values: what can still be reached from each prefix; entry d has shape (prompts, L**d).
    """

    log_probs: NodeTable
    values: tuple[Tensor, ...]


def solve(tree: ResponseTree, reference: NodeTable, rewards: NodeTable, kl_coef: float) -> Solution:
    """The optimum by dynamic programming over prefixes, from the longest to the empty one.

    Args:
        tree: all responses.
        reference: log-probabilities of the reference, minus infinity at illegal tokens.
        rewards: reward of each token.
        kl_coef: beta, above 0.
    """
    check_kl_coef(kl_coef)
    log_probs: list[Tensor] = []
    values: list[Tensor] = []
    later: Tensor | None = None
    for log_reference, reward in zip(reversed(reference), reversed(rewards), strict=True):
        # Q(s, a) = r(s, a) + V(s a);  V(s) = beta log sum_a pi_ref(a|s) exp(Q(s, a) / beta)
        q = _with_future(tree, reward, later)
        later = kl_coef * torch.logsumexp(log_reference + q / kl_coef, -1)
        values.insert(0, later)
        # pi*(a|s) = pi_ref(a|s) exp((Q(s, a) - V(s)) / beta)
        log_probs.insert(0, log_reference + (q - later.unsqueeze(-1)) / kl_coef)
    return Solution(tuple(log_probs), tuple(values))


def value_by_enumeration(
    tree: ResponseTree, reference: NodeTable, rewards: NodeTable, kl_coef: float
) -> Tensor:
    """The optimum's value per prompt, beta log sum_y pi_ref(y) exp(r(y) / beta), (prompts,)."""
    check_kl_coef(kl_coef)
    return kl_coef * torch.logsumexp(tree.along(reference) + tree.along(rewards) / kl_coef, -1)


def evaluate(
    tree: ResponseTree, policy: NodeTable, reference: NodeTable, rewards: NodeTable
) -> Performance:
    """A policy's expected reward and KL by dynamic programming; all arguments as in `solve`."""
    later_reward: Tensor | None = None
    later_kl: Tensor | None = None
    for depth in reversed(range(tree.horizon)):
        probs = policy[depth].exp()
        reward = _with_future(tree, rewards[depth], later_reward)
        later_reward = (probs * reward).sum(-1)
        log_ratio = _log_ratio(policy[depth], reference[depth])
        later_kl = (probs * _with_future(tree, log_ratio, later_kl)).sum(-1)
    assert later_reward is not None  # the tree has a horizon of at least 1
    assert later_kl is not None
    return Performance(later_reward.squeeze(-1), later_kl.squeeze(-1))


def evaluate_by_enumeration(
    tree: ResponseTree, policy: NodeTable, reference: NodeTable, rewards: NodeTable
) -> Performance:
    """A policy's expected reward and KL by summing over all responses; arguments as in `solve`."""
    log_probs = tree.along(policy)
    probs = log_probs.exp()
    log_ratio = _log_ratio(log_probs, tree.along(reference))
    return Performance((probs * tree.along(rewards)).sum(-1), (probs * log_ratio).sum(-1))


def check_kl_coef(kl_coef: float) -> None:
    """Refuse a coefficient for which there is no regularised optimum."""
    if not kl_coef > 0:
        raise InvalidArgument(
            "kl_coef",
            kl_coef,
            "without a KL penalty the optimum is no distribution but a set of best responses",
            "Give a number above 0",
        )


def _with_future(tree: ResponseTree, now: Tensor, later: Tensor | None) -> Tensor:
    """Add to each token's entry what its child prefix is worth.

    Args:
        tree: the numbering.
        now: shape (prompts, n, vocab).
        later: shape (prompts, n * L); None behind the last token.
    """
    if later is None:  # every token of the last step ends the response
        return now
    total = now.clone()
    total[..., list(tree.letters)] += later.reshape(*now.shape[:2], len(tree.letters))
    return total


def _log_ratio(policy: Tensor, reference: Tensor) -> Tensor:
    """log pi - log pi_ref where the policy can go, 0 elsewhere (0 log 0 = 0)."""
    return torch.where(policy == -torch.inf, 0.0, policy - reference)
