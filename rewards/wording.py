"""Rewards by rule on the words of a response: keywords, a lexicon, a regular expression."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.base import ScoreTerm

WORD = re.compile(r"\w+(?:['’]\w+)*")  # both apostrophes that people type
"""A word: letters, digits and apostrophes between them."""


class KeywordReward(ScoreTerm):
    """The share of the keywords that occur in the response, from 0 to 1.

    Subtract it for words that are not wanted.

    Args:
        keywords: words or phrases; each counts once, as a whole word, wherever it stands.
        ignore_case: "Good" is "good".
        name: tag of the term.

    Raises:
        InvalidArgument: no keywords, one string instead of several, or an empty one.
    """

    def __init__(
        self, keywords: Sequence[str], *, ignore_case: bool = True, name: str = "keywords"
    ) -> None:
        if isinstance(keywords, str) or not keywords or not all(k.strip() for k in keywords):
            raise InvalidArgument(
                "keywords", keywords, "not a list of words", 'Give for example ["thanks"]'
            )
        flags = re.IGNORECASE if ignore_case else 0
        # No \b: a keyword such as "C++" ends in what is no letter.
        self._patterns = [
            re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", flags) for word in keywords
        ]
        self.name = name

    def scores(self, episodes: Episodes) -> Tensor:
        """Share of the keywords in each response, shape (batch,)."""
        found = [
            [bool(pattern.search(response)) for pattern in self._patterns]
            for response in episodes.responses
        ]
        return torch.tensor(found).float().mean(-1)


class LexiconReward(ScoreTerm):
    """The sum of the weights of a response's words, or their mean over all of its words.

    Args:
        weights: word -> reward each time it occurs; single words, their case does not matter.
        average: divide by the number of words, so that length alone pays nothing.
        name: tag of the term.

    Raises:
        InvalidArgument: no words, a weight that is not finite, or an entry that is not one word.

    Source: Hu and Liu (2004), "Mining and Summarizing Customer Reviews", for opinion lexicons.
    """

    def __init__(
        self, weights: Mapping[str, float], *, average: bool = False, name: str = "lexicon"
    ) -> None:
        for word, weight in weights.items():
            if not WORD.fullmatch(word) or not math.isfinite(weight):
                raise InvalidArgument(
                    "weights", {word: weight}, "not one word with a finite weight", "Correct it"
                )
        if not weights:
            raise InvalidArgument("weights", weights, "no words", 'Give for example {"good": 1.0}')
        self.weights = {word.lower(): float(weight) for word, weight in weights.items()}
        self.average = average
        self.name = name

    def scores(self, episodes: Episodes) -> Tensor:
        """Sum or mean of the words' weights in each response, 0 without words, shape (batch,)."""
        return torch.tensor([self._score(response) for response in episodes.responses])

    def _score(self, response: str) -> float:
        words = WORD.findall(response.lower())
        total = math.fsum(self.weights.get(word, 0.0) for word in words)
        return total / len(words) if self.average and words else total


class RegexReward(ScoreTerm):
    """1 for a response in which a regular expression is found, 0 for any other.

    Args:
        pattern: as the module `re` reads it.
        full: the whole response must match, blanks around it aside.
        name: tag of the term.

    Raises:
        InvalidArgument: the pattern is none.

    Source: DeepSeek-AI (2025), "DeepSeek-R1", section 2.2.2 (format rewards).
    """

    def __init__(
        self, pattern: str | re.Pattern[str], *, full: bool = False, name: str = "regex"
    ) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise InvalidArgument("pattern", pattern, str(error), "Correct it") from error
        self.full = full
        self.name = name

    def scores(self, episodes: Episodes) -> Tensor:
        """1 where it matches, shape (batch,)."""
        found = [
            self.pattern.fullmatch(text.strip()) if self.full else self.pattern.search(text)
            for text in episodes.responses
        ]
        return torch.tensor([float(match is not None) for match in found])
