"""Verbatim overlap with a corpus: counted by hand, and against Python's own `in`."""

import numpy as np

from rlhf_gym.core.supervised.memorisation import CorpusIndex, Overlap

CORPUS = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 2]]


def test_n_grams_and_the_longest_stretch_by_hand():
    # 2-grams of the texts: (9,3) no, (3,4) yes, (4,5) yes, (5,7) no, (6,7) no: it would cross from
    # one document into the next. 2 of 5; the longest stretch is 3 4 5.
    overlap = CorpusIndex(CORPUS).overlap([[9, 3, 4, 5, 7], [6, 7]], n=2)
    assert overlap == Overlap(share=0.4, longest=3, n=2, count=5)


def test_a_recited_document_and_one_never_seen():
    index = CorpusIndex(CORPUS)
    assert index.overlap([CORPUS[0]], n=3) == Overlap(share=1.0, longest=6, n=3, count=4)
    assert index.overlap([[50, 60, 70]], n=2) == Overlap(share=0.0, longest=0, n=2, count=2)
    assert index.overlap([[4]], n=2) == Overlap(share=0.0, longest=1, n=2, count=0)
    assert index.overlap([], n=2) == Overlap(share=0.0, longest=0, n=2, count=0)


def test_many_random_texts_against_a_plain_search():
    rng = np.random.default_rng(0)
    corpus = [rng.integers(0, 4, rng.integers(1, 30)).tolist() for _ in range(20)]
    texts = [rng.integers(0, 4, rng.integers(1, 12)).tolist() for _ in range(20)]
    joined = [f",{','.join(map(str, document))}," for document in corpus]

    def occurs(stretch):
        wanted = f",{','.join(map(str, stretch))},"
        return any(wanted in document for document in joined)

    for n in (1, 3, 5):
        grams = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
        overlap = CorpusIndex(corpus).overlap(texts, n)
        assert overlap.count == len(grams)
        assert overlap.share == sum(map(occurs, grams)) / len(grams)
    longest = max(
        j - i
        for text in texts
        for i in range(len(text))
        for j in range(i + 1, len(text) + 1)
        if occurs(text[i:j])
    )
    assert overlap.longest == longest
