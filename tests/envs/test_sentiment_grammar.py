"""The review writer: seeded, agreeing in number, neutral in its prompts, judged as it meant."""

import random
import re

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sentiment import lexicon
from rlhf_gym.envs.sentiment.grammar import Writer, prompts, reviews, words
from rlhf_gym.envs.sentiment.oracle import read, sentiment
from rlhf_gym.envs.sentiment.templates import CLAUSES, SENTENCES


@pytest.fixture(scope="module")
def sample():
    return list(reviews(3000, 0))


def test_same_seed_same_reviews():
    assert list(reviews(20, 7)) == list(reviews(40, 7))[:20]
    assert list(reviews(20, 7)) != list(reviews(20, 8))
    assert prompts(20, 7) == prompts(40, 7)[:20]


def test_vocabulary_is_rich_and_all_of_it_is_used(sample):
    used = {word for review in sample for word in words(review.text)}
    assert 450 <= len(used) <= 500
    opinions = lexicon.ADJECTIVES | lexicon.OPINION_NOUNS
    assert opinions.keys() <= used


def test_lengths(sample):
    lengths = [len(words(review.completion)) for review in sample]
    assert min(lengths) >= 6
    assert max(lengths) <= 30
    assert 18 < np.mean(lengths) < 24
    assert max(len(words(prompt)) for prompt in prompts(500, 0)) <= 20


def test_prompts_give_nothing_away(sample):
    for review in sample:
        assert read(review.prompt).clauses == []
        assert read(review.prompt).noise == 0
        assert sentiment(review.prompt) == 0
        assert not set(words(review.prompt)) & set(lexicon.NEGATORS)


def test_prompts_are_distinct_and_of_both_kinds():
    openings = prompts(500, 1)
    assert len(set(openings)) == 500
    whole = sum(prompt.endswith((".", "!")) for prompt in openings)
    assert 150 < whole < 350


def test_half_of_the_reviews_praise(sample):
    assert np.mean([review.stance > 0 for review in sample]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([sentiment(review.text) > 0 for review in sample]) == pytest.approx(
        0.5, abs=0.03
    )


def test_oracle_understands_what_was_meant_and_counting_words_does_not(sample):
    """A review's sentences agree with its stance 92 % of the time, and the oracle hears that."""
    values = lexicon.ADJECTIVES | lexicon.OPINION_NOUNS | lexicon.OPINION_VERBS
    stance = np.array([review.stance for review in sample])
    heard = np.array([np.sign(sentiment(review.text)) for review in sample])
    counted = np.array(
        [np.sign(sum(values.get(word, 0) for word in words(r.text))) for r in sample]
    )
    assert np.mean(heard == stance) > 0.9
    assert np.mean(counted == heard) < 0.8


def test_no_fluent_review_is_heard_as_noise(sample):
    assert [review.text for review in sample if read(review.text).noise] == []


def test_every_single_sentence_is_heard_as_it_was_meant():
    """Sentence by sentence, not on average: a sign that is wrong once is a bug."""
    writer = Writer(random.Random(0))
    for polarity in (1, -1):
        for _, template in (*CLAUSES, *SENTENCES):
            for _ in range(10):
                writer.used.clear()
                sentence = writer.fill(template, polarity)
                score = sentiment(sentence)
                # A concession may be stronger than what outweighs it, never by much.
                least = -0.25 if "clause~" in template else 0.0
                assert score * polarity > least, sentence


PLURALS = "|".join(lexicon.PLURAL_ASPECTS)
SINGULARS = "|".join(lexicon.ASPECTS)


@pytest.mark.parametrize(
    "wrong",
    [
        rf"(?<!and )the ({PLURALS}) (is|was|does|feels|seems)\b",
        rf"(?<!and )(?<!nor )the ({SINGULARS}) (are|were|do|feel|seem)\b",
        r"\ban? (?=\w)(?:(?<=an )[^aeiou]|(?<=\ba )[aeiou])",
        r"\b(it|there) (are|were)\b",
        r"  | [.,!]|\{|~",
    ],
)
def test_grammar_is_right(sample, wrong):
    texts = [review.text for review in sample]
    assert [text for text in texts if re.search(wrong, text)] == []


def test_lists_hold_each_opinion_word_once():
    lists = [
        lexicon.GOOD_ADJECTIVES,
        lexicon.BAD_ADJECTIVES,
        lexicon.COMPARATIVES,
        lexicon.GOOD_NOUNS,
        lexicon.BAD_NOUNS,
        lexicon.OPINION_VERBS,
        lexicon.DEGREES,
        lexicon.NEGATORS,
    ]
    assert sum(map(len, lists)) == len(set().union(*lists))


def test_neutral_phrases_hold_no_opinion():
    opinions = set(lexicon.ADJECTIVES) | set(lexicon.OPINION_NOUNS) | set(lexicon.OPINION_VERBS)
    neutral = (
        *lexicon.ASPECTS,
        *lexicon.PLURAL_ASPECTS,
        *lexicon.FILMS,
        *lexicon.FILM_KINDS,
        *lexicon.HEROES,
        *lexicon.HERO_KINDS,
        *lexicon.PLACES,
        *lexicon.QUESTS,
        *lexicon.COMPANIONS,
        *lexicon.OCCASIONS,
        *lexicon.CRITICS,
        *lexicon.AUDIENCES,
        *lexicon.RIVALS,
        *lexicon.STARTERS,
    )
    assert [phrase for phrase in neutral if opinions & set(words(phrase))] == []


def test_lengths_that_leave_no_room_are_refused():
    with pytest.raises(InvalidArgument, match="longest"):
        next(reviews(1, 0, longest=10))
