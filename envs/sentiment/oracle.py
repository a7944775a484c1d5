"""The gold judge of `rlhf_gym/Sentiment-v0`: how favourable a review is, negation understood.

A review is cut into sentences and clauses. An opinion word counts where grammar gives it something
to be about ("the plot is clever", "a clever plot", "the plot shines"); a clause's value is the mean
of its opinions, so a list says no more than one word; the k-th clause about one thing weighs 1/k;
and the review's score is a mean over its clauses, shrunk towards 0:

    score = sum(weight * value) / (sum(weight) + 1/2 + noise / 2)

`noise` counts opinion words that hang in the air, repeated clauses, and slips of grammar:
neighbouring words that the generator never puts together. So praise saturates, and a word salad is
worth less than one plain sentence. It is a judge of this language alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from rlhf_gym.envs.sentiment import lexicon
from rlhf_gym.envs.sentiment.fluency import slips
from rlhf_gym.envs.sentiment.grammar import words

CONCESSION_WEIGHT = 0.5
"""What is conceded ("although it is slow", "it is slow, but ...") counts half."""
HEARSAY_WEIGHT = 0.5
"""So does what others say, unless the writer agrees (1) or disagrees (1, turned round)."""
LESS = 0.6
"""How much "less" turns a comparison round: "less boring" is fairly good."""
SHRINKAGE = 0.5
CLAUSE_ROOM = 2
"""At most so many opinions on one subject are heard; further ones are noise."""

_BE = frozenset({"is", "are", "was", "were", "be"})
_LINKING = _BE.union(*lexicon.LINKING_VERBS)
_ASPECTS = frozenset(lexicon.ASPECTS) | frozenset(lexicon.PLURAL_ASPECTS)
_THINGS = _ASPECTS | frozenset(lexicon.FILMS)
_VERDICTS = frozenset({"agree", "disagree"})
_SUBJECTS = _THINGS | {"it", "this", "that", "they", "i", "we", "there", "nothing", "everything"}
_STARTS_CLAUSE = frozenset({"the", "it", "i", "this", "there", "they", "we", "my", "a", "neither"})
_HYPOTHETICAL = frozenset({"expected", "hoped", "feared", "wanted"})
_DETERMINERS = frozenset({"a", "an", "the", "this", "no"})
_JOINTS = frozenset({"and", "or", "also"})
_PHRASES = {"_".join(phrase): value for phrase, value in lexicon.PHRASES.items()}
_VERBS = lexicon.OPINION_VERBS | _PHRASES
# A clause with none of these is a fragment, in which an attribute is about nothing.
_MAIN_WORDS = _VERBS.keys() | _LINKING | _HYPOTHETICAL | {"what"}
_OPINIONS = lexicon.ADJECTIVES | lexicon.OPINION_NOUNS | _VERBS


class Clause(NamedTuple):
    """What one clause says.

    Attributes:
        words: its words.
        value: mean of its opinions, in [-1, 1]; positive is praise.
        weight: how much it counts; 0 for expectations and for clauses without a new opinion.
    """

    words: tuple[str, ...]
    value: float
    weight: float


@dataclass
class Reading:
    """How a review was understood.

    Attributes:
        clauses: in order, those without an opinion left out.
        noise: opinion words that hang in the air, repeated clauses, slips of grammar.
    """

    clauses: list[Clause] = field(default_factory=list)
    noise: int = 0

    @property
    def score(self) -> float:
        """Sentiment in (-1, 1)."""
        weights = sum(clause.weight for clause in self.clauses)
        total = sum(clause.weight * clause.value for clause in self.clauses)
        return total / (weights + SHRINKAGE + 0.5 * self.noise)


def gold_sentiment(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Sentiment of each review, prompt and response read together, in (-1, 1)."""
    return [sentiment(f"{p} {r}") for p, r in zip(prompts, responses, strict=True)]


@lru_cache(maxsize=4096)
def sentiment(text: str) -> float:
    """Sentiment of one text, in (-1, 1); 0 when it holds no opinion."""
    return read(text).score


def read(text: str) -> Reading:
    """Parse a review."""
    tokens = words(text)
    reading = Reading(noise=slips(tokens))
    heard: set[str] = set()
    mentions: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for sentence in _sentences(tokens):
        clauses = [c for c in _clauses(sentence) if c]
        for clause, weight in zip(clauses, _weights(clauses), strict=True):
            if tuple(clause) in seen and not _VERDICTS.intersection(clause):
                reading.noise += 1
                continue
            seen.add(tuple(clause))
            opinions, noise = _opinions(clause)
            reading.noise += noise
            # The same word again is no second opinion.
            new = [value for word, value in opinions if word not in heard]
            heard.update(word for word, _ in opinions)
            if new and weight:
                value = sum(new) / len(new)
                topic = _topic(clause)
                mentions[topic] += 1
                reading.clauses.append(
                    Clause(
                        tuple(clause),
                        value if weight > 0 else -value,
                        abs(weight) / mentions[topic],
                    )
                )
    return reading


