"""Openings of reviews that say the same in other words, to see if a reward model minds."""

from __future__ import annotations

import random
import re

from rlhf_gym.envs.sentiment.grammar import Writer

SAME: tuple[tuple[str, ...], ...] = (
    (
        "i watched this {film} {occasion}.",
        "this is the {film} i watched {occasion}.",
    ),
    (
        "i saw this {kind} {film} with {companion}.",
        "{companion} and i saw this {kind} {film}.",
    ),
    (
        "in this {film}, a {herokind} {hero} {quest}.",
        "a {herokind} {hero} {quest} in this {film}.",
        "it is about a {herokind} {hero}, and in this {film} the {hero} {quest}.",
    ),
    (
        "this {film} is set in {place}.",
        "it is a {film} set in {place}.",
    ),
    (
        "the {kind} {film} runs for {minutes}.",
        "this {kind} {film} runs for {minutes}.",
        "it is a {kind} {film} and runs for {minutes}.",
    ),
)
"""Templates, those of one meaning together; slots as in `templates`. A word begins a sentence here
only where it does so in reviews: to the tokenizer, it would be another token."""

_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\ba (?=[aeiou])")


def reworded_openings(count: int, seed: int) -> list[tuple[str, ...]]:
    """Openings, each in two or three wordings with the same words in the slots.

    Args:
        count: groups.
        seed: same seed, same openings.
    """
    writer = Writer(random.Random(seed))
    return [_wordings(writer, writer.rng.choice(SAME)) for _ in range(count)]


def _wordings(writer: Writer, templates: tuple[str, ...]) -> tuple[str, ...]:
    names = sorted(set(_SLOT.findall(" ".join(templates))))
    words = {name: writer.word(name, "", 1, plural=False) for name in names}
    return tuple(_ARTICLE.sub("an ", template.format(**words)) for template in templates)
