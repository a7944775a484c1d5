"""Children's stories as a task: their beginnings, a reward, and whether they stay stories.

Expected in the data folder: `stories260k` (a Llama of 260 thousand parameters, pretrained on
TinyStories by Karpathy's llama2.c) and `tinystories_sample/stories.jsonl` (Eldan and Li 2023).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlhf_gym.core.data import hold_out, read_records
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.pipelines.generation import Generation, generate
from rlhf_gym.pipelines.text_metrics import distinct_n, repetition
from rlhf_gym.rewards.base import RewardTerm
from rlhf_gym.rewards.kl import KLPenalty

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END = "<s>"
"""What stands behind every story that the model was trained on; it is not its `</s>`."""

FEELINGS = frozenset(
    [
        "afraid",
        "angry",
        "brave",
        "curious",
        "excited",
        "glad",
        "grateful",
        "happy",
        "hopeful",
        "jealous",
        "kind",
        "lonely",
        "mad",
        "nervous",
        "proud",
        "sad",
        "scared",
        "shy",
        "surprised",
        "tired",
        "upset",
        "worried",
    ]
)
MOST_FEELINGS = 3
"""What more of them brings no more: a list of feelings is no story."""

RESPONSE_TOKENS = 48
OPENING_WORDS = (6, 16)
"""Words of an opening sentence, at least and at most."""

_FIRST_SENTENCE = re.compile(r"[^.!?\"]*[.!?](?=\s)")
_WORD = re.compile(r"[a-z']+")

Judge = Callable[[list[str], list[str]], list[float]]


def feelings(prompts: list[str], responses: list[str]) -> list[float]:
    """How many different feelings a continuation names, at most three: 0 to 3.

    A plain reward function as anybody would write one.
    """
    return [float(min(len(FEELINGS & set(words(text))), MOST_FEELINGS)) for text in responses]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def opening(story: str) -> str | None:
    """A story's first sentence, or None if it is too short, too long or someone speaks in it."""
    found = _FIRST_SENTENCE.match(story.strip())
    shortest, longest = OPENING_WORDS
    if found is None or not shortest <= len(found[0].split()) <= longest:
        return None
    return found[0]


@dataclass(frozen=True)
class StoryTask:
    """A pretrained storyteller and the beginnings of stories.

    Attributes:
        model: the language model as it came; reference of every policy.
        tokenizer: of the model, with a PAD of its own and `<s>` as its end.
        prompts: first sentences to train on.
        held_out: first sentences to judge by; none of them is in `prompts`.
        known_words: words of real stories.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[str]
    held_out: Sequence[str]
    known_words: Collection[str]

    @classmethod
    def load(cls, data: Path) -> StoryTask:
        """Read model and stories.

        Args:
            data: the folder of the real data sets.
        """
        from rlhf_gym.core.supervised.language_model import load_for_training

        model, tokenizer = load_for_training(str(data / "stories260k"), end_token=END)
        records = read_records(data / "tinystories_sample/stories.jsonl", required=("text",))
        stories = [str(record["text"]) for record in records]
        openings = dict.fromkeys(first for story in stories if (first := opening(story)))
        prompts, held_out = hold_out(list(openings), 0.2)
        known = {word for story in stories for word in words(story)}
        return cls(model, tokenizer, prompts, held_out, known)

    def env(
        self,
        prompts: Sequence[str],
        reward: RewardTerm | Judge,
        *,
        kl_coef: float,
        num_envs: int,
        gold: Judge | None = None,
    ) -> TextGenerationVectorEnv:
        """Continue each prompt for up to 48 tokens, for a reward minus the KL to the storyteller.

        Args:
            prompts: what is continued.
            reward: without the KL penalty.
            kl_coef: reward per nat of KL.
            num_envs: continuations written side by side.
            gold: watched and never paid.
        """
        from rlhf_gym.rewards.base import as_reward

        return TextGenerationVectorEnv(
            list(prompts),
            self.tokenizer,
            as_reward(reward) - KLPenalty(self.model, kl_coef),
            num_envs=num_envs,
            max_response_tokens=RESPONSE_TOKENS,
            gold=gold,
        )

    def measure(
        self, model: nn.Module, env: TextGenerationVectorEnv, *, seed: int
    ) -> StoryMeasurement:
        """Let a model continue every prompt of an environment once and look at what it wrote."""
        written = generate(model, env, np.arange(len(env.prompts)), seed=seed)
        return StoryMeasurement.of(written, self.known_words)


@dataclass(frozen=True)
class StoryMeasurement:
    """Continuations of the held-out openings in numbers.

    Attributes:
        score: mean reward without the KL penalty.
        gold: mean gold score; the reward itself where there is no other.
        kl: mean of log pi - log pi_ref of a continuation, in nats.
        perplexity: of the continuations under the storyteller that came; its own have its own.
        known_words: share of their words that real stories have.
        distinct_2: share of different pairs of neighbouring words, over all continuations.
        repetition: share of runs of four words that a continuation has had before.
        texts: prompt and continuation, in the order of the prompts.
    """

    score: float
    gold: float
    kl: float
    perplexity: float
    known_words: float
    distinct_2: float
    repetition: float
    texts: list[tuple[str, str]]

    @classmethod
    def of(cls, written: Sequence[Generation], known: Collection[str]) -> StoryMeasurement:
        """Measure continuations.

        Args:
            written: by a policy with a reference beside it.
            known: words of real stories.
        """
        kl = [_number(item.kl) for item in written]
        # log pi_ref = log pi - (log pi - log pi_ref)
        nats = sum(kl) - sum(item.log_prob for item in written)
        split = [words(item.completion) for item in written]
        score = _mean(item.score for item in written)
        gold = [item.gold for item in written if item.gold is not None]
        return cls(
            score=score,
            gold=_mean(gold) if gold else score,
            kl=_mean(kl),
            perplexity=math.exp(nats / sum(item.length for item in written)),
            known_words=_mean(word in known for text in split for word in text),
            distinct_2=distinct_n(split, 2),
            repetition=repetition(split),
            texts=[(item.prompt, item.completion) for item in written],
        )


def _number(kl: float | None) -> float:
    return math.nan if kl is None else float(kl)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
