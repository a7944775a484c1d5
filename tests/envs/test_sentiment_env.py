"""Sentiment-v0: what the packaged models are, and how the task is put together."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlhf_gym.core.models import load_causal_lm, load_tokenizer
from rlhf_gym.core.sampler import Sampler
from rlhf_gym.envs.sentiment import SentimentEnv, SentimentVectorEnv, gold_sentiment
from rlhf_gym.envs.sentiment.grammar import prompts
from rlhf_gym.envs.sentiment.task import ASSETS, REFERENCE
from rlhf_gym.pipelines.build_assets import judge
from rlhf_gym.rewards.kl import KLPenalty


@pytest.fixture(scope="module")
def env():
    return SentimentVectorEnv(num_envs=4, autoreset_mode="Disabled")


def respond(env, texts):
    """Write given responses, one per row, with the reference's own log-probabilities."""
    rows = [env.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    rows = [[*ids, env.tokenizer.eos_token_id] for ids in rows]
    info = {}
    for time in range(max(map(len, rows))):
        actions = np.array([ids[min(time, len(ids) - 1)] for ids in rows])
        *_, new = env.step(actions)
        for key in ("gold_reward", "score"):
            if key in new:
                info.setdefault(key, np.zeros(len(rows)))[new[f"_{key}"]] = new[key][new[f"_{key}"]]
    return info


@pytest.mark.filterwarnings("ignore:.*log-probabilities")
def test_praise_is_paid_and_panning_is_not(env):
    env.reset(seed=0, options={"prompt_index": [0, 0, 0, 0]})
    texts = [
        " the acting is superb and the songs are wonderful. i loved the story.",
        " the acting is terrible and the songs are awful. i hated the story.",
        " the acting is not bad.",
        " the acting is not good.",
    ]
    prompt = env.prompts.texts[0]
    info = respond(env, texts)
    assert info["gold_reward"].tolist() == pytest.approx(
        gold_sentiment([prompt] * 4, texts), abs=1e-6
    )
    assert info["score"][0] > 0.8
    assert info["score"][1] < -0.8
    assert info["score"][0] > info["score"][2] > info["score"][1]


def test_packaged_models_do_what_they_are_for():
    """A reference that pans as often as it praises and stops by itself, and a fair reward model."""
    figures = judge(ASSETS, seed=5, count=128)
    assert 0.35 < figures["positive_share"] < 0.65
    assert figures["stopped_share"] > 0.9
    assert figures["noisy_share"] < 0.05
    assert 14 < figures["mean_length"] < 26
    assert figures["pair_accuracy"] > 0.8
    assert figures["gold_correlation"] > 0.7


def test_package_data_is_small_and_complete():
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    for model in ("reference", "reward_model"):
        names = {path.name for path in files if path.parent.name == model}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_tokenizer_keeps_its_special_tokens_apart_and_reads_every_prompt():
    tokenizer = load_tokenizer(REFERENCE)
    special = [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token]
    assert special == ["<pad>", "<bos>", "<eos>", "<unk>"]
    for prompt in prompts(300, seed=99):
        ids = tokenizer(prompt)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt


def test_reference_begins_without_kl():
    env = SentimentVectorEnv(num_envs=8, autoreset_mode="Disabled")
    env.reset(seed=1)
    ids, mask = env.prompts.padded(np.arange(8), env.prompt_width, env.rules.pad_id)
    env.reset(options={"prompt_index": np.arange(8)})
    sampler = Sampler(env.reference, env.rules, generator=torch.Generator().manual_seed(0))
    sampler.prefill(torch.from_numpy(ids), torch.from_numpy(mask), 32)
    done, kl = np.zeros(8, dtype=bool), np.full(8, np.nan)
    while not done.all():
        draw = sampler.draw()
        env.channel.write(draw.tokens, draw.log_probs)
        _, _, ended, _, info = env.step(draw.tokens.numpy())
        if ended.any():
            kl[ended] = info["kl"][ended]
            done |= ended
        if not done.all():
            sampler.advance(draw.tokens)
    np.testing.assert_allclose(kl, 0, atol=1e-3)


def test_reward_is_a_score_minus_kl():
    env = SentimentVectorEnv(kl_coef=0.3, kl_estimator="k3")
    assert [(w, term.name) for w, term in env.reward.parts] == [(1, "reward_model"), (-1, "kl")]
    penalty = env.reward.parts[1][1]
    assert (penalty.coef, penalty.estimator) == (0.3, "k3")
    assert penalty.reference is env.reference


def cheerful(prompts, responses):
    return [float("good" in response) for response in responses]


def test_another_reward_gets_the_penalty_too():
    env = SentimentVectorEnv(reward=cheerful, gold=None)
    assert [term.name for _, term in env.reward.parts] == ["cheerful", "kl"]
    own = SentimentVectorEnv(reward=cheerful - KLPenalty(load_causal_lm(REFERENCE), 0.7))
    assert own.kl_coef == 0.7


def test_own_prompts_and_lengths():
    env = SentimentVectorEnv(prompts=["the plot", "i"], max_response_tokens=5, num_envs=2)
    assert len(env.prompts) == 2
    assert env.single_observation_space["input_ids"].shape == (3 + 5,)  # <bos> the plot


def test_made_by_id():
    single = gym.make("rlhf_gym/Sentiment-v0", kl_coef=0.2)
    assert isinstance(single.unwrapped, SentimentEnv)
    assert single.unwrapped.kl_coef == 0.2
    assert isinstance(gym.make_vec("rlhf_gym/Sentiment-v0", num_envs=2), SentimentVectorEnv)
