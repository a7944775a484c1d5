"""A seeded writer of film reviews: the language of `rlhf_gym/Sentiment-v0`.

Chosen: templates with agreement in number and tense, so that fluency is something a policy can
lose; and sentences whose opinion cannot be read off their words one by one (negation, contrast,
comparison, reported and disappointed expectations), so that a bag of words is no judge. Dropped:
capitals, names, real films.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sentiment import lexicon
from rlhf_gym.envs.sentiment.lexicon import Verb
from rlhf_gym.envs.sentiment.templates import (
    BAD_CLOSINGS,
    CLAUSES,
    GOOD_CLOSINGS,
    OPENINGS,
    SENTENCES,
    VIEWS,
    Weighted,
)

CONSISTENCY = 0.92
"""Probability that a sentence takes the side of its review."""

_SLOTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "adj": (tuple(lexicon.GOOD_ADJECTIVES), tuple(lexicon.BAD_ADJECTIVES)),
    # Short adjectives have a comparative of their own: "more good" is no English.
    "longadj": (
        tuple(w for w in lexicon.GOOD_ADJECTIVES if len(w) > 6),
        tuple(w for w in lexicon.BAD_ADJECTIVES if len(w) > 6),
    ),
    "gem": (tuple(lexicon.GOOD_NOUNS), tuple(lexicon.BAD_NOUNS)),
    "better": (
        tuple(w for w, v in lexicon.COMPARATIVES.items() if v > 0),
        tuple(w for w, v in lexicon.COMPARATIVES.items() if v < 0),
    ),
} | {
    name: (words, words)
    for name, words in {
        "kind": lexicon.FILM_KINDS,
        "hero": lexicon.HEROES,
        "herokind": lexicon.HERO_KINDS,
        "quest": lexicon.QUESTS,
        "place": lexicon.PLACES,
        "companion": lexicon.COMPANIONS,
        "occasion": lexicon.OCCASIONS,
        "critics": lexicon.CRITICS,
        "audience": lexicon.AUDIENCES,
        "rival": lexicon.RIVALS,
        "starter": lexicon.STARTERS,
        "minutes": lexicon.RUNNING_TIMES,
        "degree": tuple(lexicon.DEGREES),
        "much": ("very", "really", "so", "always", "quite"),
        "negator": ("not", "not", "never", "hardly"),
    }.items()
}
_VERBS: dict[str, tuple[Sequence[Verb], Sequence[Verb]]] = {
    "link": (lexicon.LINKING_VERBS, lexicon.LINKING_VERBS),
    "shine": (lexicon.GOOD_INTRANSITIVES, lexicon.BAD_INTRANSITIVES),
    "move": (lexicon.GOOD_AFFECTS, lexicon.BAD_AFFECTS),
    "love": (lexicon.GOOD_ATTITUDES, lexicon.BAD_ATTITUDES),
    "do": ((Verb("do", "does", "did"),),) * 2,
}
_BE = {False: ("is", "are"), True: ("was", "were")}
_SLOT = re.compile(r"\{(\w+)(?:\.(\w))?(~?)\}")
_ARTICLE = re.compile(r"\ba (?=[aeiou])")
_TOKEN = re.compile(r"[a-z']+|[.,!?]")
# A prompt may not give the opinion away: it is cut before the first of these.
_TELLING = (
    set(lexicon.ADJECTIVES) | set(lexicon.OPINION_NOUNS) | set(lexicon.OPINION_VERBS)
    | set(lexicon.NEGATORS) | {"less", "more", "although", "do", "does", "did", "what", "recommend"}
    | {"want", "would", "worth"}
)  # fmt: skip


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, lower case: the tokens of the review language."""
    return _TOKEN.findall(text.lower())


@dataclass(frozen=True)
class Review:
    """One review, cut into what is given and what was written.

    Attributes:
        prompt: an opening without any opinion; ends at a word, perhaps in the middle of a sentence.
        completion: the rest, which holds the opinions, the space before it included.
        stance: 1 if the writer meant to praise, -1 to condemn; single sentences may differ.
    """

    prompt: str
    completion: str
    stance: int

    @property
    def text(self) -> str:
        """The whole review."""
        return self.prompt + self.completion


