"""Reward terms by name. A new term is its file and one line here."""

from rlhf_gym.core.registry import Registry

REWARDS = Registry(
    "reward",
    {
        "function": ("rlhf_gym.rewards.base:FunctionReward", "a Python function of the texts"),
        "reward_model": ("rlhf_gym.rewards.model:RewardModel", "a sequence classifier's score"),
        "kl": ("rlhf_gym.rewards.kl:KLPenalty", "the price of leaving the reference"),
    },
)
