"""Ids that Gymnasium knows, without importing more than it must."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlhf_gym.envs.registration import ENVIRONMENTS, register_all
from rlhf_gym.envs.text.single import TextGenerationEnv
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_registering_twice_is_registering_once(recwarn):
    register_all()
    register_all()
    assert not list(recwarn)
    for env_id, task in ENVIRONMENTS.items():
        spec = gym.spec(env_id)
        assert spec.entry_point == f"{task.target}Env"
        assert spec.vector_entry_point == f"{task.target}VectorEnv"


def test_ids_are_known_before_torch_is_imported():
    code = (
        "import sys, gymnasium, rlhf_gym.envs.registration as r; r.register_all();"
        "import rlhf_gym.envs, rlhf_gym.envs.text;"
        "print(sum(i.startswith('rlhf_gym/') for i in gymnasium.registry),"
        " *[m for m in ('torch', 'transformers', 'stable_baselines3') if m in sys.modules])"
    )
    assert run(code) == str(len(ENVIRONMENTS))


def test_lazy_names_are_the_real_ones():
    import rlhf_gym.envs
    import rlhf_gym.envs.text

    assert rlhf_gym.envs.TextGenerationEnv is TextGenerationEnv
    assert rlhf_gym.envs.text.TextGenerationVectorEnv is TextGenerationVectorEnv
    for module in (rlhf_gym.envs, rlhf_gym.envs.text):
        assert dir(module) == sorted(module.__all__)
        assert all(getattr(module, name) for name in module.__all__)
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = module.no_such_name


def test_made_by_id(tokenizer, word_count):
    register_all()
    settings = {"prompts": ["a b"], "tokenizer": tokenizer, "reward": word_count}
    single = gym.make("rlhf_gym/TextGeneration-v0", **settings)
    assert isinstance(single.unwrapped, TextGenerationEnv)
    vector = gym.make_vec("rlhf_gym/TextGeneration-v0", num_envs=3, **settings)
    assert isinstance(vector, TextGenerationVectorEnv)
    assert vector.num_envs == 3
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert "TextGeneration-v0, num_envs=3" in repr(vector)
    looped = gym.make_vec(
        "rlhf_gym/TextGeneration-v0", num_envs=2, vectorization_mode="sync", **settings
    )
    assert isinstance(looped, SyncVectorEnv)
    looped.reset(seed=0)
    *_, info = looped.step([2, 7])
    assert info["finish_reason"].tolist() == ["stop", None]
    looped.close()
