"""Openings in other words: same content, the model's own vocabulary, no opinion."""

from __future__ import annotations

from rlhf_gym.core.models import load_tokenizer
from rlhf_gym.envs.sentiment.oracle import sentiment
from rlhf_gym.envs.sentiment.rewording import reworded_openings
from rlhf_gym.envs.sentiment.task import REFERENCE


def test_wordings_differ_and_share_their_words() -> None:
    for group in reworded_openings(60, seed=0):
        assert len(set(group)) == len(group) >= 2
        words = [{word.strip(".,") for word in wording.split()} for wording in group]
        assert len(set.intersection(*words)) >= 2


def test_the_tokenizer_knows_them_and_the_oracle_hears_no_opinion() -> None:
    tokenizer = load_tokenizer(REFERENCE)
    unknown = tokenizer.unk_token_id
    for wording in (w for group in reworded_openings(60, seed=1) for w in group):
        assert unknown is None or unknown not in tokenizer(wording)["input_ids"], wording
        assert sentiment(wording) == 0.0, wording


def test_the_same_seed_writes_the_same() -> None:
    assert reworded_openings(5, seed=2) == reworded_openings(5, seed=2)