def _topic(clause: Sequence[str]) -> str:
    """What a clause is about: its first aspect word, else the film as a whole."""
    return next((word for word in clause if word in _ASPECTS), "film")


def _sentences(tokens: list[str]) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for token in _join_phrases(tokens):
        if token in {".", "!", "?"}:
            sentences.append([])
        else:
            sentences[-1].append(token)
    return sentences


def _join_phrases(tokens: list[str]) -> list[str]:
    """Make verdict phrases one word, and "not only ... but also" an "and": it denies nothing."""
    joined: list[str] = []
    i = 0
    while i < len(tokens):
        for phrase in lexicon.PHRASES:
            if tuple(tokens[i : i + len(phrase)]) == phrase:
                joined.append("_".join(phrase))
                i += len(phrase)
                break
        else:
            pair = tokens[i : i + 2]
            if pair == ["not", "only"]:
                i += 2
            elif pair == ["but", "also"]:
                joined.append("and")
                i += 2
            else:
                joined.append(tokens[i])
                i += 1
    return joined


def _clauses(sentence: list[str]) -> list[list[str]]:
    """Cut at commas and conjunctions; the conjunction stays at the head of its clause."""
    clauses: list[list[str]] = [[]]
    for i, token in enumerate(sentence):
        following = sentence[i + 1] if i + 1 < len(sentence) else ""
        if token == ",":
            clauses.append([])
        elif token in {"but", "although", "because"} or (
            token == "and" and following in _STARTS_CLAUSE
        ):
            clauses.append([token])
        else:
            clauses[-1].append(token)
    return clauses


def _weights(clauses: list[list[str]]) -> list[float]:
    """Weight of each clause of a sentence; negative where the writer turns hearsay round."""
    said = {word for clause in clauses for word in clause}
    hearsay = -1.0 if "disagree" in said else 1.0 if "agree" in said else HEARSAY_WEIGHT
    weights: list[float] = []
    reported = False
    for i, clause in enumerate(clauses):
        reported = (reported and clause[0] not in {"but", "although"}) or "said" in clause
        conceded = clause[0] == "although" or any(c[0] == "but" for c in clauses[i + 1 :])
        if _HYPOTHETICAL.intersection(clause):
            weights.append(0.0)
        elif reported:
            weights.append(hearsay)
        else:
            weights.append(CONCESSION_WEIGHT if conceded else 1.0)
    return weights


def _opinions(clause: list[str]) -> tuple[list[tuple[str, float]], int]:
    """The opinions of a clause that are about something, and how much of it is noise."""
    opinions: list[tuple[str, float]] = []
    noise = 0
    scale, sign = 1.0, 1.0
    has_verb = any(word in _MAIN_WORDS for word in clause)
    subject = predicate = joined = determined = False
    for i, word in enumerate(clause):
        if word == "than":  # what the film is compared with is not judged
            break
        if word in lexicon.NEGATORS and not (word == "nor" and "neither" in clause):
            sign *= -lexicon.NEGATORS[word]
        elif word == "less":
            sign *= -LESS
        elif word in lexicon.DEGREES:
            scale *= lexicon.DEGREES[word]
        elif word in _OPINIONS:
            if word in _VERBS:  # "the jokes work"
                licensed = subject and not any(heard in _VERBS for heard, _ in opinions)
            elif word in lexicon.OPINION_NOUNS:  # "it is a gem"
                licensed = predicate and determined
            else:  # "it is good", "a good film moves"
                attribute = has_verb and determined and _describes(clause[i + 1 :])
                licensed = (predicate and joined) or attribute
            if licensed and len(opinions) < CLAUSE_ROOM:
                value = max(-1.0, min(1.0, _OPINIONS[word] * scale))
                opinions.append((word, value * sign))
            else:
                noise += 1
            scale, joined = 1.0, False
        joined = joined or word in _JOINTS
        determined = (determined or word in _DETERMINERS) and word not in _THINGS
        if word == "what" or (word in _LINKING and subject):
            predicate = joined = True
        elif word in _THINGS:
            predicate = False
        subject = subject or word in _SUBJECTS
    return opinions, noise


def _describes(following: list[str]) -> bool:
    """Whether an adjective stands before a noun, other adjectives in between."""
    for word in following:
        if word in _THINGS:
            return True
        if word not in lexicon.ADJECTIVES and word not in _JOINTS:
            return False
    return False
