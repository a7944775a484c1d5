"""The token MDP: what a step writes, how episodes end, what the three autoreset modes do."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from rlhf_gym.core.errors import EpisodeEnded
from rlhf_gym.core.tokens import legal_logits, next_token_logits
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.rewards.kl import KLPenalty

PAD, EOS, UNK = 0, 2, 3
A, B, C, D, E, F = range(4, 10)
MODES = list(AutoresetMode)


def test_prompt_left_response_right_they_meet_in_the_middle(make_env, play):
    env = make_env()
    observation, info = env.reset(seed=0)
    assert info == {}
    assert env.prompt_width == 2
    np.testing.assert_array_equal(
        observation["input_ids"], [[A, B, 0, 0, 0, 0], [0, C, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        observation["attention_mask"], [[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]
    )
    observation = play(env, [[D, UNK], [E, F]])[-1][0]
    np.testing.assert_array_equal(
        observation["input_ids"], [[A, B, D, E, 0, 0], [0, C, UNK, F, 0, 0]]
    )
    np.testing.assert_array_equal(
        observation["attention_mask"], [[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0]]
    )
    assert observation in env.observation_space
    assert observation["input_ids"].dtype == np.int64
    assert observation["attention_mask"].dtype == np.int8


def test_ids_alone_for_agents_that_cannot_read_a_dict(make_env, play):
    env = make_env(observation="ids")
    env.reset()
    ((observation, *_),) = play(env, [[D, EOS]])
    assert observation in env.observation_space
    assert isinstance(env.single_observation_space, gym.spaces.Box)


def test_what_a_caller_was_given_never_changes(make_env, play):
    env = make_env(autoreset_mode=AutoresetMode.SAME_STEP)
    given = [env.reset()[0]]
    kept = [copy.deepcopy(given[0])]
    for tokens in ([D, D], [EOS, D], [D, D], [D, D]):
        given += play(env, [tokens])
        kept.append(copy.deepcopy(given[-1]))
    assert data_equivalence(given, kept, exact=True)


@pytest.mark.parametrize(
    ("column", "reason", "length"),
    [([EOS], "stop", 1), ([D, EOS], "stop", 2), ([D] * 4, "length", 4)],
)
def test_stop_token_and_budget_both_terminate(make_env, play, column, reason, length):
    env = make_env(num_envs=1)
    env.reset()
    _, _, terminated, truncated, info = play(env, [[token] for token in column])[-1]
    assert (terminated[0], truncated[0]) == (True, False)
    assert info["finish_reason"][0] == reason
    assert info["response_length"][0] == length


def test_truncation_is_the_other_reading_of_the_budget(make_env, play):
    env = make_env(length_limit="truncate")
    env.reset()
    *_, (_, _, terminated, truncated, info) = play(env, [[D, D], [D, D], [D, D], [EOS, D]])
    np.testing.assert_array_equal(terminated, [True, False])
    np.testing.assert_array_equal(truncated, [False, True])
    assert info["finish_reason"].tolist() == ["stop", "length"]


def test_any_of_several_stop_tokens_ends(make_env, play):
    env = make_env(stop_token_ids=[EOS, B])
    env.reset()
    ((_, _, terminated, _, _),) = play(env, [[B, EOS]])
    assert terminated.all()


def test_every_end_token_that_the_reference_lists_ends(make_env, play, reference):
    chat = copy.deepcopy(reference)
    chat.generation_config.eos_token_id = [B, EOS]
    env = make_env(reference=chat)
    assert env.rules.stop_ids == (EOS, B)
    env.reset()
    ((_, _, terminated, _, info),) = play(env, [[B, EOS]])
    assert terminated.all()
    assert info["finish_reason"].tolist() == ["stop", "stop"]
    assert make_env(reference=chat, stop_token_ids=[EOS]).rules.stop_ids == (EOS,)


def test_info_is_empty_until_an_episode_ends_and_has_masks_then(make_env, play):
    env = make_env(gold=lambda prompts, responses: [7.0] * len(prompts))
    env.reset()
    first, second = play(env, [[D, D], [D, EOS]])
    assert first[-1] == {}
    info = second[-1]
    arrays = {"token_rewards", "score", "gold_reward", "kl_known", "response_length"}
    for name in arrays | {"finish_reason", "prompt_index", "reward_terms"}:
        np.testing.assert_array_equal(info[f"_{name}"], [False, True])
    assert info["token_rewards"].shape == (2, 4)
    assert info["token_rewards"].dtype == np.float32
    assert info["gold_reward"].tolist() == [0, 7]
    assert info["prompt_index"].tolist() == [0, 1]
    assert info["reward_terms"]["count_words"].tolist() == [0, 1]
    assert info["reward_terms"]["_count_words"].tolist() == [False, True]


def test_same_step_begins_the_next_episode_at_once(make_env, play):
    env = make_env(autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset()
    observation, rewards, terminated, _, info = play(env, [[D, D], [EOS, D]])[-1]
    np.testing.assert_array_equal(rewards, [1, 0])
    np.testing.assert_array_equal(terminated, [True, False])
    np.testing.assert_array_equal(observation["input_ids"][0], [A, B, 0, 0, 0, 0])
    np.testing.assert_array_equal(info["final_obs"][0]["input_ids"], [A, B, D, EOS, 0, 0])
    np.testing.assert_array_equal(info["final_obs"][0]["attention_mask"], [1, 1, 1, 1, 0, 0])
    assert info["final_obs"][1] is None
    np.testing.assert_array_equal(info["final_info"]["token_rewards"], info["token_rewards"])
    for name in ("final_obs", "final_info"):
        np.testing.assert_array_equal(info[f"_{name}"], [True, False])


def test_next_step_has_one_dead_step(make_env, play):
    env = make_env(autoreset_mode=AutoresetMode.NEXT_STEP)
    env.reset()
    ended, dead, live = play(env, [[EOS, D], [F, D], [F, D]])
    np.testing.assert_array_equal(ended[0]["input_ids"][0], [A, B, EOS, 0, 0, 0])
    np.testing.assert_array_equal(dead[0]["input_ids"][0], [A, B, 0, 0, 0, 0])
    assert (dead[1][0], dead[2][0], dead[3][0]) == (0, False, False)
    np.testing.assert_array_equal(live[0]["input_ids"][0], [A, B, F, 0, 0, 0])
    np.testing.assert_array_equal(live[0]["input_ids"][1], [0, C, D, D, D, 0])


def test_disabled_rows_that_ended_wait_and_count_nothing(make_env, play):
    env = make_env(autoreset_mode=AutoresetMode.DISABLED)
    env.reset()
    first, second, third = play(env, [[EOS, D], [F, D], [F, EOS]])
    for step, active in ((first, [True, True]), (second, [False, True]), (third, [False, True])):
        np.testing.assert_array_equal(step[-1]["active"], active)
        np.testing.assert_array_equal(step[-1]["_active"], [True, True])
    for step in (second, third):
        np.testing.assert_array_equal(step[0]["input_ids"][0], [A, B, EOS, 0, 0, 0])
        assert (step[1][0], step[2][0], step[3][0]) == (0, False, False)
    np.testing.assert_array_equal(third[2], [False, True])
    with pytest.raises(EpisodeEnded, match="after all episodes had ended"):
        env.step([D, D])


@pytest.mark.parametrize("mode", MODES)
def test_step_before_reset_is_refused(make_env, mode):
    env = make_env(autoreset_mode=mode)
    with pytest.raises(EpisodeEnded, match="before reset"):
        env.step([D, D])
    with pytest.raises(EpisodeEnded, match="before reset"):
        env.action_masks()


@pytest.mark.parametrize("mode", MODES)
def test_reset_mask_resets_only_those_rows_and_stays_in_the_options(make_env, play, mode):
    env = make_env(autoreset_mode=mode)
    with pytest.raises(EpisodeEnded, match="all rows once"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset()
    play(env, [[D, E]])
    options = {"reset_mask": np.array([True, False])}
    observation, _ = env.reset(options=options)
    assert "reset_mask" in options
    np.testing.assert_array_equal(observation["input_ids"][0], [A, B, 0, 0, 0, 0])
    np.testing.assert_array_equal(observation["input_ids"][1], [0, C, E, 0, 0, 0])


def test_disabled_runs_on_after_a_masked_reset(make_env, play):
    env = make_env(autoreset_mode=AutoresetMode.DISABLED)
    env.reset()
    play(env, [[EOS, EOS]])
    env.reset(options={"reset_mask": np.array([False, True])})
    ((_, _, terminated, _, info),) = play(env, [[EOS, EOS]])
    np.testing.assert_array_equal(terminated, [False, True])
    np.testing.assert_array_equal(info["active"], [False, True])


def test_options_choose_prompts(make_env):
    env = make_env()
    observation, _ = env.reset(options={"prompt_index": [1, 1]})
    np.testing.assert_array_equal(observation["input_ids"][:, :2], [[0, C], [0, C]])
    mask = np.array([True, False])
    observation, _ = env.reset(options={"prompt_index": 0, "reset_mask": mask})
    np.testing.assert_array_equal(observation["input_ids"][:, :2], [[A, B], [0, C]])


@pytest.mark.parametrize("mode", MODES)
def test_record_episode_statistics_is_right(make_env, mode):
    """Returns and lengths that the wrapper counts are those the environment reports."""
    inner = make_env(num_envs=3, autoreset_mode=mode)
    env = RecordEpisodeStatistics(inner, buffer_length=10_000)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    returns, lengths = [], []
    for _ in range(60):
        _, _, terminated, truncated, info = env.step(rng.integers(1, 12, size=3))
        ended = terminated | truncated
        if ended.any():
            np.testing.assert_array_equal(info["_episode"], ended)
            np.testing.assert_allclose(info["episode"]["r"][ended], info["score"][ended])
            np.testing.assert_array_equal(
                info["episode"]["l"][ended], info["response_length"][ended]
            )
            returns += info["score"][ended].tolist()
            lengths += info["response_length"][ended].tolist()
        if mode is AutoresetMode.DISABLED and not inner.live.any():
            env.reset()
        elif mode is AutoresetMode.DISABLED and ended.any() and rng.random() < 0.5:
            env.reset(options={"reset_mask": ended})
    assert len(returns) == inner.episodes_seen > 10
    np.testing.assert_allclose(list(env.return_queue), returns)
    np.testing.assert_array_equal(list(env.length_queue), lengths)


@pytest.mark.parametrize("mode", MODES)
def test_info_can_be_turned_into_a_list(make_env, mode):
    env = DictInfoToList(make_env(autoreset_mode=mode))
    env.reset()
    *_, infos = env.step([D, EOS])
    assert infos[1]["finish_reason"] == "stop"
    assert "score" not in infos[0]
    assert infos[1]["reward_terms"] == {"count_words": 0.0}


def test_prompts_come_once_each_before_they_come_again(make_env):
    env = make_env(prompts=list("abcdefgh"), num_envs=3, prompt_order="shuffle")
    env.reset(seed=1)
    seen = []
    for _ in range(8):  # every step ends three episodes: 24 prompts, three rounds
        *_, info = env.step([EOS] * 3)
        seen += info["prompt_index"].tolist()
    rounds = np.array(seen).reshape(3, 8)
    np.testing.assert_array_equal(np.sort(rounds), [range(8)] * 3)
    assert not np.array_equal(rounds[0], rounds[1])


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_same_run_whatever_the_global_generators_are(make_env, mode):
    def run(noise):
        np.random.seed(noise)  # noqa: NPY002
        torch.manual_seed(noise)
        env = make_env(prompts=list("abcdefgh"), prompt_order="shuffle", autoreset_mode=mode)
        rng = np.random.default_rng(0)
        first = env.reset(seed=5)
        steps = [env.step(rng.integers(3, 12, size=2)) for _ in range(4)]
        return first, steps, env.reset()

    assert data_equivalence(run(1), run(2), exact=True)


def test_another_seed_draws_other_prompts(make_env):
    env = make_env(prompts=list("abcdefgh"), num_envs=8, prompt_order="shuffle")
    first = env.reset(seed=0)[0]["input_ids"]
    assert not np.array_equal(first, env.reset(seed=1)[0]["input_ids"])
    np.testing.assert_array_equal(first, env.reset(seed=0)[0]["input_ids"])


def test_rows_do_not_know_of_each_other(make_env, reference, play):
    """Each row of a batch gives what it gives alone, reference pass included."""
    reward = lambda p, r: [len(x) for x in r]  # noqa: E731
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 12, size=(4, 5))
    log_probs = rng.uniform(-3, -1, size=(4, 5))
    prompts = ["a b", "c", "d e f", "g", "h a"]

    def rows(chosen):
        env = make_env(
            (0.5 * KLPenalty(reference, 0.3) * -1.0) + reward,
            prompts=prompts,
            num_envs=len(chosen),
            max_prompt_tokens=3,
            autoreset_mode=AutoresetMode.DISABLED,
        )
        env.reset(options={"prompt_index": chosen})
        return play(env, tokens[:, chosen], log_probs[:, chosen])[-1]

    _, together, _, _, info = rows([0, 1, 2, 3, 4])
    for row in range(5):
        _, alone, _, _, single = rows([row])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
        np.testing.assert_allclose(
            info["token_rewards"][row], single["token_rewards"][0], atol=1e-5
        )
        np.testing.assert_allclose(info["kl"][row], single["kl"][0], atol=1e-5)


def test_observation_reads_as_the_model_reads_text(make_env, reference, play):
    """`next_token_logits` of a padded observation is the model's own forward without padding."""
    env = make_env()
    env.reset()
    ((observation, *_),) = play(env, [[D, E]])
    padded = next_token_logits(reference, observation)
    with torch.no_grad():
        alone = reference(torch.tensor([[C, E]])).logits[0, -1]
    torch.testing.assert_close(padded[1], alone)


