"""Agents by name, for `rlhf-gym train --agent NAME`. A new agent is its file and one line here."""

from rlhf_gym.core.registry import Registry

AGENTS = Registry(
    "agent",
    {
        "ppo": ("rlhf_gym.agents.ppo:PPO", "PPO on whole responses, sequence-level updates"),
        "rloo": ("rlhf_gym.agents.rloo:RLOO", "REINFORCE leave-one-out: no value model"),
        "rebel": ("rlhf_gym.agents.rebel:REBEL", "regression on relative rewards, best and worst"),
        "sb3.ppo": ("rlhf_gym.agents.sb3.stock:PPO", "Stable-Baselines3's PPO"),
        "sb3.a2c": ("rlhf_gym.agents.sb3.stock:A2C", "Stable-Baselines3's A2C"),
        "sb3.dqn": ("rlhf_gym.agents.sb3.stock:DQN", "Stable-Baselines3's DQN"),
        "contrib.trpo": ("rlhf_gym.agents.sb3.stock:TRPO", "sb3-contrib's TRPO"),
        "contrib.maskable_ppo": (
            "rlhf_gym.agents.sb3.stock:MASKABLE_PPO",
            "sb3-contrib's MaskablePPO, for tasks with action masks",
        ),
        "contrib.recurrent_ppo": (
            "rlhf_gym.agents.sb3.stock:RECURRENT_PPO",
            "sb3-contrib's RecurrentPPO, an LSTM beside the language model",
        ),
        "contrib.qrdqn": ("rlhf_gym.agents.sb3.stock:QRDQN", "sb3-contrib's QR-DQN"),
        "contrib.ars": ("rlhf_gym.agents.sb3.stock:ARS", "sb3-contrib's random search"),
    },
)
"""Agents for tasks of writing."""

_CONTROL = "rlhf_gym.agents.sb3.control"
CONTROL_AGENTS = Registry(
    "agent",
    {
        "sb3.ppo": (f"{_CONTROL}:PPO", "Stable-Baselines3's PPO, whose entropy bonus may fall"),
        "sb3.a2c": (f"{_CONTROL}:A2C", "Stable-Baselines3's A2C"),
        "sb3.dqn": (f"{_CONTROL}:DQN", "Stable-Baselines3's DQN, discrete actions"),
        "sb3.sac": (f"{_CONTROL}:SAC", "Stable-Baselines3's SAC, continuous actions"),
        "sb3.td3": (f"{_CONTROL}:TD3", "Stable-Baselines3's TD3, continuous actions"),
        "contrib.trpo": (f"{_CONTROL}:TRPO", "sb3-contrib's TRPO"),
        "contrib.tqc": (f"{_CONTROL}:TQC", "sb3-contrib's TQC, continuous actions"),
        "contrib.crossq": (f"{_CONTROL}:CROSSQ", "sb3-contrib's CrossQ, continuous actions"),
        "contrib.qrdqn": (f"{_CONTROL}:QRDQN", "sb3-contrib's QR-DQN, discrete actions"),
        "contrib.ars": (f"{_CONTROL}:ARS", "sb3-contrib's random search, linear policy"),
        "contrib.maskable_ppo": (
            f"{_CONTROL}:MASKABLE_PPO",
            "sb3-contrib's MaskablePPO, whose entropy bonus may fall",
        ),
    },
)
"""Agents for tasks of acting."""
