"""The KL estimators on Sentiment-v0, where only samples can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from rlhf_gym.agents import PPO, PPOConfig
from rlhf_gym.core.calibration import mean_interval
from rlhf_gym.core.scoring import token_log_distributions
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.pipelines.generation import draw_prompts, generate, text_task
from rlhf_gym.pipelines.studies.kl_exact import ESTIMATORS
from rlhf_gym.rewards.kl_estimators import kl_exact

ENV_ID = "rlhf_gym/Sentiment-v0"
SAMPLES = 1024
"""Responses that each policy is judged by."""
CHUNK = 128
"""Responses whose distributions are held at once."""
JUDGE_SEED = 20_000


def sample_cell(stops: Sequence[int], seed: int, samples: int = SAMPLES) -> list[dict[str, Any]]:
    """Estimates for the policies that one run of PPO passes through.

    Args:
        stops: response tokens after which training pauses and the policy is judged, ascending.
        seed: of the agent.
        samples: responses that each is judged by.

    Returns:
        One row per stop: `tokens`; for "token", "response" and "sequence" by estimator `bias`
        (value, low, high) and `deviation`; `kl` (value, low, high), the mean over responses of the
        exact KL of their states.
    """
    import rlhf_gym  # noqa: F401  registers the environment

    env = gym.make_vec(ENV_ID, num_envs=64)
    agent = PPO("LMPolicy", env, PPOConfig(schedule="constant"), seed=seed, device="cpu")
    rows = []
    for stop in stops:
        if stop > agent.num_timesteps:
            agent.learn(stop - agent.num_timesteps, reset_num_timesteps=False)
        judged = estimates(agent.policy.model, JUDGE_SEED + seed, samples)
        rows.append({"tokens": agent.num_timesteps, **judged})
    return rows


def estimates(model: nn.Module, seed: int, samples: int = SAMPLES) -> dict[str, Any]:
    """Bias and deviation of each estimator on a policy's own samples.

    Bias is judged response by response against the exact KL of the states met, which has the same
    expectation as the KL of whole responses and much less noise.
    """
    env = gym.make_vec(ENV_ID, num_envs=256, kl_coef=0.0)
    task = text_task(env)
    prompts = draw_prompts(task, samples, seed)
    written = generate(model, env, prompts, seed=seed)
    parts = [
        _chunk(model, task, written[start : start + CHUNK]) for start in range(0, samples, CHUNK)
    ]
    log_probs, reference, exact, mask = (torch.cat(part) for part in zip(*parts, strict=True))
    truth = (exact * mask).sum(-1)
    found: dict[str, Any] = {
        "kl": mean_interval(truth.numpy()),
        "token": {},
        "response": {"exact": {"bias": (0.0, 0.0, 0.0), "deviation": float(truth.std())}},
        "sequence": {},
    }
    for name, estimator in ESTIMATORS.items():
        tokens = estimator(log_probs, reference) * mask
        error = tokens - exact * mask
        joint = estimator(log_probs.sum(-1), reference.sum(-1))
        # Tokens of one response are not independent: the interval is over responses.
        share = error.sum(-1) / (mask.sum() / samples)
        found["token"][name] = _row(share, error[mask])
        found["response"][name] = _row(tokens.sum(-1) - truth, tokens.sum(-1))
        found["sequence"][name] = _row(joint - truth, joint)
    return found


def _row(error: Tensor, estimate: Tensor) -> dict[str, Any]:
    return {"bias": mean_interval(error.numpy()), "deviation": float(estimate.std())}


def _chunk(
    model: nn.Module, task: TextGenerationVectorEnv, written: Sequence[Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log pi, log pi_ref and exact KL of each token, and the mask; each (batch, time), float64."""
    indices = torch.tensor([one.prompt_index for one in written]).numpy()
    ids, attention = task.prompts.padded(indices, task.prompt_width, task.rules.pad_id)
    lengths = torch.tensor([one.length for one in written])
    responses = torch.full((len(written), task.max_response_tokens), task.rules.pad_id)
    for row, one in enumerate(written):
        responses[row, : one.length] = torch.tensor(one.tokens)
    mask = torch.arange(task.max_response_tokens) < lengths.unsqueeze(-1)
    sequences = torch.cat([torch.from_numpy(ids), responses], 1)
    real = torch.cat([torch.from_numpy(attention).bool(), mask], 1)
    policy, reference = (
        token_log_distributions(
            cast(nn.Module, lm), sequences, real, task.prompt_width, task.rules
        ).double()
        for lm in (model, task.reference)
    )
    chosen = responses.unsqueeze(-1)
    # PAD is illegal: minus infinity behind the response, if it were not masked before the sums.
    picked = [
        table.gather(-1, chosen).squeeze(-1).masked_fill(~mask, 0.0)
        for table in (policy, reference)
    ]
    return picked[0], picked[1], kl_exact(policy, reference).masked_fill(~mask, 0.0), mask
