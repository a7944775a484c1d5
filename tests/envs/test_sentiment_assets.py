"""The command that makes the packaged models: whole, small, and without touching the package."""

import json

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sentiment import SentimentVectorEnv
from rlhf_gym.envs.sentiment.task import ASSETS
from rlhf_gym.pipelines.build_assets import BuildAssetsConfig, build_assets
from rlhf_gym.rewards.model import RewardModel


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    config = BuildAssetsConfig(
        output=str(tmp_path_factory.mktemp("assets")),
        corpus=200,
        demonstrations=100,
        openings=100,
        unseen=100,
        epochs=1,
        progress=False,
    )
    before = (ASSETS / "build.json").read_bytes()
    result = build_assets(config)
    assert (ASSETS / "build.json").read_bytes() == before
    return result


def test_models_can_be_used(built):
    assets = built.output / "assets"
    env = SentimentVectorEnv(
        num_envs=2, reference=assets / "reference", reward=RewardModel(assets / "reward_model")
    )
    env.reset(seed=0)
    assert env.action_space.nvec.tolist() == [env.rules.vocab_size] * 2


def test_files_are_those_of_the_package(built):
    def names(folder):
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}

    assert names(built.output / "assets") == names(ASSETS)
    for path in (built.output / "assets").rglob("*.safetensors"):
        assert path.stat().st_mode & 0o777 == 0o644


def test_provenance_tells_nothing_of_the_machine(built):
    text = (built.output / "assets" / "build.json").read_text()
    assert str(built.output) not in text
    content = json.loads(text)
    assert content["settings"]["corpus"] == 200
    assert content["figures"]["pair_accuracy"] == pytest.approx(built.pair_accuracy)


def test_packaged_models_were_made_by_the_defaults():
    settings = json.loads((ASSETS / "build.json").read_text())["settings"]
    default = BuildAssetsConfig()
    assert settings == {name: getattr(default, name) for name in settings}


@pytest.mark.parametrize("field", ["corpus", "demonstrations", "openings", "unseen"])
def test_too_little_is_refused(field):
    with pytest.raises(InvalidArgument, match=field):
        BuildAssetsConfig(**{field: 99})
