"""The judge of the backflip, and that the example runs from end to end."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "backflip.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("backflip", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_turning_backwards_is_what_counts(script: ModuleType) -> None:
    """In the air the torso turns by what the judge says, to the size of a step; and backwards.

    Backwards: the head, which is above the middle of the torso, goes towards smaller x.
    """
    env = script.hopper()
    env.reset(seed=0)
    task = env.unwrapped
    position, velocity = task.data.qpos.copy(), np.zeros(6)
    position[1] = 4.0  # metres up
    velocity[2] = -3.0  # radians a second
    task.set_state(position, velocity)
    torso = task.model.body("torso").id
    before_angle, tops = task.data.qpos[2], []
    judged = 0.0
    for _ in range(10):
        tops.append(task.data.xmat[torso].reshape(3, 3)[0, 2])  # x of the torso's own "up"
        _, reward, *_, info = env.step(np.zeros(3))
        judged += info["gold_reward"]
        assert reward == 0.0
    assert judged > 0
    assert judged == pytest.approx(before_angle - task.data.qpos[2], rel=0.2)
    assert tops[-1] < tops[0]
    env.close()


def test_it_runs_from_end_to_end(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(script, "EPISODE", 100)
    args = script.Args(labels=1, steps=64, rows=2, output=tmp_path)
    agent, learning = script.train(args)
    assert learning.learner.asked == 1
    script.show(agent, tmp_path / "backflip.png", seed=0)
    assert (tmp_path / "backflip.png").stat().st_size > 1000
