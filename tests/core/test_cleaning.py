"""Cleaning: what is dropped, and that the report says so."""

import pytest

from rlhf_gym.core.cleaning import CleaningConfig, clean_corpus
from rlhf_gym.core.errors import InvalidArgument, InvalidData


def test_each_step_does_its_work_and_is_counted():
    texts = [
        "  A film.\r\nGood \x00\x07fun\u200d!\ufeff ",  # CRLF, control characters, ends
        "Cafe\u0301",  # e + accent: 5 characters become 4
        "Café",  # now the same as the one before
        "A  film.\nGood fun\u200d!",  # white space apart, the same as the first
        " \x00 ",  # nothing is left
        "Much too long a document",
    ]
    cleaned, report = clean_corpus(texts, CleaningConfig(max_characters=20))
    assert cleaned == ["A film.\nGood fun\u200d!", "Café"]
    assert (report.documents_in, report.documents_out) == (6, 2)
    assert report.characters_in == sum(map(len, texts))
    assert report.characters_out == 18 + 4
    assert (report.duplicates, report.too_short, report.too_long) == (2, 1, 1)
    assert (report.with_control_characters, report.normalised) == (2, 1)
    assert "2 of 6 documents kept (2 duplicates, 1 too short, 1 too long)" in str(report)


def test_each_step_can_be_left_out():
    texts = ["e\u0301\x00", "e\u0301\x00", "long enough"]
    config = CleaningConfig(control_characters=False, normalise=False, deduplicate=False)
    assert clean_corpus(texts, config)[0] == texts
    assert clean_corpus(texts, CleaningConfig(min_characters=2))[0] == ["long enough"]


def test_tabs_line_feeds_and_other_scripts_stay():
    texts = ["a\tb\n\nc", "नमस्ते", "👩\u200d💻"]
    assert clean_corpus(texts)[0] == texts


def test_lone_surrogates_which_no_file_can_hold_go():
    assert clean_corpus(["a\ud800b"])[0] == ["ab"]
    config = CleaningConfig(control_characters=False)
    assert clean_corpus(["a\ud800b"], config)[0] == ["a\ud800b"]


def test_nothing_left_is_an_error_with_the_report():
    with pytest.raises(InvalidData, match=r"0 of 2 documents kept \(0 duplicates, 2 too short"):
        clean_corpus(["a", "b"], CleaningConfig(min_characters=5))


def test_filters_that_drop_everything_are_refused():
    with pytest.raises(InvalidArgument, match="min_characters=0"):
        CleaningConfig(min_characters=0)
    with pytest.raises(InvalidArgument, match=r"max_characters=3.*min_characters=5"):
        CleaningConfig(min_characters=5, max_characters=3)
