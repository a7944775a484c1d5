"""Action masks of every kind: what they allow, that they compose, and that KL knows of them."""

import re
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import legal_logits, next_token_logits
from rlhf_gym.envs.registration import register_all
from rlhf_gym.envs.text.automata import TokenAutomaton
from rlhf_gym.rewards.kl import KLPenalty

PAD, BOS, EOS, UNK = range(4)
A, B, C, D, E, F, G, H = range(4, 12)
VOCAB = 12

register_all()


def not_the_last_token_again(prompt, response):
    """A grammar as a function: nothing twice in a row, the prompt's last token included."""
    mask = np.ones(VOCAB, dtype=bool)
    mask[(prompt + response)[-1]] = False
    return mask


# Letters in the order of the alphabet: state s allows token 4 + s and stopping.
ALPHABETICAL = np.full((9, VOCAB), -1)
for state in range(9):
    ALPHABETICAL[state, EOS] = state
    if state < 8:
        ALPHABETICAL[state, A + state] = state + 1

MASKS = {
    "min_response_tokens": {"min_response_tokens": 2},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.7},
    "banned_token_ids": {"banned_token_ids": [D, E]},
    "banned_words": {"banned_words": ["d", "a b", "e f g"]},
    "vocabulary": {"vocabulary": ["a b", "c", H]},
    "regular": {"grammar": "[abc]( [d-h])+( a)?"},
    "automaton": {"grammar": TokenAutomaton(ALPHABETICAL)},
    "function": {"grammar": not_the_last_token_again},
    "all": {
        "min_response_tokens": 1, "top_k": 6, "top_p": 0.9, "banned_words": ["b c", "h"],
        "vocabulary": list("abcdefgh"), "grammar": "[a-h]( [a-h])*",
    },
}  # fmt: skip


def sampled(env, observation, model, rng):
    """Tokens of a model under the masks in force, and what they say to the channel."""
    mask = torch.from_numpy(env.action_masks())
    with torch.no_grad():
        logits = legal_logits(next_token_logits(model, observation), env.rules, mask)
    actions = logits.softmax(-1).multinomial(1, generator=rng).squeeze(-1)
    env.channel.write(actions, logits.log_softmax(-1).gather(-1, actions[:, None]).squeeze(-1))
    return actions


