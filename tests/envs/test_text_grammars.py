"""Regular expressions against `re`, and token automata worked out by hand."""

import re

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.automata import TokenAutomaton, forbid_sequences
from rlhf_gym.envs.text.grammars import regular_grammar, token_texts, word_forms
from rlhf_gym.envs.text.regular import character_table

ALPHABET = "ab1 _]-"
ATOMS = [
    "a", "b", "1", ".", "[ab]", "[^a]", "\\d", "\\w", "\\s", "\\W", "[a-b1]", "[]a]", "[^]a]",
    "[a-]", "[\\d_]", "\\]",
]  # fmt: skip
QUANTIFIERS = ["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "{0}"]


def matches(pattern, text):
    table, state = character_table(pattern, ALPHABET), 0
    for char in text:
        state = table.next_states[state, table.column[char]]
        if state < 0:
            return False
    return bool(table.accepting[state])


def random_pattern(rng, depth):
    kind = rng.random() if depth else 0
    if kind < 0.3:
        return rng.choice(ATOMS)
    if kind < 0.55:
        return random_pattern(rng, depth - 1) + random_pattern(rng, depth - 1)
    if kind < 0.75:
        return f"({random_pattern(rng, depth - 1)}|{random_pattern(rng, depth - 1)})"
    quantifier = rng.choice(QUANTIFIERS)
    return f"(?:{random_pattern(rng, depth - 1)}){quantifier}"


def test_regular_expressions_agree_with_re():
    rng, found = np.random.default_rng(0), 0
    for _ in range(150):
        pattern = random_pattern(rng, 3)
        for _ in range(20):
            text = "".join(rng.choice(list(ALPHABET), size=rng.integers(6)))
            expected = bool(re.fullmatch(pattern, text))
            found += expected
            assert matches(pattern, text) == expected, (pattern, text)
    assert found > 100


@pytest.mark.parametrize(
    "pattern",
    ["(a", "a)", "*a", "a**", "a{2}+", "a{x}", "a{3,2}", "a{2", "[a", "[b-a]", "^a", "a$", "\\b",
     "a*?", "(?=a)", "\\", "[\\d-a]", "(a)\\1"],
)  # fmt: skip
def test_other_syntax_is_refused(pattern):
    with pytest.raises(InvalidArgument, match="grammar"):
        character_table(pattern, ALPHABET)


def test_a_table_too_large_is_refused():
    with pytest.raises(InvalidArgument, match="states"):
        character_table("[ab]*a[ab]{13}", ALPHABET)


class TestAutomaton:
    # a then b, then stop (token 2) or again; from the start at least two tokens to the end.
    TABLE = ((1, -1, -1), (-1, 2, -1), (1, -1, 2))

    def test_tables_by_hand(self):
        automaton = TokenAutomaton(self.TABLE, accepting=[False, False, True])
        assert automaton.shortest == 2
        states, plenty = np.array([0, 1, 2, -1]), np.full(4, 9)
        np.testing.assert_array_equal(
            automaton.allowed(states, plenty),
            [[True, False, False], [False, True, False], [True, False, True], [False] * 3],
        )
        tokens = np.array([0, 1, 0, 0])
        np.testing.assert_array_equal(automaton.advance(states, tokens), [1, 2, 1, -1])
        np.testing.assert_array_equal(automaton.advance(states, tokens[::-1]), [1, -1, -1, -1])

    def test_nothing_is_begun_that_cannot_be_finished(self):
        automaton = TokenAutomaton(self.TABLE, accepting=[False, False, True])
        # Behind "a b", "a" needs another "b": allowed with two tokens left, not with one.
        for remaining, expected in [(2, [True, False, True]), (1, [False, False, True])]:
            allowed = automaton.allowed(np.array([2]), np.array([remaining]))
            np.testing.assert_array_equal(allowed[0], expected)

    def test_ways_that_lead_nowhere_are_closed(self):
        # Token 1 leads to state 1, from which nothing accepts.
        automaton = TokenAutomaton([[2, 1], [1, 1], [-1, -1]], accepting=[False, False, True])
        allowed = automaton.allowed(np.array([0]), np.array([9]))
        np.testing.assert_array_equal(allowed, [[True, False]])

    def test_sequences_are_forbidden_at_their_last_token(self):
        # 1 2 1 3, and 2 1 1 within what begins it, and 4 alone.
        automaton = forbid_sequences([(1, 2, 1, 3), (2, 1, 1), (4,)], 5)
        forbidden = {
            (): {4}, (1,): {4}, (1, 2): {4}, (1, 2, 1): {3, 1, 4}, (1, 1, 2, 1): {3, 1, 4},
            (2, 1): {1, 4}, (1, 2, 1, 2): {4}, (1, 2, 1, 2, 1): {3, 1, 4}, (2, 2, 1, 0): {4},
        }  # fmt: skip
        for response, expected in forbidden.items():
            state = np.zeros(1, dtype=np.int64)
            for token in response:
                state = automaton.advance(state, np.array([token]))
            allowed = automaton.allowed(state, np.array([9]))[0]
            assert set(np.flatnonzero(~allowed)) == expected, response

    @pytest.mark.parametrize("table", [[0, 1], [[3]], [[-2]], [[0.5]], np.zeros((0, 3), int)])
    def test_no_table(self, table):
        with pytest.raises(InvalidArgument):
            TokenAutomaton(table)

    def test_accepting_states_must_be_as_many(self):
        with pytest.raises(InvalidArgument, match="accepting"):
            TokenAutomaton([[0]], accepting=[True, False])


def byte_level():
    """Bytes, some merges, a token of half a character, and special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    merges = [("y", "e"), ("ye", "s"), ("Ġ", "n"), ("Ġn", "o"), ("n", "o"), (".", ".")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def rules_of(tokenizer):
    stop = (tokenizer.eos_token_id,)
    return TokenRules(vocab_size=len(tokenizer), pad_id=tokenizer.pad_token_id, stop_ids=stop)


class TestTokens:
    def test_texts_of_bytes(self):
        tokenizer = byte_level()
        first, later = token_texts(tokenizer, rules_of(tokenizer))
        assert first == later  # a byte tokenizer strips nothing
        assert [later[tokenizer.convert_tokens_to_ids(t)] for t in ("yes", "Ġno")] == ["yes", " no"]
        halves = tokenizer("é")["input_ids"]
        assert len(halves) == 2
        assert [later[t] for t in (*halves, tokenizer.pad_token_id)] == ["", "", ""]

    def test_texts_of_words_with_a_space_before_all_but_the_first(self, tokenizer):
        first, later = token_texts(tokenizer, rules_of(tokenizer))
        assert first[4:] == list("abcdefgh")
        assert later[4:] == [f" {letter}" for letter in "abcdefgh"]
        assert first[:4] == later[:4] == [""] * 4

    def test_forms_of_words(self, tokenizer):
        byte = byte_level()
        tokens = [byte.convert_ids_to_tokens(form) for form in word_forms("no", byte)]
        assert tokens == [["no"], ["Ġno"]]
        assert word_forms("a b", tokenizer) == [[4, 5]]  # both forms are one
        assert word_forms("zebra", tokenizer) == []

    @pytest.mark.parametrize(
        ("pattern", "shortest"),
        [("(yes|no)\\.?", 1), ("( no){2,3}", 2), ("[a-z]{3}", 1), (".*!", 1), ("yes.*|\\d+", 1)],
    )
    def test_random_responses_match_the_pattern_and_stop_where_they_do(self, pattern, shortest):
        tokenizer = byte_level()
        rules = rules_of(tokenizer)
        automaton = regular_grammar(pattern, tokenizer, rules)
        assert automaton.shortest == shortest
        rng, budget = np.random.default_rng(0), 6
        for _ in range(50):
            state, response = np.zeros(1, dtype=np.int64), []
            while len(response) < budget:
                remaining = np.array([budget - len(response)])
                allowed = automaton.allowed(state, remaining)[0]
                stops = re.fullmatch(pattern, tokenizer.decode(response)) is not None
                assert allowed[tokenizer.eos_token_id] == stops
                token = rng.choice(np.flatnonzero(allowed))
                if token == tokenizer.eos_token_id:
                    break
                response.append(int(token))
                state = automaton.advance(state, np.array([token]))
            assert re.fullmatch(pattern, tokenizer.decode(response))
