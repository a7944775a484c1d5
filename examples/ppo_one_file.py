"""PPO in one file, on text: plain PyTorch and Gymnasium, read from top to bottom.

Nothing of rlhf_gym is used but its environments. That takes four things beyond an Atari script:

1. the observation is a dictionary, `input_ids` and `attention_mask`: prompts are padded on the
   left, so positions are counted along the mask, and the next token follows the last 1 of it;
2. `action_masks()` says which tokens are legal;
3. the KL penalty is about the policy that samples, which no environment can see: the agent writes
   its log-probabilities to `env.unwrapped.channel` before it steps;
4. gamma is 1, for what a response earns is paid at its end.

    python examples/ppo_one_file.py --env-id rlhf_gym/Exact-v0 --network own
    python examples/ppo_one_file.py --env-id rlhf_gym/Sentiment-v0 --learning-rate 3e-4
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils.tensorboard import SummaryWriter

import rlhf_gym  # noqa: F401  registers the environments


@dataclass(frozen=True)
class Args:
    """What can be said on the command line."""

    env_id: str = "rlhf_gym/Exact-v0"
    """A text environment."""
    network: Literal["pretrained", "own"] = "pretrained"
    """pretrained: start as the environment's reference LM; own: a small network from scratch."""
    total_timesteps: int = 100_000
    """Tokens to sample."""
    num_envs: int = 64
    """Responses written side by side."""
    num_steps: int = 32
    """Tokens of each row per rollout."""
    learning_rate: float = 1e-3
    """Of Adam, falling linearly to 0."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 4
    """Steps of the optimiser per pass."""
    gamma: float = 1.0
    """Discount; below 1 early tokens would earn less for the same end."""
    gae_lambda: float = 0.95
    """1 trusts the sampled return, 0 the value of the next token."""
    clip_range: float = 0.2
    """How far the ratio of a token may move from 1 and still gain."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    seed: int = 0
    """Of environment, network and sampling."""
    log_dir: str = "runs/ppo_one_file"
    """Folder of the TensorBoard events."""


class Agent(nn.Module):
    """A policy and a value over prefixes, both read at their last token.

    Args:
        env: whose prefixes.
        network: see `Args.network`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], network: str) -> None:
        super().__init__()
        space = env.single_observation_space["input_ids"]  # type: ignore[index]
        vocab_size = int(env.single_action_space.n)  # type: ignore[attr-defined]
        self.lm = copy.deepcopy(env.unwrapped.reference) if network == "pretrained" else None  # type: ignore[attr-defined]
        if self.lm is None:
            hidden_size = 128
            self.embedding = nn.Embedding(vocab_size, 32)
            self.body = nn.Sequential(
                nn.Linear(32 * space.shape[0], hidden_size),
                nn.Tanh(),
                nn.Linear(hidden_size, hidden_size),
                nn.Tanh(),
            )
            self.actor = nn.Linear(hidden_size, vocab_size)
            nn.init.orthogonal_(self.actor.weight, 0.01)
        else:
            hidden_size = self.lm.config.hidden_size
            self.lm.requires_grad_(True)
        self.critic = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    def forward(self, ids: Tensor, mask: Tensor, legal: Tensor) -> tuple[Categorical, Tensor]:
        """Next-token distributions and values.

        Args:
            ids: prefixes, shape (n, width).
            mask: 1 at real tokens, shape (n, width).
            legal: True at legal actions, shape (n, vocab).
        """
        if self.lm is None:
            hidden = self.body((self.embedding(ids) * mask.unsqueeze(-1)).flatten(1))
            logits = self.actor(hidden)
        else:
            last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
            width = int(last.max()) + 1
            positions = (mask.cumsum(1) - 1).clamp_min(0)
            states = self.lm.base_model(
                input_ids=ids[:, :width],
                attention_mask=mask[:, :width],
                position_ids=positions[:, :width],
            ).last_hidden_state
            hidden = states[torch.arange(len(ids)), last]
            logits = self.lm.get_output_embeddings()(hidden)
        logits = logits[:, : legal.shape[1]].masked_fill(~legal, -torch.inf)
        return Categorical(logits=logits), self.critic(hidden).squeeze(-1)


class Rollout(NamedTuple):
    """Transitions, axes (steps, envs, ...)."""

    ids: Tensor
    mask: Tensor
    legal: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    dones: Tensor


class Observation(NamedTuple):
    """What the policy sees, axes (envs, ...)."""

    ids: Tensor
    mask: Tensor
    legal: Tensor


def observe(env: VectorEnv[Any, Any, Any], observation: dict[str, Any]) -> Observation:
    """An observation as tensors; copied, for the environment goes on writing into its arrays."""
    return Observation(
        torch.tensor(observation["input_ids"]),
        torch.tensor(observation["attention_mask"], dtype=torch.long),
        torch.tensor(env.unwrapped.action_masks()),  # type: ignore[attr-defined]
    )


@torch.no_grad()
def collect(
    args: Args, env: VectorEnv[Any, Any, Any], agent: Agent, now: Observation
) -> tuple[Rollout, Observation, dict[str, list[float]]]:
    """Let the policy write for `num_steps` tokens in every row."""
    steps = []
    episodes: dict[str, list[float]] = {"return": [], "length": [], "kl": [], "score": []}
    for _ in range(args.num_steps):
        policy, values = agent(*now)
        actions = policy.sample()
        log_probs = policy.log_prob(actions)
        env.unwrapped.channel.write(actions, log_probs)  # type: ignore[attr-defined]
        observation, rewards, terminated, truncated, info = env.step(actions.numpy())
        done = terminated | truncated
        if done.any():
            episodes["return"] += info["episode"]["r"][done].tolist()
            episodes["length"] += info["episode"]["l"][done].tolist()
            episodes["kl"] += info["kl"][done].tolist()
            episodes["score"] += info["score"][done].tolist()
        paid = torch.as_tensor(rewards, dtype=torch.float32), torch.as_tensor(done)
        steps.append((*now, actions, log_probs, values, *paid))
        now = observe(env, observation)
    return Rollout(*map(torch.stack, zip(*steps, strict=True))), now, episodes


def estimate(args: Args, rollout: Rollout, next_values: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation, shape (steps, envs)."""
    advantages = torch.zeros_like(rollout.rewards)
    following, next_advantages = next_values, torch.zeros_like(next_values)
    for step in reversed(range(args.num_steps)):
        goes_on = (~rollout.dones[step]).float()
        delta = rollout.rewards[step] + args.gamma * following * goes_on - rollout.values[step]
        next_advantages = delta + args.gamma * args.gae_lambda * goes_on * next_advantages
        advantages[step], following = next_advantages, rollout.values[step]
    return advantages, advantages + rollout.values