def test_deepcopy_and_pickle_keep_their_own_state(make_env, play):
    env = make_env()
    env.reset(seed=0)
    play(env, [[D, D]])
    twin = copy.deepcopy(env)
    assert twin.channel is env.channel  # a policy stays connected
    ((one, *_),) = play(env, [[E, E]])
    ((other, *_),) = play(twin, [[F, F]])
    assert one["input_ids"][0].tolist() == [A, B, D, E, 0, 0]
    assert other["input_ids"][0].tolist() == [A, B, D, F, 0, 0]
    assert other["attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0]
    again = pickle.loads(pickle.dumps(twin))
    ((third, *_),) = play(again, [[A, A]])
    assert third["input_ids"][0].tolist() == [A, B, D, F, A, 0]


def test_render_shows_prompt_and_response(make_env, play):
    env = make_env(render_mode="ansi")
    env.reset()
    play(env, [[D, E]])
    assert env.render() == ("a b d", "c e")
    assert make_env().render() is None


class TestMasks:
    def test_pad_and_banned_tokens_always(self, make_env):
        env = make_env(banned_token_ids=[UNK])
        env.reset()
        assert not env.uses_action_masks
        expected = np.ones((2, 12), dtype=bool)
        expected[:, [PAD, UNK]] = False
        np.testing.assert_array_equal(env.action_masks(), expected)

    def test_minimum_length_forbids_stopping_early(self, make_env, play):
        env = make_env(min_response_tokens=2, autoreset_mode=AutoresetMode.DISABLED)
        env.reset()
        assert env.uses_action_masks
        allowed = [env.action_masks()[0, EOS]]
        for _ in range(3):
            play(env, [[D, D]])
            allowed.append(env.action_masks()[0, EOS])
        assert allowed == [False, False, True, True]

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_top_k_and_top_p_are_of_the_reference_as_it_reads_the_observation(
        self, make_env, reference, mode, temperature
    ):
        env = make_env(
            reference=reference, top_k=7, top_p=0.8, min_response_tokens=1,
            temperature=temperature, autoreset_mode=mode, num_envs=3,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        observation, _ = env.reset(seed=0)
        sizes = set()
        for _ in range(11):
            live = env.live
            if not live.any():
                observation, _ = env.reset()
            masks = env.action_masks()
            with torch.no_grad():
                logits = next_token_logits(reference, observation)
            probabilities = legal_logits(logits, env.rules)
            begun = observation["attention_mask"][:, env.prompt_width :].any(1)
            probabilities[~torch.from_numpy(begun), EOS] = -torch.inf
            probabilities = probabilities.softmax(-1).numpy()
            for row in np.flatnonzero(live):
                best = np.argsort(-probabilities[row])[:7]
                kept = probabilities[row][best] / probabilities[row][best].sum()
                nucleus = best[: int((np.cumsum(kept) < 0.8).sum()) + 1]
                np.testing.assert_array_equal(np.flatnonzero(masks[row]), np.sort(nucleus))
                sizes.add(len(nucleus))
            tokens = [rng.choice(np.flatnonzero(mask)) for mask in masks]
            observation, *_ = env.step(tokens)
        assert len(sizes) > 1

    def test_nucleus_by_hand(self, make_env):
        # Probabilities .5 .3 .15 .05 at tokens 1..4: .5 alone reaches .5, .5 + .3 reaches .79.
        masks = ActionMasks(make_env().rules, max_response_tokens=4, top_p=0.79)
        logits = torch.full((1, 12), -torch.inf)
        logits[0, 1:5] = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
        legal = torch.from_numpy(masks.by_length(np.zeros(1, dtype=np.int64)))
        assert masks.of_reference(logits, legal).nonzero()[:, 1].tolist() == [1, 2]
        masks.top_p = 0.49
        assert masks.of_reference(logits, legal).nonzero()[:, 1].tolist() == [1]
        # Cut to the two likeliest first, they are .625 and .375: the first alone reaches .6.
        masks.top_k, masks.top_p = 2, 0.6
        assert masks.of_reference(logits, legal).nonzero()[:, 1].tolist() == [1]
        masks.top_p = None
        assert masks.of_reference(logits, legal).nonzero()[:, 1].tolist() == [1, 2]

    def test_a_row_that_is_reset_has_the_masks_of_its_new_prompt(self, make_env, reference):
        settings = {"reference": reference, "top_k": 5, "prompts": ["h g f e", "c"]}
        env, fresh = make_env(**settings), make_env(**settings)
        fresh.reset(options={"prompt_index": [1, 1]})
        env.reset(options={"prompt_index": [0, 1]})
        assert not np.array_equal(env.action_masks(), fresh.action_masks())
        env.reset(options={"prompt_index": 1, "reset_mask": np.array([True, False])})
        np.testing.assert_array_equal(env.action_masks(), fresh.action_masks())

    def test_policy_that_is_the_reference_has_no_kl_under_masks(self, make_env, reference):
        """Same rules on both sides: log pi of legal, masked logits gives KL 0 and no reward."""
        env = make_env(
            -KLPenalty(reference, 1.0), top_k=5, min_response_tokens=2, temperature=0.7,
            autoreset_mode=AutoresetMode.DISABLED,
        )  # fmt: skip
        observation, _ = env.reset()
        rng = torch.Generator().manual_seed(0)
        for _ in range(4):
            mask = torch.from_numpy(env.action_masks())
            with torch.no_grad():
                logits = legal_logits(next_token_logits(reference, observation), env.rules, mask)
            actions = logits.softmax(-1).multinomial(1, generator=rng).squeeze(-1)
            chosen = logits.log_softmax(-1).gather(-1, actions[:, None]).squeeze(-1)
            env.channel.write(actions, chosen)
            observation, rewards, terminated, _, info = env.step(actions)
            np.testing.assert_allclose(rewards, 0, atol=1e-5)
            if terminated.all():
                break
        assert info["kl_known"].any()
        np.testing.assert_allclose(info["kl"], 0, atol=1e-5)
