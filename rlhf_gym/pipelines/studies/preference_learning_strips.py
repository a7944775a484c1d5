"""A task before and after it was taught by comparisons, as two rows of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlhf_gym.agents.sb3.control import CONTROL_AGENTS
from rlhf_gym.core.errors import InvalidArgument

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies.preference_learning_cells import Task

MOMENTS = 3
"""Pictures of an episode: more would be too small to read what is written in them."""
EPISODE_SEED = 20_000_000


def draw_strip(task: Task, agent: Path, picture: Path) -> Path:
    """Play the same episode by chance and by the trained agent, and draw both.

    Args:
        task: what to do.
        agent: the zip of the trained agent.
        picture: where the PNG goes.

    Returns:
        `picture`.

    Raises:
        InvalidArgument: no agent there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not agent.is_file():
        raise InvalidArgument(
            "strips", str(agent), "no such agent", "Run the study first: it keeps that of seed 0"
        )
    kind = CONTROL_AGENTS.load(task.agent)
    trained: Any = kind.load_class().load(agent, device="cpu")
    figure = Figure(figsize=(4.0 * MOMENTS, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, MOMENTS)
    for row, (title, player) in enumerate((("by chance", None), ("taught", trained))):
        frames, gold = _episode(task.env, player, masked=kind.is_masked)
        # Nothing has happened yet in the first frame: a third of the way, two thirds, the end.
        chosen = np.linspace(0, len(frames) - 1, MOMENTS + 1)[1:].round().astype(int)
        for axes, moment in zip(panels[row], chosen.tolist(), strict=True):
            axes.imshow(frames[moment])
            axes.set_axis_off()
            name = f"step {moment}"
            if moment == chosen[0]:
                name = f"{title}, gold {gold:+.1f}: {name}"
            axes.set_title(name, loc="left", fontsize=15)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)
    return picture


def _episode(env_id: str, agent: Any, *, masked: bool) -> tuple[list[NDArray[np.uint8]], float]:
    """Pictures of an episode, and its gold return; without an agent by chance."""
    env = gym.make(env_id, render_mode="rgb_array")
    task: Any = env.unwrapped
    observation, _ = env.reset(seed=EPISODE_SEED)
    env.action_space.seed(EPISODE_SEED)
    rng = np.random.default_rng(EPISODE_SEED)
    frames: list[Any] = [env.render()]
    gold, over = 0.0, False
    while not over:
        masks = {"action_masks": task.action_masks()} if masked else {}
        if agent is not None:
            action, _ = agent.predict(observation, deterministic=True, **masks)
        elif masked:
            action = rng.choice(np.flatnonzero(masks["action_masks"]))
        else:
            action = env.action_space.sample()
        observation, _, terminated, truncated, info = env.step(action)
        gold += info["gold_reward"]
        frames.append(env.render())
        over = terminated or truncated
    env.close()
    return frames, gold
