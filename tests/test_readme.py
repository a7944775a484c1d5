"""The Python of README and pages is typed first by newcomers: it runs as written, only shorter."""

import re
from pathlib import Path

import pytest
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlhf_gym.agents import TextAlgorithm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ("README.md", "docs/bring-your-own-agent.md")
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    )
]
TIMESTEPS = 1500


@pytest.mark.parametrize("code", BLOCKS)
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []

    def shorten(kind: type[BaseAlgorithm]) -> None:
        learn = kind.learn

        def learn_less(agent: BaseAlgorithm, total_timesteps: int, **kwargs: object) -> object:
            learned.append(total_timesteps)
            return learn(agent, min(total_timesteps, TIMESTEPS), **kwargs)

        monkeypatch.setattr(kind, "learn", learn_less)

    for kind in (TextAlgorithm, OnPolicyAlgorithm, OffPolicyAlgorithm):
        shorten(kind)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "page"})
    assert learned or "learn(" not in code


def test_every_command_of_the_readme_exists() -> None:
    from rlhf_gym.cli import COMMANDS

    named = set(re.findall(r"rlhf-gym ([a-z][a-z-]+)", README))
    assert {"demo", "train", "evaluate"} <= named
    assert named <= set(COMMANDS)