def reviews(count: int, seed: int, *, longest: int = 30, shortest: int = 6) -> Iterator[Review]:
    """Write reviews.

    Args:
        count: how many.
        seed: same seed, same reviews; a longer run begins with the shorter one.
        longest: completions have at most this many words and punctuation marks.
        shortest: and at least this many.
    """
    if not 1 <= shortest <= longest - 14:
        raise InvalidArgument(
            "longest",
            longest,
            f"no room for a sentence beyond shortest={shortest}",
            "Leave at least 14 words between shortest and longest",
        )
    writer = Writer(random.Random(seed))
    for _ in range(count):
        review = writer.review(longest)
        while not shortest <= len(words(review.completion)) <= longest:
            review = writer.review(longest)
        yield review


def prompts(count: int, seed: int, *, longest: int = 20) -> list[str]:
    """Distinct review openings of at most `longest` words, in the order they were written."""
    found: dict[str, None] = {}
    writer = Writer(random.Random(seed))
    while len(found) < count:
        prompt = writer.review(30).prompt
        if len(words(prompt)) <= longest:
            found[prompt] = None
    return list(found)


class Writer:
    """Fills templates; remembers the words of the current review so as not to repeat itself."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.past = False
        self.film = "film"
        self.used: set[str] = set()

    def review(self, longest: int) -> Review:
        """An opening (most of the time) and a few sentences that mostly agree with one stance."""
        rng = self.rng
        self.past, self.used = rng.random() < 0.35, set()
        self.film = rng.choice(lexicon.FILMS)
        stance = rng.choice((1, -1))
        opening = self.fill(self.pick(OPENINGS), stance) if rng.random() < 0.8 else ""
        goal = rng.randint(longest // 3, longest * 4 // 5)
        body: list[str] = []
        while sum(len(words(sentence)) for sentence in body) < goal:
            polarity = stance if rng.random() < CONSISTENCY else -stance
            body.append(self.sentence(polarity))
        if rng.random() < 0.25:
            body.append(
                self.fill(rng.choice(GOOD_CLOSINGS if stance > 0 else BAD_CLOSINGS), stance)
            )
        return self.cut(opening, " ".join(body), stance)

    def cut(self, opening: str, body: str, stance: int) -> Review:
        """Divide a review at a word before its first opinion."""
        pieces = body.split(" ")
        telling = (i for i, piece in enumerate(pieces) if piece.strip(".,!") in _TELLING)
        first = next(telling, len(pieces) - 1)
        if opening:
            given = self.rng.randint(0, first) if self.rng.random() < 0.5 else 0
        else:
            given = self.rng.randint(2, first) if first >= 2 else 0
        if not opening and given == 0:
            return self.cut(self.fill(self.pick(OPENINGS), stance), body, stance)
        prompt = " ".join([opening, *pieces[:given]]).strip()
        return Review(prompt, "".join(f" {piece}" for piece in pieces[given:]), stance)

    def sentence(self, polarity: int) -> str:
        """One sentence that praises (1) or condemns (-1)."""
        return self.fill(self.pick(SENTENCES), polarity)

    def fill(self, template: str, polarity: int) -> str:
        """Replace the slots of a template; verbs agree with one number drawn for it."""
        plural = self.rng.random() < 0.45
        filled = _SLOT.sub(
            lambda slot: self.word(
                slot[1], slot[2] or "", -polarity if slot[3] else polarity, plural
            ),
            template,
        )
        return _ARTICLE.sub("an ", filled)

    def word(self, slot: str, form: str, polarity: int, plural: bool) -> str:
        """The word or phrase for one slot."""
        if slot == "clause":
            return self.fill(self.pick(CLAUSES), polarity)
        if slot == "view":
            return self.fill(self.pick(VIEWS), polarity)
        plural = form == "p" or (plural and form != "s")
        side = 0 if polarity > 0 else 1
        if slot == "be":
            return _BE[self.past][plural]
        if slot == "film":
            return self.film if self.rng.random() < 0.7 else self.rng.choice(("film", "movie"))
        if slot == "aspect":
            return self.fresh(lexicon.PLURAL_ASPECTS if plural else lexicon.ASPECTS)
        if slot in _VERBS:
            verb = self.rng.choice(_VERBS[slot][side])
            if form == "b":
                return verb.base
            if self.past:
                return verb.past
            return verb.base if plural or form == "i" else verb.third
        return self.fresh(_SLOTS[slot][side])

    def fresh(self, choices: Sequence[str]) -> str:
        """A choice that the review has not used yet, as long as there is one."""
        word = self.rng.choice(choices)
        for _ in range(4):
            if word not in self.used:
                break
            word = self.rng.choice(choices)
        self.used.add(word)
        return word

    def pick(self, options: Weighted) -> str:
        """A template by its weight."""
        return self.rng.choices([o for _, o in options], [w for w, _ in options])[0]
