"""Hopper learns a backflip from comparisons: a goal that nobody can write down, and anyone can see.

What `Hopper-v5` is paid for, hopping forwards, is thrown away. Clips of two thirds of a second are
compared instead, by a script that counts how far the torso turned backwards. A person needs no such
script: give `PreferenceLearning` a labeler of yours and `record_frames=True`, and it shows clips.

    MUJOCO_GL=egl python examples/backflip.py --labels 900 --steps 1000000

Writes the run folder, and `backflip.png`: the most turned tenth of a test episode, frame by frame.

Source of the task: Christiano et al. (2017), section 3.2, where a person taught it with 900 labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.core.preferences import LabelSchedule, RewardLearnerConfig

TORSO_TURNS = 7
"""Where the observation has the angular velocity of the torso, radians a second."""
EPISODE = 400
"""Steps of 8 ms."""
CLIP = 80
SIZE = 240
"""Pixels a side of a picture."""


@dataclass(frozen=True)
class Args:
    """Teach Hopper a backflip."""

    labels: int = 900
    """Comparisons in all."""
    steps: int = 1_000_000
    """That the agent takes, of all environments together."""
    rows: int = 16
    """Environments side by side."""
    seed: int = 0
    """Of everything."""
    output: Path = Path("runs/backflip")
    """The run folder."""


class Backflip(gym.Wrapper[Any, Any, Any, Any]):
    """Hopper that may fall, and a judge who counts radians turned backwards."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Hopper; the judge's opinion is in `info["gold_reward"]` alone."""
        observation, _, terminated, truncated, info = self.env.step(action)
        info["gold_reward"] = -float(observation[TORSO_TURNS]) * self.get_wrapper_attr("dt")
        return observation, 0.0, terminated, truncated, info


def hopper(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The task. A flip goes through every angle, so no angle may end the episode."""
    env = gym.make(
        "Hopper-v5",
        terminate_when_unhealthy=False,
        max_episode_steps=EPISODE,
        render_mode=render_mode,
        width=SIZE,
        height=SIZE,
    )
    return Backflip(env)


def train(args: Args) -> tuple[PPO, PreferenceLearning]:
    """Act, be compared, learn what was meant, act on."""
    env = SyncVectorEnv([hopper] * args.rows, autoreset_mode=AutoresetMode.SAME_STEP)
    config = PreferenceConfig(
        schedule=LabelSchedule(total=args.labels),
        learner=RewardLearnerConfig(segment_length=CLIP, memory=40_000),
        explore=2 * EPISODE * args.rows,
    )
    learning = PreferenceLearning(env, args.output, "oracle", config, seed=args.seed)
    agent = learning.resume_agent(PPO) or PPO(
        "MlpPolicy",
        learning.env,
        n_steps=2048 // args.rows,
        batch_size=256,
        learning_rate=5e-4,
        gamma=0.98,
        seed=args.seed,
        device="cpu",
        tensorboard_log=str(args.output),
    )
    learning.learn(agent, args.steps, progress_bar=True)
    return agent, learning


def show(agent: BaseAlgorithm, path: Path, *, seed: int, frames: int = 8) -> float:
    """Draw the stretch of an episode in which the torso turned most, from left to right.

    Returns:
        Radians turned backwards in the whole episode.
    """
    env = hopper("rgb_array")
    observation, _ = env.reset(seed=seed)
    pictures, turned = [], []
    done = False
    while not done:
        pictures.append(np.asarray(env.render()))
        action, _ = agent.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
        turned.append(info["gold_reward"])
        done = terminated or truncated
    env.close()
    so_far = np.concatenate([[0.0], np.cumsum(turned)])
    start = int(np.argmax(so_far[CLIP:] - so_far[:-CLIP]))
    shown = np.linspace(start, start + CLIP - 1, frames).astype(int)
    strip: NDArray[np.uint8] = np.concatenate([pictures[i] for i in shown], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strip).save(path)
    return float(so_far[-1])


if __name__ == "__main__":
    args = tyro.cli(Args)
    agent, _ = train(args)
    turned = show(agent, args.output / "backflip.png", seed=args.seed)
    print(f"{turned / (2 * np.pi):.1f} turns backwards; {args.output / 'backflip.png'}")  # noqa: T201
