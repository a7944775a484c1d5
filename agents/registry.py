"""Agents by name, for `rlhf-gym train --agent NAME`. A new agent is its file and one line here."""

from rlhf_gym.core.registry import Registry

AGENTS = Registry(
    "agent",
    {
        "ppo": ("rlhf_gym.agents.ppo:PPO", "PPO on whole responses, sequence-level updates"),
    },
)
