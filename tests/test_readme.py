"""The README's Python is what a newcomer types first, so it runs as written, only shorter."""

import re
from pathlib import Path

import pytest

from rlhf_gym.agents import PPO

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
TIMESTEPS = 1500


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = PPO.learn
    learned = []

    def learn_less(agent: PPO, total_timesteps: int, **kwargs: object) -> PPO:
        learned.append(total_timesteps)
        return learn(agent, min(total_timesteps, TIMESTEPS), **kwargs)

    monkeypatch.setattr(PPO, "learn", learn_less)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert learned or "learn(" not in code


def test_every_command_of_the_readme_exists() -> None:
    from rlhf_gym.cli import COMMANDS

    named = set(re.findall(r"rlhf-gym ([a-z][a-z-]+)", README))
    assert {"demo", "train", "evaluate"} <= named
    assert named <= set(COMMANDS)
