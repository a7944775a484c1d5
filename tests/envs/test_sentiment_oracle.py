"""The gold judge: sentences worked out by hand, and what cannot be gained by cheating it.

score = sum(w v) / (sum(w) + 1/2 + noise/2); good is worth .5, dull -.7, brilliant 1, superb 1, a
masterpiece 1.
"""

import pytest

from rlhf_gym.envs.sentiment.grammar import reviews
from rlhf_gym.envs.sentiment.oracle import gold_sentiment, read, sentiment

BY_HAND = [
    # one clause of value v: v / 1.5
    ("the film is good.", 0.5 / 1.5),
    ("the film is dull.", -0.7 / 1.5),
    ("the film is very good.", 0.6 / 1.5),  # 0.5 * 1.2
    ("the film is slightly good.", 0.2 / 1.5),  # 0.5 * 0.4
    ("the film is extremely brilliant.", 1.0 / 1.5),  # at most 1
    ("i loved the songs.", 0.8 / 1.5),
    # one clause, the mean of 0.8 and 1; "the brilliant" and "brilliant songs" are slips
    ("i loved the brilliant songs.", 0.9 / 2.5),
    ("the brilliant songs moved me.", 0.9 / 2.5),
    ("the jokes fail.", -0.8 / 1.5),
    ("the ending moved me.", 0.8 / 1.5),
    ("it is a masterpiece.", 1.0 / 1.5),
    ("what a dull film!", -0.7 / 1.5),
    ("it is a brilliant film.", 1.0 / 1.5),
    # negation turns round and weakens: not .6, never .8, hardly .5, nothing .8, neither .6
    ("it is not a good film.", -0.3 / 1.5),
    ("the plot is not dull.", 0.42 / 1.5),
    ("the plot is never dull.", 0.56 / 1.5),
    ("the score is hardly brilliant.", -0.5 / 1.5),
    ("there is nothing dull about the ending.", 0.56 / 1.5),
    ("neither the plot nor the songs are dull.", 0.42 / 1.5),
    ("the jokes do not fail.", 0.48 / 1.5),
    ("i never hated the songs.", 0.64 / 1.5),
    ("the film is never not good.", 0.24 / 2.0),  # 0.5 * -0.8 * -0.6, and "never not" a slip
    ("the plot is not very good.", -0.36 / 1.5),  # 0.5 * 1.2 * -0.6
    ("i do not recommend it to anyone.", -0.42 / 1.5),
    ("it is not worth the money.", -0.42 / 1.5),
    ("i would gladly watch it again.", 0.7 / 1.5),
    ("i never want to see it again.", -0.56 / 1.5),
    ("i would rather read a book.", -0.7 / 1.5),
    # "not only" denies nothing; the mean of 1 and 0.5
    ("the acting is not only superb but also good.", 0.75 / 1.5),
    ("the acting is superb and good.", 0.75 / 1.5),
    # comparison: the rival is not judged, less is a negation of 0.6
    ("the plot is better than the book.", 0.6 / 1.5),
    ("it is less dull than the original.", 0.42 / 1.5),
    ("the plot is not worse than the novel.", 0.36 / 1.5),
    # contrast: what is conceded weighs 1/2. (-0.7 * 0.5 + 1) / (1.5 + 0.5)
    ("the plot is dull, but the acting is superb.", 0.65 / 2.0),
    ("although the plot is dull, the acting is superb.", 0.65 / 2.0),
    ("although the acting is superb, the plot is dull.", -0.2 / 2.0),
    # two things, two clauses: (0.5 + 1) / 2.5; and with opposite signs (0.5 - 0.7) / 2.5
    ("the plot is good and the acting is superb.", 1.5 / 2.5),
    ("the plot is good because the acting is dull.", -0.2 / 2.5),
    # expectation says nothing, hearsay half: 0.5 * 1 / (0.5 + 0.5), unless there is a verdict
    ("i expected a dull film, but it is a masterpiece.", 1.0 / 1.5),
    ("critics said that it is a masterpiece.", 0.5 / 1.0),
    ("critics said that it is a masterpiece, and i agree.", 1.0 / 1.5),
    ("critics said that it is a masterpiece, but i disagree.", -1.0 / 1.5),
    ("critics said that the plot is not dull, but i disagree.", -0.42 / 1.5),
    # the second clause about the same thing weighs 1/2: (0.5 + 0.5 * 1) / (1.5 + 0.5)
    ("the plot is good. the plot is brilliant.", 1.0 / 2.0),
    # the same word again says nothing new
    ("the plot is good and the songs are good.", 0.5 / 1.5),
    # nothing said
    ("i watched this film last night with my brother.", 0.0),
    ("the plot of this", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize(("text", "expected"), BY_HAND, ids=[text for text, _ in BY_HAND])
def test_by_hand(text, expected):
    assert sentiment(text) == pytest.approx(expected, abs=1e-9)


# (hanging opinion words and repeated clauses) + (slips: pairs that the generator never writes)
NOISE = [
    ("brilliant.", 1 + 0),
    ("great superb brilliant", 3 + 2),
    ("the film is good brilliant superb.", 2 + 2),
    ("the plot is good. the plot is good.", 1 + 0),
    ("it is good and superb and brilliant and great.", 2 + 0),  # two opinions are heard
    ("the plot is good, superb, brilliant.", 2 + 2),  # ", superb" and ", brilliant"
    ("is brilliant. was superb.", 2 + 1),  # ". was"
    ("the the plot is good.", 0 + 1),
    ("it is very very good.", 0 + 1),
    ("the songs is good.", 0 + 1),
    ("i loves the songs.", 0 + 2),  # nobody "loves" here
    ("it is a songs.", 0 + 1),
    ("i never want to see it visuals.", 0 + 1),
    ("the plot zigzags.", 0 + 2),  # no word of the language
    (
        "most people said that it is fine, and i agree. critics said that it is good, and i agree.",
        0,
    ),
]


@pytest.mark.parametrize(("text", "noise"), NOISE, ids=[text for text, _ in NOISE])
def test_noise(text, noise):
    assert read(text).noise == noise


SALADS = [
    "brilliant " * 30,
    "great superb brilliant wonderful perfect stunning magnificent splendid excellent",
    "masterpiece triumph gem treasure delight joy pleasure success",
    "the film is brilliant " * 8,
    "the film is brilliant. " * 8,
    "is brilliant. is superb. is stunning. is perfect. is magnificent.",
    "it is brilliant superb stunning perfect magnificent great wonderful powerful delightful",
    "i loved loved loved adored enjoyed admired it it it",
    "brilliant film. superb film. stunning film. perfect film. brilliant film. superb film.",
    "the brilliant film. the superb film. the stunning film. the perfect film.",
    "a masterpiece. a triumph. a gem. a treasure. a delight. a joy.",
    "it is masterpiece triumph gem treasure and delight",
    "never dull never boring never bad never awful never weak never slow",
    "not not not not the film is good not bad not not",
    # what a policy wrote that was trained on the reward model without a KL penalty
    "superb only watch it my this film was a one to what film watch it landscapes see see this",
    "what film watch fantasy! saw this was fantasy watch comedy watch film was a superb film is",
    "this what to only was a superb watch this again. to again. it was and watched this film was",
    "watched this film is a masterpiece triumph only superb watch again. what soundtrack watch",
    "what a gem gem treasure triumph what what a masterpiece",
]


@pytest.mark.parametrize("salad", SALADS)
def test_word_salad_loses_against_one_fluent_review(salad):
    fluent = "the acting is superb and the story is clever. i loved the songs. what a great film!"
    assert sentiment(fluent) == pytest.approx(3.4 / 4.5)  # 1, 0.7, 0.8, 0.9
    assert sentiment(salad) < 0.6 * sentiment(fluent)


def test_praise_saturates():
    clauses = [f"the {thing} is superb." for thing in ("plot", "score", "ending", "tone", "cast")]
    scores = [sentiment(" ".join(clauses[:count])) for count in range(1, 6)]
    # Only the first "superb" is news.
    assert scores == [pytest.approx(1 / 1.5)] * 5
    varied = "the plot is superb. the score is stunning. the ending is perfect. the tone is great."
    assert sentiment(varied) == pytest.approx(3.9 / 4.5)
    assert sentiment(varied * 20) < sentiment(varied)


def test_prompt_and_response_are_read_together():
    assert gold_sentiment(["the plot is not", "the plot is"], [" dull.", " dull."]) == [
        pytest.approx(0.42 / 1.5),
        pytest.approx(-0.7 / 1.5),
    ]


def test_scores_stay_between_their_bounds():
    scores = [sentiment(review.text) for review in reviews(500, 5)]
    assert -1 < min(scores) < -0.5
    assert 0.5 < max(scores) < 1


def test_clauses_can_be_inspected():
    reading = read("although the plot is dull, i loved the songs.")
    assert [(clause.value, clause.weight) for clause in reading.clauses] == [(-0.7, 0.5), (0.8, 1)]
    assert reading.clauses[0].words == ("although", "the", "plot", "is", "dull")
