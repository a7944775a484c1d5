"""The ids that `gym.make` knows. Adding an environment is one line here.

`import rlhf_gym` calls `register_all`, so nothing but Gymnasium's registry is imported here, and
entry points are strings.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

TEXT_ENVIRONMENTS = {
    "rlhf_gym/Sentiment-v0": "rlhf_gym.envs.sentiment:Sentiment",
    "rlhf_gym/Exact-v0": "rlhf_gym.envs.exact:Exact",
    "rlhf_gym/TextGeneration-v0": "rlhf_gym.envs.text:TextGeneration",
}
"""Tasks of writing; id -> what single and vector environment have in common: `<it>Env` and
`<it>VectorEnv`."""

CONTROL_ENVIRONMENTS: dict[str, str] = {
    "rlhf_gym/Pizza-v0": "rlhf_gym.envs.control.pizza:Pizza",
    "rlhf_gym/Navigation-v0": "rlhf_gym.envs.control.navigation:Navigation",
    "rlhf_gym/Recommender-v0": "rlhf_gym.envs.control.recommender:Recommender",
    "rlhf_gym/Tutor-v0": "rlhf_gym.envs.control.tutor:Tutor",
    "rlhf_gym/Go-v0": "rlhf_gym.envs.control.go:Go",
}
"""Tasks of acting, in the same form."""

ENVIRONMENTS = TEXT_ENVIRONMENTS | CONTROL_ENVIRONMENTS


def register_all() -> None:
    """Register every environment that is not registered yet."""
    for env_id, entry_point in ENVIRONMENTS.items():
        if env_id not in registry:
            register(
                env_id,
                entry_point=f"{entry_point}Env",
                vector_entry_point=f"{entry_point}VectorEnv",
            )
