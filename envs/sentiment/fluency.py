"""Which words may stand next to each other: pairs that the generator never writes are slips.

Words of one list and form share a class, so that a few thousand reviews show all pairs there are; a
singular and a plural do not, so that "the songs is" is a slip.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise

from rlhf_gym.envs.sentiment import lexicon
from rlhf_gym.envs.sentiment.grammar import reviews, words
from rlhf_gym.envs.sentiment.lexicon import Verb

_REVIEWS = 4000
_SEED = 6


def slips(tokens: Sequence[str]) -> int:
    """How many neighbouring words or marks never stand together in a review of the generator."""
    pairs, classes = _known_pairs(), _classes()
    named = [classes.get(token, token) for token in tokens]
    return sum(pair not in pairs for pair in pairwise(named))


@cache
def _known_pairs() -> frozenset[tuple[str, str]]:
    classes = _classes()
    known: set[tuple[str, str]] = set()
    for review in reviews(_REVIEWS, _SEED, longest=60):
        named = [classes.get(token, token) for token in words(review.text)]
        known.update(pairwise(named))
    return frozenset(known)


@cache
def _classes() -> dict[str, str]:
    """The class of every word that is one; function words stand for themselves."""
    classes: dict[str, str] = {}
    lists: dict[str, Iterable[str]] = {
        "ADJECTIVE": [*lexicon.GOOD_ADJECTIVES, *lexicon.BAD_ADJECTIVES],
        "COMPARATIVE": lexicon.COMPARATIVES,
        "NOUN": lexicon.OPINION_NOUNS,
        "ASPECT": lexicon.ASPECTS,
        "ASPECTS": lexicon.PLURAL_ASPECTS,
        "FILM": lexicon.FILMS,
        "KIND": lexicon.FILM_KINDS,
        "HERO": lexicon.HEROES,
        "HEROKIND": lexicon.HERO_KINDS,
        "DEGREE": lexicon.DEGREES,
    }
    for name, members in lists.items():
        classes |= dict.fromkeys(members, name)
    verbs: dict[str, Sequence[Verb]] = {
        "LINK": lexicon.LINKING_VERBS,
        "SHINE": (*lexicon.GOOD_INTRANSITIVES, *lexicon.BAD_INTRANSITIVES),
        "MOVE": (*lexicon.GOOD_AFFECTS, *lexicon.BAD_AFFECTS),
        "LOVE": (*lexicon.GOOD_ATTITUDES, *lexicon.BAD_ATTITUDES),
    }
    for name, group in verbs.items():
        for form in Verb._fields:
            classes |= {getattr(verb, form): f"{name}/{form}" for verb in group}
    return classes
