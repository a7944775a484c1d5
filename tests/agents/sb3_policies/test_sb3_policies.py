"""Stock algorithms of Stable-Baselines3 and sb3-contrib train a language model as it stands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from rlhf_gym.agents.sb3 import (
    LastTokenRecurrentPolicy,
    PackedMaskBuffer,
    lm_policy_kwargs,
)
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import legal_logits, next_token_logits
from rlhf_gym.envs.sb3 import make_sb3_env

Maker = Callable[..., Any]

ALL = ["PPO", "A2C", "TRPO", "MaskablePPO", "RecurrentPPO"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_it_starts_as_the_pretrained_model(
    stock: Any, make_env: Maker, make_model: Maker, name: str, training: bool
) -> None:
    env = make_sb3_env(make_env(temperature=0.7, banned_token_ids=[3]))
    agent = stock.agent(name, env)
    agent.policy.set_training_mode(training)
    observation = env.reset()
    logits = next_token_logits(make_model(), observation)
    expected = legal_logits(logits, env.get_attr("rules")[0]).softmax(-1)
    found = stock.distribution(agent, observation)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(found == 0, expected == 0)
    if name != "RecurrentPPO":
        assert not agent.policy.predict_values(obs_as_tensor(observation, "cpu")).any()


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
@pytest.mark.parametrize("name", ALL)
def test_it_trains(stock: Any, make_env: Maker, name: str, mode: str) -> None:
    agent = stock.agent(name, make_sb3_env(make_env(autoreset_mode=mode)))
    before = stock.parameters(agent)
    agent.learn(256)
    after = stock.parameters(agent)
    assert after.isfinite().all()
    assert not torch.equal(before, after)


@pytest.mark.parametrize(("name", "steps"), [("PPO", 2_000), ("A2C", 2_000)])
def test_it_learns_to_write_good(stock: Any, make_env: Maker, name: str, steps: int) -> None:
    """One point per "good" of 6 tokens; the pretrained model gets 0.5."""
    env = make_sb3_env(make_env(num_envs=16))
    agent = stock.agent(name, env, learning_rate=3e-3)
    before, _ = evaluate_policy(agent, env, 64, deterministic=False)
    agent.learn(steps)
    after, _ = evaluate_policy(agent, env, 64, deterministic=False)
    assert before < 1.0
    assert after > 2.0


@pytest.mark.parametrize(("candidates", "is_accepted"), [(10, True), (0, False)])
def test_trpo_acts_with_what_its_line_search_accepted(
    stock: Any, make_env: Maker, candidates: int, is_accepted: bool
) -> None:
    """It assigns parameters; without a candidate it puts the old ones back."""
    env = make_sb3_env(make_env())
    agent = stock.agent("TRPO", env, line_search_max_iter=candidates)
    before = stock.parameters(agent)
    agent.learn(128)
    assert agent.logger.name_to_value["train/is_line_search_success"] == is_accepted
    assert torch.equal(before[:-17], stock.parameters(agent)[:-17]) != is_accepted  # 17: the critic
    observation = env.reset()
    lm = agent.policy.features_extractor.lm.model
    expected = legal_logits(next_token_logits(lm, observation), agent.policy.rules).softmax(-1)
    agent.policy.set_training_mode(False)
    torch.testing.assert_close(
        stock.distribution(agent, observation), expected.detach(), atol=1e-5, rtol=0
    )


def test_trpo_moves_what_a_language_model_calls_value(stock: Any, make_env: Maker) -> None:
    """GPT-NeoX has a `query_key_value`; with a rate of 0 the critic's optimiser moves nothing."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(vocab_size=12, intermediate_size=32, eos_token_id=1, **shape)
        )
    agent = stock.agent("TRPO", make_sb3_env(make_env(reference=model)), learning_rate=0.0)
    names = [name for name, _ in agent.policy.named_parameters()]
    assert [name for name in names if "value" in name] == ["value_net.weight", "value_net.bias"]
    assert len(names) == len(list(agent.policy.parameters()))
    trained = agent.policy.features_extractor.lm.model
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    agent.learn(128)
    assert agent.logger.name_to_value["train/is_line_search_success"]
    after = trained.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any("query_key_value" in name for name in moved)


