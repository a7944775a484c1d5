"""The agent in one file: it learns, starts from the pretrained model, and needs nothing of ours."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import pytest
import torch

from rlhf_gym.core.tokens import legal_logits, next_token_logits

SCRIPT = Path(__file__).parents[1] / "examples" / "ppo_one_file.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ppo_one_file", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_it_imports_nothing_of_ours_but_the_registration() -> None:
    ours = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and "rlhf_gym" in ast.unparse(node)
    ]
    assert ours == ["import rlhf_gym"]


def test_it_learns_from_scratch(script: ModuleType, tmp_path: Path) -> None:
    """With random letters the return is about 0 before training; 0.4 is stopping at once."""
    args = script.Args(network="own", total_timesteps=24_000, log_dir=str(tmp_path))
    returns = script.train(args)
    assert returns[0] < 0.2
    assert returns[-1] > 0.3
    assert list(tmp_path.glob("events.out.tfevents*"))


@pytest.mark.parametrize("env_id", ["rlhf_gym/Exact-v0", "rlhf_gym/Sentiment-v0"])
def test_it_starts_as_the_reference_and_is_charged_for_leaving(
    script: ModuleType, env_id: str, tmp_path: Path
) -> None:
    args = script.Args(
        env_id=env_id, num_envs=4, num_steps=33, minibatches=1, epochs=1, log_dir=str(tmp_path)
    )
    env = gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec(env_id, num_envs=4))
    torch.manual_seed(0)
    agent = script.Agent(env, "pretrained")
    now = script.observe(env, env.reset(seed=0)[0])
    reference = env.unwrapped.reference
    policy, _ = agent(*now)
    observation = {"input_ids": now.ids, "attention_mask": now.mask}
    with torch.no_grad():
        expected = legal_logits(next_token_logits(reference, observation), env.unwrapped.rules)
    torch.testing.assert_close(policy.probs, expected.softmax(-1), atol=1e-5, rtol=1e-4)

    rollout, _, episodes = script.collect(args, env, agent, now)
    assert episodes["kl"]
    assert episodes["kl"] == pytest.approx([0.0] * len(episodes["kl"]), abs=1e-3)
    assert rollout.rewards.shape == (33, 4)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter *= 1.2
    _, _, episodes = script.collect(args, env, agent, now)
    # Episodes that began before the change are charged for what came after it.
    assert max(abs(kl) for kl in episodes["kl"]) > 0.1
    coefficient = env.unwrapped.kl_coef
    for paid, score, kl in zip(episodes["return"], episodes["score"], episodes["kl"], strict=True):
        assert paid == pytest.approx(score - coefficient * kl, abs=1e-4)


def test_estimates_by_hand(script: ModuleType) -> None:
    args = script.Args(num_steps=3, gamma=1.0, gae_lambda=0.5)
    numbers = torch.zeros(3, 1)
    rollout = script.Rollout(
        *([numbers] * 5),
        values=torch.tensor([[0.5], [0.4], [0.2]]),
        rewards=torch.tensor([[0.0], [1.0], [0.0]]),
        dones=torch.tensor([[False], [True], [False]]),
    )
    # The second step ends an episode: delta = 0.4 - 0.5, 1 - 0.4, 0.3 - 0.2, where 0.3 is next;
    # A_2 = 0.1, A_1 = 0.6, A_0 = -0.1 + 0.5 * 0.6 = 0.2.
    advantages, returns = script.estimate(args, rollout, torch.tensor([0.3]))
    assert advantages.flatten().tolist() == pytest.approx([0.2, 0.6, 0.1])
    assert returns.flatten().tolist() == pytest.approx([0.7, 1.0, 0.3])
