"""A sentiment judge that shares nothing with the reward model: logistic regression on n-grams.

It is trained on reviews that the reward model never saw and reads words, not the policy's tokens,
so a policy that has learned to please the reward model's mistakes does not please it too.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

_WORD = re.compile(r"[a-z']+|[!?]")


class NgramJudge:
    """Probability that a text is positive, from hashed word unigrams and bigrams.

    Args:
        buckets: size of the hash table.
        seed: of the order of training.
    """

    def __init__(self, buckets: int = 1 << 18, seed: int = 0) -> None:
        self.buckets = buckets
        self._weights = nn.EmbeddingBag(buckets, 1, mode="mean")
        nn.init.zeros_(self._weights.weight)
        self._bias = nn.Parameter(torch.zeros(()))
        self._generator = torch.Generator().manual_seed(seed)

    def fit(
        self, texts: Sequence[str], labels: Sequence[int], epochs: int = 6, batch_size: int = 256
    ) -> NgramJudge:
        """Train on texts with labels (1 positive, 0 negative)."""
        features = [self._features(text) for text in texts]
        targets = torch.tensor(labels, dtype=torch.float32)
        parameters = [self._weights.weight, self._bias]
        optimiser = torch.optim.Adam(parameters, lr=0.02)
        for _ in range(epochs):
            order = torch.randperm(len(features), generator=self._generator)
            for rows in torch.split(order, batch_size):
                logits = self._logits([features[i] for i in rows.tolist()])
                loss = nn.functional.binary_cross_entropy_with_logits(logits, targets[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        return self

    @torch.no_grad()
    def probability(self, texts: Sequence[str]) -> Tensor:
        """Probability that each text is positive, shape (texts,)."""
        return self._logits([self._features(text) for text in texts]).sigmoid()

    def accuracy(self, texts: Sequence[str], labels: Sequence[int]) -> float:
        """Share of texts on the right side of one half."""
        right = (self.probability(texts) > 0.5) == torch.tensor(labels).bool()
        return float(right.float().mean())

    def _logits(self, features: Sequence[Tensor]) -> Tensor:
        offsets = torch.tensor([0, *map(len, features[:-1])]).cumsum(0)
        # The root of their number: a long text is surer than a short one, but not n times.
        lengths = torch.tensor([max(len(row), 1) for row in features], dtype=torch.float32)
        mean: Tensor = self._weights(torch.cat(list(features)), offsets).squeeze(-1)
        return mean * lengths.sqrt() + self._bias

    def _features(self, text: str) -> Tensor:
        words = _WORD.findall(text.lower())
        grams = [*words, *map(" ".join, pairwise(words))]
        return torch.tensor([zlib.crc32(gram.encode()) % self.buckets for gram in grams])