@pytest.mark.parametrize("name", ["PPO", "TRPO", "RecurrentPPO"])
def test_adapters_alone_are_trained(stock: Any, make_env: Maker, tmp_path: Path, name: str) -> None:
    env = make_sb3_env(make_env())
    kwargs = lm_policy_kwargs(env, lora_rank=2)
    agent = stock.agent(name, env, policy_kwargs=kwargs, learning_rate=1e-2)
    observation = env.reset()
    if name == "PPO":  # it starts as the pretrained model
        plain = stock.agent(name, env)
        expected = stock.distribution(plain, observation)
        torch.testing.assert_close(
            stock.distribution(agent, observation), expected, atol=1e-5, rtol=0
        )
    trunk = agent.policy.features_extractor
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    agent.learn(128)
    after = trunk.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved
    assert all("lora_" in key for key in moved)
    agent.save(tmp_path / "agent")
    again = type(agent).load(tmp_path / "agent", device="cpu")
    for key, value in after.items():
        assert torch.equal(again.policy.features_extractor.state_dict()[key], value)


def test_set_parameters_is_noticed(stock: Any, make_env: Maker) -> None:
    env = make_sb3_env(make_env())
    agent, other = stock.agent("PPO", env), stock.agent("PPO", env, learning_rate=1e-2)
    other.learn(128)
    agent.policy.set_training_mode(False)
    other.policy.set_training_mode(False)
    observation = env.reset()
    before = stock.distribution(agent, observation)
    agent.set_parameters(other.get_parameters())
    after = stock.distribution(agent, observation)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, stock.distribution(other, observation), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_save_and_load(
    stock: Any, make_env: Maker, make_model: Maker, tmp_path: Path, name: str
) -> None:
    env = make_sb3_env(make_env(**stock.penalised(make_model())))
    agent = stock.agent(name, env, learning_rate=3e-3)
    agent.learn(128)
    agent.save(tmp_path / "agent")
    observation = env.reset()
    alone = type(agent).load(tmp_path / "agent", device="cpu")
    assert torch.equal(stock.parameters(agent), stock.parameters(alone))
    expected = agent.predict(observation, deterministic=True)[0]
    assert np.array_equal(alone.predict(observation, deterministic=True)[0], expected)

    again = type(agent).load(
        tmp_path / "agent", env=env, device="cpu", policy_kwargs=lm_policy_kwargs(env)
    )
    known: list[bool] = []

    def note(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
        known.extend(info["kl_known"] for info in locals_["infos"] if "kl_known" in info)
        return True

    again.learn(128, callback=note)
    assert known
    assert all(known)

    agent.policy.save(tmp_path / "policy")
    policy = type(agent.policy).load(tmp_path / "policy", device="cpu")
    assert np.array_equal(policy.predict(observation, deterministic=True)[0], expected)


def test_another_process_loads_it(stock: Any, make_env: Maker, tmp_path: Path) -> None:
    env = make_sb3_env(make_env(num_envs=2))
    agent = stock.agent("PPO", env, batch_size=32)
    agent.save(tmp_path / "agent")
    observation = env.reset()
    np.savez(tmp_path / "observation", **observation)
    program = (
        "import sys, numpy as np\n"
        "from stable_baselines3 import PPO\n"
        "agent = PPO.load(sys.argv[1], device='cpu')\n"
        "observation = dict(np.load(sys.argv[2]))\n"
        "print(agent.predict(observation, deterministic=True)[0].tolist())\n"
    )
    paths = [str(tmp_path / "agent.zip"), str(tmp_path / "observation.npz")]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    expected = agent.predict(observation, deterministic=True)[0].tolist()
    assert done.stdout.strip().splitlines()[-1] == str(expected)


def test_normalised_rewards(stock: Any, make_env: Maker) -> None:
    env = VecNormalize(make_sb3_env(make_env()), norm_obs=False)
    stock.agent("PPO", env).learn(256)
    assert env.ret_rms.count > 200


def test_values_may_have_a_trunk_of_their_own(stock: Any, make_env: Maker) -> None:
    env = make_sb3_env(make_env())
    kwargs = lm_policy_kwargs(env, share_features_extractor=False)
    for name in ("PPO", "TRPO"):
        agent = stock.agent(name, env, policy_kwargs=kwargs)
        critic = agent.policy.vf_features_extractor.lm
        before = [p.detach().clone() for p in critic.model.parameters()]
        assert critic is not agent.policy.pi_features_extractor.lm
        agent.learn(256)
        assert any(
            not torch.equal(old, new)
            for old, new in zip(before, critic.model.parameters(), strict=True)
        )


@pytest.mark.parametrize(
    "lstm",
    [
        {},
        {"shared_lstm": True, "enable_critic_lstm": False},
        {"enable_critic_lstm": False},
        {"lstm_hidden_size": 8, "n_lstm_layers": 2},
    ],
)
def test_every_lstm_starts_as_a_residual_of_zero(
    stock: Any, make_env: Maker, lstm: dict[str, Any]
) -> None:
    env = make_sb3_env(make_env())
    agent = stock.agent("RecurrentPPO", env, policy_kwargs=lm_policy_kwargs(env, **lstm))
    plain = stock.agent("PPO", env)
    observation = env.reset()
    torch.testing.assert_close(
        stock.distribution(agent, observation),
        stock.distribution(plain, observation),
        atol=1e-5,
        rtol=0,
    )
    agent.learn(256)
    assert agent.policy.actor_residual.weight.abs().max() > 0


def test_the_last_token_alone_is_an_unpretrained_start(stock: Any, make_env: Maker) -> None:
    env = make_sb3_env(make_env())
    agent = RecurrentPPO(
        LastTokenRecurrentPolicy,
        env,
        policy_kwargs=lm_policy_kwargs(env, lstm_hidden_size=16),
        device="cpu",
        seed=0,
        learning_rate=1e-2,
        n_steps=16,
        batch_size=64,
        n_epochs=2,
    )
    assert not any("lm" in name.split(".") for name, _ in agent.policy.named_parameters())
    assert (stock.distribution(agent, env.reset())[:, 0] == 0).all()  # PAD is illegal all the same
    before = stock.parameters(agent)
    agent.learn(256)
    assert not torch.equal(before, stock.parameters(agent))


def test_a_folder_is_a_start_too(
    stock: Any, make_env: Maker, make_model: Maker, tmp_path: Path
) -> None:
    make_model(seed=5).save_pretrained(tmp_path)
    env = make_sb3_env(make_env(reference=None))
    agent = stock.agent("PPO", env, policy_kwargs=lm_policy_kwargs(env, model=tmp_path))
    observation = env.reset()
    logits = next_token_logits(make_model(seed=5), observation)
    expected = legal_logits(logits, agent.policy.rules).softmax(-1)
    torch.testing.assert_close(stock.distribution(agent, observation), expected, atol=1e-5, rtol=0)


def test_a_truncated_text_is_bootstrapped(stock: Any, make_env: Maker) -> None:
    """SB3 adds gamma * V(terminal observation) to the last reward: the buffer shows it."""
    env = make_sb3_env(make_env(length_limit="truncate", max_response_tokens=3))
    agent = stock.agent("PPO", env, n_steps=3, batch_size=24)
    torch.nn.init.constant_(agent.policy.value_net.bias, 10.0)  # V = 10 everywhere
    ended: list[tuple[float, bool, float]] = []

    def note(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
        if agent.num_timesteps > 24:
            return False
        for row in np.flatnonzero(locals_["dones"]):
            info = locals_["infos"][row]
            ended.append((row, info["TimeLimit.truncated"], float(info["score"])))
        return True

    agent.learn(24, callback=note)
    assert any(is_cut for _, is_cut, _ in ended)
    last = agent.rollout_buffer.swap_and_flatten(agent.rollout_buffer.rewards)
    assert (np.asarray(last) >= 10).sum() == sum(is_cut for _, is_cut, _ in ended)


def test_masks_are_stored_in_bits_and_come_back(stock: Any, make_env: Maker) -> None:
    env = make_sb3_env(make_env(top_k=5, min_response_tokens=2))
    agent = stock.agent("MaskablePPO", env)
    given: list[Any] = []

    def note(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
        given.append(locals_["action_masks"].copy())
        return True

    agent.learn(128, callback=note)
    buffer = agent.rollout_buffer
    assert buffer.action_masks.shape[-1] == 2  # 12 tokens
    assert buffer.action_masks.dtype == np.uint8
    # SB3 flattens row after row: all steps of one environment together.
    expected = np.stack(given).swapaxes(0, 1).reshape(-1, 12)
    samples = buffer._get_samples(np.arange(128))
    assert np.array_equal(samples.action_masks.numpy().astype(bool), expected)
    assert samples.action_masks.sum(-1).min() >= 1
    everything = PackedMaskBuffer(2, env.observation_space, env.action_space, n_envs=8)
    assert np.unpackbits(everything.action_masks, axis=-1, count=12).all()
    with pytest.raises(InvalidArgument, match="one choice among tokens"):
        PackedMaskBuffer(2, env.observation_space, spaces.MultiDiscrete([2, 3]))
