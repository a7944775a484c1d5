"""The supervised stages as subcommands; they chain through directories."""

from __future__ import annotations

from rlhf_gym.core.command import Command
from rlhf_gym.core.supervised.pretrain import PretrainConfig, pretrain
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.core.supervised.sft import SFTConfig, sft

PRETRAIN = Command(PretrainConfig, pretrain)
SFT = Command(SFTConfig, sft)
REWARD_MODEL = Command(RewardModelConfig, train_reward_model)
