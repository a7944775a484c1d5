"""The language model as a policy: scores, values, predictions, folders."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from transformers import GPT2ForSequenceClassification, LlamaConfig, LlamaForCausalLM

from rlhf_gym.agents.lm_models import length_parts
from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.ppo import PPO
from rlhf_gym.core.channel import LogProbChannel
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.models import load_causal_lm, save_model
from rlhf_gym.core.tokens import entropy, gather_log_probs, legal_logits, lm_inputs

Maker = Callable[..., Any]


def make_policy(env: Any, **kwargs: Any) -> LMPolicy:
    kwargs = {"model": copy.deepcopy(env.reference)} | kwargs
    return LMPolicy(
        env.single_observation_space,
        env.single_action_space,
        rules=env.rules,
        prompt_width=env.prompt_width,
        **kwargs,
    )


def written(env: Any, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of responses of different lengths, as random legal tokens."""
    observation, _ = env.reset(seed=seed)
    ids = torch.as_tensor(observation["input_ids"])
    mask = torch.as_tensor(observation["attention_mask"]).bool()
    generator = torch.Generator().manual_seed(seed)
    for row in range(len(ids)):
        length = row % 6 + 1
        response = slice(env.prompt_width, env.prompt_width + length)
        ids[row, response] = torch.randint(2, 12, (length,), generator=generator)
        mask[row, response] = True
    return ids, mask


def test_evaluation_equals_the_definition(make_env: Maker) -> None:
    env = make_env(temperature=0.7, banned_token_ids=(5,))
    policy = make_policy(env)
    ids, mask = written(env)
    ids[ids == 5] = 6
    outputs = policy.evaluate(ids, mask)

    inputs = lm_inputs({"input_ids": ids, "attention_mask": mask})
    width = env.prompt_width
    logits = legal_logits(env.reference(**inputs).logits, env.rules)[:, width - 1 : -1]
    response = mask[:, width:]
    log_probs = gather_log_probs(logits, ids[:, width:])[response]
    torch.testing.assert_close(outputs.log_probs[response], log_probs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        outputs.entropy[response], entropy(logits)[response], atol=1e-5, rtol=1e-4
    )
    for grid in outputs:
        assert grid is not None
        assert (grid[~response] == 0).all()