@pytest.mark.parametrize("timing", ["end", "step"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("kind", MASKS)
def test_policy_that_is_the_reference_has_no_kl(make_env, reference, kind, mode, timing):
    env = make_env(
        -KLPenalty(reference, 1.0), num_envs=4, autoreset_mode=mode, reward_timing=timing,
        temperature=0.7, **MASKS[kind],
    )  # fmt: skip
    assert env.uses_action_masks == (kind != "banned_token_ids")
    observation, _ = env.reset(seed=0)
    rng, known = torch.Generator().manual_seed(0), 0
    for _ in range(9):
        observation, rewards, _, _, info = env.step(sampled(env, observation, reference, rng))
        np.testing.assert_allclose(rewards, 0, atol=1e-5)
        if "kl" in info:
            np.testing.assert_allclose(info["kl"], 0, atol=1e-5)
            known += info["kl_known"].sum()
        if mode is AutoresetMode.DISABLED and not env.live.any():
            observation, _ = env.reset()
    assert known >= 4


@pytest.mark.parametrize("kind", [kind for kind in MASKS if not kind.startswith("top")])
def test_kl_of_another_policy_is_renormalised_under_the_masks(make_env, reference, kind):
    """A uniform policy: KL = -sum of ln(allowed tokens) - sum of log pi_ref, both masked."""
    env = make_env(-KLPenalty(reference, 1.0), autoreset_mode="Disabled", **MASKS[kind])
    observation, _ = env.reset()
    rng, expected, seen = np.random.default_rng(0), np.zeros(2), 0
    while env.live.any():
        live, masks = env.live, env.action_masks()
        with torch.no_grad():
            logits = legal_logits(
                next_token_logits(reference, observation), env.rules, torch.from_numpy(masks)
            )
        tokens = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        log_probs = -np.log(masks.sum(1))
        expected += live * (log_probs - logits.log_softmax(-1).numpy()[[0, 1], tokens])
        env.channel.write(tokens, log_probs)
        observation, _, _, _, info = env.step(tokens)
        for row in np.flatnonzero(info.get("_kl", [])):
            assert info["kl"][row] == pytest.approx(expected[row], abs=1e-4)
            assert info["token_rewards"][row].sum() == pytest.approx(-expected[row], abs=1e-4)
            seen += 1
    assert seen == 2


@pytest.mark.parametrize("kind", MASKS)
def test_both_checkers_are_content(tokenizer, reference, word_count, kind):
    def make():
        return gym.make(
            "rlhf_gym/TextGeneration-v0", prompts=["a b", "c"], tokenizer=tokenizer,
            reward=word_count, max_response_tokens=4, reference=reference, **MASKS[kind],
        ).unwrapped  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make())
        check_env_sb3(make())


@pytest.mark.parametrize("kind", MASKS)
def test_a_saved_episode_goes_on_under_the_same_masks(make_env, reference, kind):
    def make():
        return make_env(
            -KLPenalty(reference, 1.0), num_envs=3, max_response_tokens=6, **MASKS[kind]
        )

    env, other = make(), make()
    observation, _ = env.reset(seed=0)
    rng = torch.Generator().manual_seed(1)
    for _ in range(4):
        observation, *_ = env.step(sampled(env, observation, reference, rng))
    other.load_state_dict(env.state_dict())
    for _ in range(5):
        np.testing.assert_array_equal(other.action_masks(), env.action_masks())
        tokens = sampled(env, observation, reference, rng)
        observation, *_ = env.step(tokens)
        np.testing.assert_array_equal(other.step(tokens)[0]["input_ids"], observation["input_ids"])


def allowed_behind(env, columns):
    """Tokens that are allowed in the first row after some steps."""
    env.reset()
    for token in columns:
        env.step([token] * env.num_envs)
    return set(np.flatnonzero(env.action_masks()[0]))


EVERYTHING = set(range(VOCAB)) - {PAD}


class TestByHand:
    def test_vocabulary(self, make_env):
        env = make_env(**MASKS["vocabulary"])
        for columns in ([], [D], [A, B]):
            assert allowed_behind(env, columns) == {EOS, A, B, C, H}

    def test_banned_words(self, make_env):
        env = make_env(banned_words=["d", "a b", "e f g", "zebra"])
        assert allowed_behind(env, []) == EVERYTHING - {D}
        assert allowed_behind(env, [A]) == EVERYTHING - {D, B}
        assert allowed_behind(env, [E, F]) == EVERYTHING - {D, G}
        assert allowed_behind(env, [F]) == EVERYTHING - {D}

    def test_a_ban_does_not_see_the_prompt(self, make_env):
        # The prompt is "a b"; "b c" is banned in the response alone.
        assert C in allowed_behind(make_env(banned_words=["b c"]), [])

    def test_regular_expression(self, make_env):
        env = make_env(grammar="[abc]( [d-h])+( a)?")  # of at most four tokens
        assert allowed_behind(env, []) == {A, B, C}
        assert allowed_behind(env, [B]) == {D, E, F, G, H}
        assert allowed_behind(env, [B, D]) == {EOS, A, D, E, F, G, H}
        assert allowed_behind(env, [B, D, A]) == {EOS}

    def test_automaton(self, make_env):
        env = make_env(grammar=TokenAutomaton(ALPHABETICAL))
        assert allowed_behind(env, []) == {EOS, A}
        assert allowed_behind(env, [A, B]) == {EOS, C}

    def test_function_sees_prompt_and_response(self, make_env):
        env = make_env(grammar=not_the_last_token_again)  # the prompt ends in b
        assert allowed_behind(env, []) == EVERYTHING - {B}
        assert allowed_behind(env, [H]) == EVERYTHING - {H}

    def test_all_hold_at_once(self, make_env):
        env = make_env(
            min_response_tokens=2, vocabulary=list("abc"), banned_words=["a a"],
            grammar="[ab]( [ab])*",
        )  # fmt: skip
        assert allowed_behind(env, []) == {A, B}
        assert allowed_behind(env, [A]) == {B}
        assert allowed_behind(env, [A, B]) == {EOS, A, B}

    def test_where_nothing_is_left_the_response_may_stop(self, make_env):
        # Behind "a" the grammar wants "b" and the ban forbids it; likewise a broken rule.
        env = make_env(grammar="a b|c", banned_words=["a b"])
        assert allowed_behind(env, [A]) == {EOS}
        assert allowed_behind(env, [H, H]) == {EOS}
        endless = make_env(grammar="a b|c", banned_words=["a b"], stop_token_ids=())
        assert allowed_behind(endless, [A]) == EVERYTHING

    def test_a_new_episode_begins_anew(self, make_env):
        env = make_env(grammar="a b( c)*")
        env.reset()
        env.step([A, A])
        masks = env.step([B, EOS]) and env.action_masks()
        assert set(np.flatnonzero(masks[0])) == {EOS, C}
        assert set(np.flatnonzero(masks[1])) == {A}


def test_every_response_matches_its_grammar_also_at_the_limit(make_env):
    env = make_env(grammar="([a-d]( [e-h])+){1}", num_envs=8, max_response_tokens=3)
    env.reset(seed=0)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        tokens = [rng.choice(np.flatnonzero(mask)) for mask in env.action_masks()]
        *_, info = env.step(tokens)
        for row in np.flatnonzero(info.get("_final_obs", [])):
            ids = info["final_obs"][row]["input_ids"][env.prompt_width :]
            text = env.tokenizer.decode(ids, skip_special_tokens=True)
            assert re.fullmatch("[a-d]( [e-h])+", text)
            seen.add(info["finish_reason"][row])
    assert seen == {"stop", "length"}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"vocabulary": ["zebra"]}, "vocabulary"),
        ({"vocabulary": [VOCAB]}, "vocabulary"),
        ({"vocabulary": "a"}, "vocabulary"),
        ({"vocabulary": [], "min_response_tokens": 1}, "min_response_tokens"),
        ({"banned_words": "a"}, "banned_words"),
        ({"banned_words": ["a", ""]}, "banned_words"),
        ({"grammar": "(a"}, "grammar"),
        ({"grammar": 3}, "grammar"),
        ({"grammar": "zebra"}, "grammar"),  # no token writes a z
        ({"grammar": "a b c d e"}, "grammar"),  # five tokens, and the budget is four
        ({"grammar": TokenAutomaton([[0, 0]])}, "grammar"),
    ],
)
def test_masks_that_cannot_be_are_refused(make_env, settings, field):
    with pytest.raises(InvalidArgument) as error:
        make_env(**settings)
    assert error.value.field == field