def update(
    args: Args,
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    estimates: tuple[Tensor, Tensor],
) -> dict[str, float]:
    """Minimise PPO's loss over minibatches of transitions; the last one's losses, by name."""
    flat = Rollout(*(field.flatten(0, 1) for field in rollout))
    advantages, returns = (field.flatten() for field in estimates)
    losses = {}
    for _ in range(args.epochs):
        for rows in torch.randperm(len(flat.actions)).chunk(args.minibatches):
            policy, values = agent(flat.ids[rows], flat.mask[rows], flat.legal[rows])
            ratio = (policy.log_prob(flat.actions[rows]) - flat.log_probs[rows]).exp()
            advantage = advantages[rows]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_range, 1 + args.clip_range)
            policy_loss = torch.maximum(-advantage * ratio, -advantage * clipped).mean()
            value_loss = 0.5 * (values - returns[rows]).square().mean()
            entropy = policy.entropy().mean()
            loss = policy_loss + args.value_coef * value_loss - args.entropy_coef * entropy
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
            losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return {name: float(value.detach()) for name, value in losses.items()}


def train(args: Args) -> list[float]:
    """Train, and write TensorBoard events.

    Returns:
        Mean return of the episodes that ended in each rollout.
    """
    torch.manual_seed(args.seed)
    env = RecordEpisodeStatistics(gym.make_vec(args.env_id, num_envs=args.num_envs))
    agent = Agent(env, args.network)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    writer = SummaryWriter(args.log_dir)
    observation, _ = env.reset(seed=args.seed)
    now = observe(env, observation)
    batch = args.num_envs * args.num_steps
    updates = max(1, args.total_timesteps // batch)
    mean_returns = []
    for number in range(updates):
        started = time.perf_counter()
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - number / updates)
        rollout, now, episodes = collect(args, env, agent, now)
        with torch.no_grad():
            next_values = agent(*now)[1]
        losses = update(args, agent, optimizer, rollout, estimate(args, rollout, next_values))
        seconds = time.perf_counter() - started
        if episodes["return"]:
            mean_returns.append(float(np.mean(episodes["return"])))
            for name, values in episodes.items():
                writer.add_scalar(f"rollout/{name}", np.mean(values), number * batch)
        for name, value in losses.items():
            writer.add_scalar(f"train/{name}", value, number * batch)
        writer.add_scalar("time/tokens_per_second", batch / seconds, number * batch)
    writer.close()
    env.close()
    return mean_returns


def main() -> None:
    """Train with what the command line says, and say how it went."""
    returns = train(tyro.cli(Args))
    print(f"mean return: {returns[0]:.3f} at first, {returns[-1]:.3f} at last")  # noqa: T201


if __name__ == "__main__":
    main()