def test_two_forwards_are_equal_although_the_model_came_with_dropout(
    make_env: Maker, make_model: Maker
) -> None:
    env = make_env()
    model = make_model(resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    policy = make_policy(env, model=model)
    policy.train()
    ids, mask = written(env)
    first, second = policy.evaluate(ids, mask), policy.evaluate(ids, mask)
    assert torch.equal(first.log_probs, second.log_probs)


def test_extra_left_padding_moves_nothing(make_env: Maker) -> None:
    ids, mask = written(make_env())
    narrow = make_policy(make_env()).evaluate(ids, mask)
    env = make_env(max_prompt_tokens=make_env().prompt_width + 3)
    wide = make_policy(env).evaluate(*(torch.nn.functional.pad(x, (3, 0)) for x in (ids, mask)))
    assert torch.equal(narrow.log_probs, wide.log_probs)


def test_values_start_at_zero_without_disturbing_the_trunk(make_env: Maker) -> None:
    env = make_env()
    for kind in ("trunk", "separate"):
        policy = make_policy(env, value_model=kind)
        outputs = policy.evaluate(*written(env))
        assert outputs.values is not None
        assert not outputs.values.any()
        (outputs.values - 1).square().sum().backward()
        trunk = policy.model.get_input_embeddings().weight.grad
        assert trunk is None or not trunk.any()


def test_a_policy_without_values(make_env: Maker) -> None:
    env = make_env()
    policy = make_policy(env, value_model="none")
    assert policy.evaluate(*written(env)).values is None
    assert not policy.has_values


def test_a_value_model_that_is_not_there_is_named(make_env: Maker, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"^value_model=.*there is no such folder"):
        make_policy(make_env(), value_model=str(tmp_path / "missing"))


def test_a_value_model_can_start_from_a_reward_model(
    make_env: Maker, make_model: Maker, tokenizer: Any, tmp_path: Path
) -> None:
    config = make_model().config
    config.num_labels = 1
    reward_model = GPT2ForSequenceClassification(config).eval()
    reward_model.config.reward_mean = 0.25
    save_model(reward_model, tokenizer, tmp_path)
    env = make_env()
    policy = make_policy(env, value_model=str(tmp_path))
    ids, mask = written(env)
    values = policy.evaluate(ids, mask).values
    assert values is not None
    # The value before a response's first token is the score of its prompt.
    with torch.no_grad():
        prompt = reward_model.transformer(
            input_ids=ids[:1, : env.prompt_width][mask[:1, : env.prompt_width]][None]
        ).last_hidden_state[:, -1]
        score = reward_model.score(prompt)[0, 0] - 0.25
    torch.testing.assert_close(values[0, 0], score, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(policy.predict_values(ids, mask, 20), values.detach())


def test_a_reward_model_of_another_vocabulary_is_refused(
    make_env: Maker, make_model: Maker, tokenizer: Any, tmp_path: Path
) -> None:
    config = make_model().config
    config.vocab_size, config.num_labels = 40, 1
    save_model(GPT2ForSequenceClassification(config), tokenizer, tmp_path)
    with pytest.raises(InvalidArgument, match=r"value_model.*40 token ids"):
        make_policy(make_env(), value_model=str(tmp_path))


def test_parts_are_sorted_and_within_the_budget() -> None:
    lengths = torch.tensor([3, 9, 5, 2, 8])
    # Longest first: 9, 8 (18 with padding), then 5, 3, 2 (15).
    parts = [part.tolist() for part in length_parts(lengths, 18)]
    assert parts == [[1, 4], [2, 0, 3]]
    assert [len(part) for part in length_parts(lengths, 1)] == [1] * 5


def test_predict_with_the_cache_equals_predict_without(make_env: Maker) -> None:
    env = make_env(num_envs=4)
    cached, fresh = make_policy(env), make_policy(env)
    observation, _ = env.reset(seed=0)
    for _ in range(25):  # rows end and start anew at different times
        actions, _ = cached.predict(observation, deterministic=True)
        expected, _ = make_policy(env).predict(observation, deterministic=True)
        assert np.array_equal(actions, expected)
        observation, *_ = env.step(actions)
    # Another batch of rows, then new weights under rows that grew by one: nothing stale is used.
    single = {key: value[0] for key, value in observation.items()}
    assert cached.predict(single, deterministic=True)[0].shape == ()
    actions, _ = cached.predict(observation, deterministic=True)
    observation, *_ = env.step(actions)
    with torch.no_grad():
        for policy in (cached, fresh):
            policy.model.transformer.ln_f.weight.mul_(-1.0)
    actions, _ = cached.predict(observation, deterministic=True)
    assert np.array_equal(actions, fresh.predict(observation, deterministic=True)[0])


def test_predict_reads_one_token_when_it_can(make_env: Maker) -> None:
    """The cache serves: after the first step, whole prefixes are not read again."""
    env = make_env(num_envs=4)
    policy = make_policy(env)
    prefills = []
    make_sampler = policy._prediction._make_sampler
    policy._prediction._make_sampler = lambda: prefills.append(1) or make_sampler()
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        observation, *_ = env.step(policy.predict(observation)[0])
    assert len(prefills) == 1


def test_sampled_predictions_reach_the_channel(make_env: Maker) -> None:
    env = make_env()
    channel = LogProbChannel()
    policy = make_policy(env, channel=channel)
    observation, _ = env.reset(seed=0)
    actions, _ = policy.predict(observation)
    record = channel.take(actions)
    assert record is not None
    assert (record.log_probs < 0).all()


def test_evaluate_policy_of_sb3(make_env: Maker) -> None:
    env = make_env()
    agent = PPO("LMPolicy", env, seed=0, device="cpu")
    rewards, lengths = evaluate_policy(
        agent, agent.get_env(), n_eval_episodes=16, return_episode_rewards=True, warn=False
    )
    assert len(rewards) == len(lengths) == 16
    assert set(lengths) <= set(range(1, 7))


@pytest.mark.parametrize("value_model", ["trunk", "separate", "none"])
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_folder_round_trip(
    make_env: Maker, tokenizer: Any, tmp_path: Path, value_model: str, lora_rank: int
) -> None:
    env = make_env(temperature=0.7)
    policy = make_policy(env, value_model=value_model, lora_rank=lora_rank)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05
    policy.save_pretrained(tmp_path, tokenizer)
    loaded = LMPolicy.from_pretrained(tmp_path)
    ids, mask = written(env)
    for ours, theirs in zip(policy.evaluate(ids, mask), loaded.evaluate(ids, mask), strict=True):
        if ours is None:
            assert theirs is None
        else:
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert loaded.rules == policy.rules
    # The folder is a plain Hugging Face model for whoever comes next.
    logits = load_causal_lm(tmp_path)(input_ids=ids).logits
    torch.testing.assert_close(logits, policy.model(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_foreign_folders_are_refused(make_model: Maker, tokenizer: Any, tmp_path: Path) -> None:
    save_model(make_model(), tokenizer, tmp_path)
    with pytest.raises(InvalidCheckpoint, match=r"policy\.json"):
        LMPolicy.from_pretrained(tmp_path)


def test_llama_is_a_policy_too(make_env: Maker) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=12,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
        )
    )
    env = make_env(reference=model)
    agent = PPO("LMPolicy", env, seed=0, device="cpu")
    agent.learn(100)
    assert agent.num_timesteps >= 100
