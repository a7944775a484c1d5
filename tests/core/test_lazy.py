"""Names that are imported when they are first used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from rlhf_gym.core.lazy import lazy_names

PACKAGES = (
    "rlhf_gym.agents",
    "rlhf_gym.agents.imitation",
    "rlhf_gym.agents.sb3",
    "rlhf_gym.core.preferences",
    "rlhf_gym.envs",
    "rlhf_gym.envs.control",
    "rlhf_gym.envs.exact",
    "rlhf_gym.envs.sentiment",
    "rlhf_gym.envs.text",
    "rlhf_gym.rewards",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    get, names = lazy_names("rlhf_gym.agents", {"PPO": "ppo"})
    assert names() == ["PPO"]
    with pytest.raises(AttributeError, match=r"module 'rlhf_gym.agents' has no attribute 'PPPO'"):
        get("PPPO")


def test_importing_packages_loads_no_torch() -> None:
    # A process of its own: this one has long imported torch.
    code = f"import sys, {', '.join(PACKAGES)}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