@pytest.mark.parametrize("answer", [[True] * 3, [1] * VOCAB])
def test_a_function_must_return_a_mask(make_env, answer):
    env = make_env(grammar=lambda prompt, response: answer)
    with pytest.raises(InvalidArgument, match="grammar"):
        env.reset() and env.action_masks()


def test_memory_of_masks_is_limited(make_env):
    with pytest.raises(InvalidArgument, match="max_distribution_bytes"):
        make_env(grammar="a", max_distribution_bytes=2 * 4 * VOCAB - 1)
    make_env(grammar="a", max_distribution_bytes=2 * 4 * VOCAB)


@pytest.mark.parametrize("restriction", [{"banned_words": ["a a", "b c"]}, {"grammar": "c( d)* e"}])
def test_the_exact_optimum_obeys_the_masks(restriction):
    env = gym.make_vec("rlhf_gym/Exact-v0", num_envs=1, **restriction).unwrapped
    optimum = env.optimum()
    assert optimum.value > optimum.reference_value
    for depth, prefix in enumerate([(), (4,), (4, 5)]):
        env.reset(options={"prompt_index": 0})
        for token in prefix[:depth]:
            env.step([token])
        probabilities = optimum.policy(prefix[:depth], prompt=0).numpy()
        np.testing.assert_array_equal(probabilities > 0, env.action_masks()[0])
