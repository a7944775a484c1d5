"""Our PPO as a worker that runs one iteration whenever it is told to, as `bench_trl` does TRL's.

    python -m rlhf_gym.pipelines.bench_ours FOLDER trunk|separate

It is what a user writes: `PPO("LMPolicy", env).learn(...)` on a vector environment with a reward
model and a KL penalty, whose episodes end together as they do for TRL. One callback starts and ends
the iterations.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_gym.pipelines.bench_trl import IterationClock, take_standard_streams

if TYPE_CHECKING:
    from rlhf_gym.agents.ppo import PPO


def build_agent(folder: Path, settings: dict[str, Any], value_model: str) -> PPO:
    """PPO on the saved networks, with the settings both sides share.

    Args:
        folder: what `bench_task.save_task` wrote.
        settings: its `settings.json`.
        value_model: "trunk" for a value head on the policy, "separate" for a network of its own.
    """
    from rlhf_gym.agents.ppo import PPO
    from rlhf_gym.core.models import load_causal_lm, load_tokenizer
    from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
    from rlhf_gym.rewards.kl import KLPenalty
    from rlhf_gym.rewards.model import RewardModel

    device = settings["device"]
    reference = load_causal_lm(folder / "policy", device=device)
    penalty = KLPenalty(reference, settings["kl_coef"])
    env = TextGenerationVectorEnv(
        settings["prompts"],
        load_tokenizer(folder / "policy"),
        RewardModel(folder / "reward", device=device) - penalty,
        num_envs=settings["responses"],
        max_response_tokens=settings["response_tokens"],
        stop_token_ids=None if settings["stops"] else (),
        ends="together",
    )
    return PPO(
        "LMPolicy",
        env,
        policy_kwargs={"value_model": value_model},
        learning_rate=settings["learning_rate"],
        schedule="constant",
        epochs=settings["epochs"],
        minibatches=settings["minibatches"],
        seed=settings["seed"],
        device=device,
    )


def serve(agent: PPO, clock: IterationClock) -> None:
    """Train until the clock's commands end."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Gate(BaseCallback):
        """Waits before every rollout; from one to the next is exactly one iteration."""

        def _on_rollout_start(self) -> None:
            clock.next_iteration()

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            clock.tokens = int(self.locals["batch"].mask.sum())
            clock.mark_update()

    agent.learn(10**12, callback=Gate())


def main(folder: Path, value_model: str) -> None:
    """Serve iterations until standard input ends."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")  # before torch is imported
    settings = json.loads((folder / "settings.json").read_text())
    clock = IterationClock(*take_standard_streams(), on_gpu=settings["device"] != "cpu")
    import torch

    torch.set_num_threads(1)
    serve(build_agent(folder, settings, value_model), clock)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
