"""What every agent of the registry keeps: it starts as the model, learns, is saved, repeats itself.

Stock agents run through the adapter in the two modes that it serves, ours on the native environment
in all three.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.base_class import BaseAlgorithm

from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.agents.sb3.stock import StockAgent
from rlhf_gym.core.tokens import legal_logits, next_token_logits
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.rewards import KLPenalty
from rlhf_gym.rewards.base import FunctionReward

Maker = Callable[..., Any]
ADAPTED = (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
NATIVE = tuple(AutoresetMode)
SMALL: dict[str, dict[str, Any]] = {
    "sb3.dqn": {"policy_choices": {"q_scale": 0.1}},
    "contrib.qrdqn": {"policy_choices": {"n_quantiles": 5}},
    "contrib.ars": {"n_delta": 2, "n_eval_episodes": 4},
    "contrib.recurrent_ppo": {"policy_choices": {"lstm_hidden_size": 16}},
    "contrib.trpo": {"cg_max_steps": 3, "n_critic_updates": 1},
}
GREEDY = ("sb3.dqn", "contrib.qrdqn", "contrib.ars")
"""Policies that are argmax: the KL penalty in its sampled form knows nothing of them."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:the policy did not write"),
    pytest.mark.filterwarnings("ignore:The last.*truncated mini-batch"),
]


def is_stock(name: str) -> bool:
    return isinstance(AGENTS.load(name), StockAgent)


CASES = [
    pytest.param(name, mode, id=f"{name}-{mode.value}")
    for name in AGENTS
    for mode in (ADAPTED if is_stock(name) else NATIVE)
]


def agent_for(name: str, env: Any, seed: int = 0) -> BaseAlgorithm:
    entry, settings = AGENTS.load(name), SMALL.get(name, {})
    if isinstance(entry, StockAgent):
        return entry.make(make_sb3_env(env), seed=seed, device="cpu", **settings)
    agent: BaseAlgorithm = entry("LMPolicy", env, seed=seed, device="cpu", **settings)
    return agent


@pytest.fixture
def penalised(make_env: Maker, make_model: Maker) -> Maker:
    """Returns a function that builds an environment with a score and a KL penalty."""

    def make(**settings: Any) -> Any:
        reference = make_model()
        score = FunctionReward(lambda prompts, responses: [len(r) / 10 for r in responses])
        return make_env(
            reward=score - KLPenalty(reference, 0.1), reference=reference, num_envs=4, **settings
        )

    return make


def parameters(agent: BaseAlgorithm) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().clone()


def observations(env: Any) -> dict[str, Any]:
    """Four prompts with nothing to three tokens behind them."""
    env.reset(seed=5)
    rng = np.random.default_rng(5)
    seen = [env.reset()[0]]
    seen += [env.step(rng.integers(2, 12, size=env.num_envs))[0] for _ in range(3)]
    return {key: np.concatenate([each[key] for each in seen]) for key in seen[0]}


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_it_learns_the_same_twice(penalised: Maker, name: str, mode: AutoresetMode) -> None:
    shown, runs = observations(penalised()), []
    for seed in (0, 0, 1) if mode is AutoresetMode.SAME_STEP else (0, 0):
        env = penalised(autoreset_mode=mode)
        agent = agent_for(name, env, seed)
        before = parameters(agent)
        agent.learn(48)
        assert not torch.equal(before, parameters(agent))
        assert env.episodes_seen >= 4
        runs.append((parameters(agent), agent.predict(shown, deterministic=True)[0]))
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=0, atol=0)
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert all(not torch.equal(runs[0][0], other) for other, _ in runs[2:])


@pytest.mark.parametrize("name", AGENTS)
def test_its_first_action_is_the_language_models(
    penalised: Maker, make_model: Maker, name: str
) -> None:
    env = penalised(temperature=0.7)
    agent, shown = agent_for(name, env), observations(penalised())
    with torch.no_grad():
        logits = legal_logits(next_token_logits(make_model(), shown), env.rules)
    actions, _ = agent.predict(shown, deterministic=True)
    np.testing.assert_array_equal(actions, logits.argmax(-1))


@pytest.mark.parametrize("name", AGENTS)
def test_loaded_it_acts_the_same_and_goes_on(penalised: Maker, tmp_path: Path, name: str) -> None:
    env, shown = penalised(), observations(penalised())
    agent = agent_for(name, env)
    agent.learn(48)
    agent.save(tmp_path / "agent")
    expected, _ = agent.predict(shown, deterministic=True)
    loaded = type(agent).load(tmp_path / "agent", device="cpu")
    torch.testing.assert_close(parameters(loaded), parameters(agent), rtol=0, atol=0)
    np.testing.assert_array_equal(loaded.predict(shown, deterministic=True)[0], expected)
    again = type(agent).load(tmp_path / "agent", env=agent.get_env(), device="cpu")
    again.learn(24, reset_num_timesteps=False)
    assert again.num_timesteps >= 48 + 24


@pytest.mark.parametrize("name", AGENTS)
def test_parameters_can_be_set(penalised: Maker, name: str) -> None:
    shown = observations(penalised())
    learned, fresh = agent_for(name, penalised()), agent_for(name, penalised())
    with torch.no_grad():
        for parameter in learned.policy.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    before, _ = fresh.predict(shown, deterministic=True)
    expected, _ = learned.predict(shown, deterministic=True)
    assert (before != expected).any()
    fresh.set_parameters(learned.get_parameters(), device="cpu")
    np.testing.assert_array_equal(fresh.predict(shown, deterministic=True)[0], expected)


@pytest.mark.parametrize("name", AGENTS)
def test_the_kl_is_known_for_every_policy_that_has_one(penalised: Maker, name: str) -> None:
    agent, known = agent_for(name, penalised()), []

    def note(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
        known.extend(info["kl_known"] for info in locals_.get("infos", ()) if "kl_known" in info)
        return True

    if name != "contrib.ars":  # it calls back without telling infos
        agent.learn(48, callback=note)
        assert known
        assert all(known) == (name not in GREEDY)
