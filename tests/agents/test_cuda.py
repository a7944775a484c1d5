"""On a GPU: the same numbers as on the CPU, and training that is exact at its start.

Runs where there is one, and nowhere else; continuous integration has none.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig

import rlhf_gym  # noqa: F401  registers the tasks
from rlhf_gym.agents import PPO
from rlhf_gym.agents.lm_models import response_states
from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.agents.sb3 import LMActorCriticPolicy, lm_policy_kwargs
from rlhf_gym.core.models import load_causal_lm, load_tokenizer
from rlhf_gym.core.sampler import complete
from rlhf_gym.core.scoring import token_log_probs
from rlhf_gym.core.supervised.pretrain import PretrainConfig, pretrain
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs import make_sb3_env
from rlhf_gym.envs.sentiment.task import REFERENCE, REWARD_MODEL
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.rewards import KLPenalty, RewardModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

IDS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SHAPES = {
    "gpt2": GPT2Config(n_layer=3, n_embd=32, n_head=4, n_positions=40, **IDS),
    "llama": LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=40, **IDS,
    ),
    "neox": GPTNeoXConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=40, **IDS,
    ),
}  # fmt: skip
RULES = TokenRules(64, 0, stop_ids=(1,))


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """A fresh model on the GPU, its tokens of different probability."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh: Any = AutoModelForCausalLM.from_config(SHAPES[request.param])
        for parameter in fresh.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return fresh.eval().cuda()


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight prompts of one to eight tokens, padded on the left."""
    mask = torch.arange(8) >= 7 - torch.arange(8)[:, None]
    ids = torch.randint(2, 64, (8, 8), generator=torch.Generator().manual_seed(0))
    return ids.masked_fill(~mask, 0).cuda(), mask.cuda()


def test_cached_sampling_is_scored_alike_on_both_devices(model: nn.Module) -> None:
    ids, mask = prompts()
    written = complete(model, ids, mask, RULES, 16, torch.Generator("cuda").manual_seed(0))
    assert len(set(written.mask.sum(-1).tolist())) > 1  # rows have left the batch
    whole = torch.cat([ids, written.response_ids], 1), torch.cat([mask, written.mask], 1)
    for place in ("cuda", "cpu"):
        tensors = (each.to(place) for each in whole)
        scored = token_log_probs(model.to(place), *tensors, 8, RULES)
        torch.testing.assert_close(scored.cpu(), written.log_probs.cpu(), atol=1e-4, rtol=1e-4)


def test_a_training_pass_has_the_gradients_of_the_cpu(model: nn.Module) -> None:
    ids, mask = prompts()
    written = complete(model, ids, mask, RULES, 16, torch.Generator("cuda").manual_seed(0))
    whole = torch.cat([ids, written.response_ids], 1), torch.cat([mask, written.mask], 1)
    gradients = []
    for place in ("cuda", "cpu"):
        model.to(place).zero_grad()
        trunk: Any = model.base_model
        states = response_states(trunk, *(each.to(place) for each in whole), 8)
        states.square().mean().backward()
        gradients.append([p.grad.cpu() for p in trunk.parameters() if p.grad is not None])
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)


def test_ppo_begins_at_the_reference_and_learns() -> None:
    env: Any = gym.make_vec("rlhf_gym/Exact-v0", num_envs=256)
    agent = PPO("LMPolicy", env, learning_rate=1e-3, seed=0)
    assert agent.device.type == env.unwrapped.device.type == "cuda"
    _, callback = agent._setup_learn(1)
    raw = agent.collect_rollouts(callback)
    assert raw is not None
    assert agent.logger.name_to_value["kl/reference"] == pytest.approx(0.0, abs=1e-5)
    batch = agent.make_batch(raw).to(agent.device)
    agent.loss(Minibatch(batch, int(batch.mask.sum()), len(batch.mask)))
    assert agent.metrics.current("ratio") == pytest.approx(1.0, abs=1e-5)
    agent.learn(40_000)
    assert env.unwrapped.share_of_the_way(agent.policy.model) > 0.5


def test_a_run_that_is_resumed_comes_to_the_same(tmp_path: Path) -> None:
    from rlhf_gym.agents.checkpoint import CheckpointCallback

    def env() -> Any:
        return gym.make_vec("rlhf_gym/Exact-v0", num_envs=64)

    whole = PPO("LMPolicy", env(), learning_rate=1e-3, seed=0)
    whole.learn(3000, callback=CheckpointCallback(tmp_path, every=4))
    folder = sorted(tmp_path.glob("step-*"))[0]
    resumed = PPO.resume(folder, env())
    resumed.learn(3000 - resumed.num_timesteps, reset_num_timesteps=False)
    assert resumed.num_timesteps == whole.num_timesteps
    for ours, theirs in zip(resumed.policy.parameters(), whole.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_what_was_saved_on_a_gpu_loads_on_a_cpu(tmp_path: Path) -> None:
    env: Any = gym.make_vec("rlhf_gym/Sentiment-v0", num_envs=8)
    agent = PPO("LMPolicy", env, seed=0)
    agent.learn(200)
    agent.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", device="cpu")
    observation, _ = env.reset(seed=0)
    here, there = (each.predict(observation, deterministic=True)[0] for each in (loaded, agent))
    np.testing.assert_array_equal(here, there)
    folder = agent.policy.save_pretrained(tmp_path / "policy", env.unwrapped.tokenizer)
    assert load_causal_lm(folder, device="cpu").device.type == "cpu"


def test_rewards_and_kl_are_those_of_the_cpu() -> None:
    """The same tokens are written in both environments."""
    endings = []
    for place in ("cpu", "cuda"):
        reference = load_causal_lm(REFERENCE, device=place)
        reward = RewardModel(REWARD_MODEL, device=place) - KLPenalty(reference, 0.1)
        env = TextGenerationVectorEnv(
            ["i saw this film", "we watched this comedy"], load_tokenizer(REFERENCE), reward,
            num_envs=16, max_response_tokens=8, prompt_order="sequential",
        )  # fmt: skip
        env.reset(seed=0)
        rng = np.random.default_rng(0)
        for _ in range(8):
            actions = rng.integers(4, env.rules.vocab_size, 16)
            env.channel.write(actions, np.full(16, -3.0))
            info = env.step(actions)[-1]
        endings.append(info)
    here, there = endings
    for name in ("token_rewards", "score", "kl"):
        np.testing.assert_allclose(here[name], there[name], atol=1e-3, rtol=1e-3)


def test_half_precision_begins_at_the_reference_too(tmp_path: Path) -> None:
    reference = load_causal_lm(REFERENCE, dtype=torch.bfloat16)
    env = TextGenerationVectorEnv(
        ["i saw this film"] * 8, load_tokenizer(REFERENCE),
        RewardModel(REWARD_MODEL) - KLPenalty(reference, 0.1), num_envs=64,
    )  # fmt: skip
    agent = PPO("LMPolicy", env, learning_rate=1e-4, seed=0)
    _, callback = agent._setup_learn(1)
    raw = agent.collect_rollouts(callback)
    assert raw is not None
    # One decodes, the other reads whole rows: bfloat16 rounds them differently.
    assert abs(agent.logger.name_to_value["kl/reference"]) < 0.5
    batch = agent.make_batch(raw).to(agent.device)
    agent.loss(Minibatch(batch, int(batch.mask.sum()), len(batch.mask)))
    assert agent.metrics.current("ratio") == pytest.approx(1.0, abs=0.02)
    agent.learn(3000)
    assert all(torch.isfinite(p).all() for p in agent.policy.parameters())


def test_a_stock_agent_trains_a_language_model() -> None:
    env = make_sb3_env("rlhf_gym/Sentiment-v0", num_envs=8)
    agent = A2C(LMActorCriticPolicy, env, policy_kwargs=lm_policy_kwargs(env), gamma=1.0, n_steps=8)
    before = [p.detach().clone() for p in agent.policy.parameters()]
    agent.learn(256)
    assert agent.device.type == "cuda"
    moved = [not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True)]
    assert any(moved)


def test_lora_shares_the_reference_on_the_gpu() -> None:
    env: Any = gym.make_vec("rlhf_gym/Sentiment-v0", num_envs=16)
    agent = PPO("LMPolicy", env, policy_kwargs={"lora_rank": 4}, learning_rate=1e-3, seed=0)
    agent.learn(1500)
    _, callback = agent._setup_learn(1)
    agent.collect_rollouts(callback)
    assert agent.logger.name_to_value["kl/reference"] != 0.0  # the adapter is off in one alone
    shared = {p.data_ptr() for p in env.unwrapped.reference.parameters()}
    assert shared & {p.data_ptr() for p in agent.policy.parameters()}


def test_pretraining_in_mixed_precision(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    lines = [f"the film number {n} is good and long and {n} times seen" for n in range(400)]
    corpus.write_text("\n".join(lines))
    pretrain(
        PretrainConfig(
            corpus=(str(corpus),), output=str(tmp_path / "lm"), size="tiny", context=32,
            vocab_size=300, max_steps=8, bf16=True, progress=False,
        )
    )  # fmt: skip
    assert load_causal_lm(tmp_path / "lm").device.type == "cuda"
