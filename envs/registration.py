"""The ids that `gym.make` knows. Adding an environment is one entry here.

`import rlhf_gym` calls `register_all`, so nothing heavy is imported here, and
entry points are strings.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from rlhf_gym.core.registry import Registry

TEXT_ENVIRONMENTS = Registry(
    "task of writing",
    {
        "rlhf_gym/Sentiment-v0": (
            "rlhf_gym.envs.sentiment:Sentiment",
            "film reviews, a reward model to please, a gold oracle that watches",
        ),
        "rlhf_gym/Exact-v0": (
            "rlhf_gym.envs.exact:Exact",
            "seven tokens, five steps, a trap; the optimum is computed exactly",
        ),
        "rlhf_gym/TextGeneration-v0": (
            "rlhf_gym.envs.text:TextGeneration",
            "your prompts, tokenizer and reward, as arguments of gym.make",
        ),
    },
)
"""Targets are what single and vector environment have in common: `<it>Env` and `<it>VectorEnv`."""

CONTROL_ENVIRONMENTS = Registry(
    "task of acting",
    {
        "rlhf_gym/Pizza-v0": (
            "rlhf_gym.envs.control.pizza:Pizza",
            "a robot cooks; crust, sauce and cheese are weighed, taste is not",
        ),
        "rlhf_gym/Navigation-v0": (
            "rlhf_gym.envs.control.navigation:Navigation",
            "a robot crosses a hall with people; time is measured, consideration is not",
        ),
        "rlhf_gym/Recommender-v0": (
            "rlhf_gym.envs.control.recommender:Recommender",
            "items for drifting tastes; clicks are measured, satisfaction is not",
        ),
        "rlhf_gym/Tutor-v0": (
            "rlhf_gym.envs.control.tutor:Tutor",
            "a student who forgets; the quiz is measured, what is remembered is not",
        ),
        "rlhf_gym/Go-v0": (
            "rlhf_gym.envs.control.go:Go",
            "5x5 or 7x7 against a script; the win is measured, sound shape is not",
        ),
    },
)
"""Targets in the same form."""

ENVIRONMENTS = {**TEXT_ENVIRONMENTS, **CONTROL_ENVIRONMENTS}


def register_all() -> None:
    """Register every environment that is not registered yet."""
    for env_id, task in ENVIRONMENTS.items():
        if env_id not in registry:
            register(
                env_id,
                entry_point=f"{task.target}Env",
                vector_entry_point=f"{task.target}VectorEnv",
            )
