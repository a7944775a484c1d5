"""The study of KL estimators: exact numbers against hand-worked ones and against each other."""

import math
from pathlib import Path

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.exact.judge import ExactJudge
from rlhf_gym.envs.exact.solver import NodeTable
from rlhf_gym.pipelines.studies import kl as study
from rlhf_gym.pipelines.studies.kl_exact import (
    estimator_error,
    every_response,
    gradient_error,
    tokens_along,
)
from rlhf_gym.pipelines.studies.kl_picture import draw
from rlhf_gym.pipelines.studies.kl_placement import VARIANTS, Variant, placement_cell
from rlhf_gym.pipelines.studies.kl_samples import estimates, sample_cell


@pytest.fixture(scope="module")
def env() -> ExactVectorEnv:
    return ExactVectorEnv(max_response_tokens=3)


@pytest.fixture(scope="module")
def judge(env: ExactVectorEnv) -> ExactJudge:
    return env.judge


@pytest.fixture(scope="module")
def policy(judge: ExactJudge) -> NodeTable:
    return judge.optimum(0.3).log_probs


def test_tokens_along_sum_to_the_judge_s_own_walk(judge: ExactJudge, policy: NodeTable) -> None:
    along = tokens_along(judge.tree, policy)
    torch.testing.assert_close(along.sum(-1), judge.tree.along(policy))


def test_one_token_by_hand() -> None:
    """Policy (3/4, 1/4), reference (1/2, 1/2): every number can be written down."""
    judge = ExactVectorEnv(max_response_tokens=1).judge
    tree = judge.tree

    def table(stop: float) -> NodeTable:
        row = torch.full((3, 1, 7), -torch.inf, dtype=torch.float64)
        row[..., 1], row[..., 2] = math.log(stop), math.log(1 - stop)
        return (row,)

    responses = every_response(tree, table(0.75), table(0.5))
    up, down = math.log(1.5), math.log(0.5)
    truth = 0.75 * up + 0.25 * down  # 0.1308 nats
    for use in ("token", "response", "sequence"):
        k1 = estimator_error(responses, "k1", use)  # type: ignore[arg-type]
        assert k1.truth == pytest.approx(truth)
        assert k1.bias == pytest.approx(0.0, abs=1e-12)
        # Two values that far apart, with probabilities 3/4 and 1/4: sqrt(3/16) * log 3.
        assert k1.deviation == pytest.approx(math.sqrt(3) / 4 * math.log(3))
        k2 = estimator_error(responses, "k2", use)  # type: ignore[arg-type]
        assert k2.bias == pytest.approx(0.75 * up**2 / 2 + 0.25 * down**2 / 2 - truth)
        k3 = estimator_error(responses, "k3", use)  # type: ignore[arg-type]
        assert k3.bias == pytest.approx(0.0, abs=1e-12)
        # 1 / ratio - 1 + log ratio: -1/3 + log 1.5 and 1 + log 0.5.
        assert k3.deviation == pytest.approx(math.sqrt(3) / 4 * abs(4 / 3 + down - up))


def test_the_whole_response_has_no_table() -> None:
    judge = ExactVectorEnv(max_response_tokens=1).judge
    responses = every_response(judge.tree, judge.reference, judge.reference)
    with pytest.raises(InvalidArgument, match="whole responses"):
        estimator_error(responses, "exact", "sequence")


def test_k1_and_k3_are_unbiased_and_k2_is_not(judge: ExactJudge, policy: NodeTable) -> None:
    table = study.estimator_table(judge, policy)
    for use, row in table.items():
        for name in ("k1", "k3"):
            assert row[name]["bias"] == pytest.approx(0.0, abs=1e-9), (use, name)
        assert abs(row["k2"]["bias"]) > 1e-3
    assert table["token"]["exact"]["deviation"] == 0.0
    assert 0 < table["response"]["exact"]["deviation"] < table["response"]["k1"]["deviation"]
    # Chain rule: the tokens' KL and the joint log-ratio have one expectation.
    assert table["response"]["k1"]["truth"] == pytest.approx(
        float(judge.performance(policy).kl.mean())
    )


def test_gradients_of_the_kl(judge: ExactJudge, policy: NodeTable) -> None:
    table = study.gradient_table(judge, policy)
    # In the reward k1 is right and, of the others, nothing is.
    assert table["reward"]["k1"]["bias"] == pytest.approx(0.0, abs=1e-9)
    assert min(table["reward"][name]["bias"] for name in ("k2", "k3", "exact")) > 0.1
    # In the loss k1 has no gradient in expectation, only noise.
    for how in ("loss", "sequence loss"):
        assert math.isnan(table[how]["k1"]["cosine"])
        assert table[how]["k1"]["noise"] > 0.1
    # k2 of the joint log-ratio is right; token by token it is the exact KL of the states met, which
    # leaves out that the policy chooses the states.
    assert table["sequence loss"]["k2"]["bias"] == pytest.approx(0.0, abs=1e-9)
    assert table["loss"]["k2"]["bias"] == pytest.approx(table["loss"]["exact"]["bias"])
    assert table["loss"]["k2"]["noise"] > table["loss"]["exact"]["noise"]
    assert table["loss"]["exact"]["bias"] > 0.01
    assert table["sequence loss"]["k3"]["bias"] > 0.1


def test_the_exact_loss_and_the_exact_reward_are_two_halves(
    judge: ExactJudge, policy: NodeTable
) -> None:
    """d/dpi sum_t KL(s_t) = KL's own slope + where the policy goes: their squares need not add up,
    their sum is the whole, so each is as far from it as the other is long."""
    reward = gradient_error(judge, policy, "exact", "reward")
    loss = gradient_error(judge, policy, "exact", "loss")
    assert reward.bias == pytest.approx(loss.ratio)
    assert loss.bias == pytest.approx(reward.ratio)


def test_squares_of_one_response_s_gradient(judge: ExactJudge, policy: NodeTable) -> None:
    """|g|^2 from one prompt and response by autograd, for the likeliest responses."""
    tree = judge.tree
    logits = tuple(table.clone().requires_grad_() for table in policy)
    tables = tuple(table.log_softmax(-1) for table in logits)
    responses = every_response(tree, tables, judge.reference)
    for index in responses.weight.flatten().topk(20).indices.tolist():
        prompt, row = divmod(index, responses.weight.shape[1])
        ratio = (responses.log_probs - responses.reference_log_probs)[prompt, row]
        cost = ratio.detach().flip(-1).cumsum(-1).flip(-1)
        surrogate = (cost * responses.log_probs[prompt, row]).sum()
        parts = torch.autograd.grad(surrogate, logits, retain_graph=True)
        gradient = torch.cat([part.nan_to_num().flatten() for part in parts])
        by_hand = (
            cost.square() * responses.onehot_distance[prompt, row] * responses.mask[row]
        ).sum()
        assert float(gradient.square().sum()) == pytest.approx(float(by_hand))


@pytest.mark.parametrize("kl", [0.1, 1.0])
def test_policies_at_a_distance(judge: ExactJudge, kl: float) -> None:
    found = study.at_distance(judge, kl)
    assert float(judge.performance(found).kl.mean()) == pytest.approx(kl, rel=1e-6)


@pytest.mark.parametrize("name", ["token, k1", "loss, k3", "token, k1, adaptive from 0.3"])
def test_placement_cells_learn_with_what_they_say(name: str) -> None:
    cell = placement_cell(VARIANTS[name], seed=100, tokens=600)
    assert cell["tokens"] >= 600
    assert cell["share"] < 0.9
    assert (cell["coef"] == VARIANTS[name].coef) == (not VARIANTS[name].adaptive)


def test_without_a_penalty_nothing_is_charged() -> None:
    cell = placement_cell(Variant("none", coef=0.0), seed=100, tokens=300)
    assert cell["coef"] == 0.0


def test_samples_agree_with_enumeration() -> None:
    """At the reference every estimate is 0 and certain; a moved policy is told as moved."""
    (start, later) = sample_cell((0, 1500), seed=100, samples=64)
    assert start["kl"] == (0.0, 0.0, 0.0)
    assert start["response"]["k1"]["deviation"] == 0.0
    assert later["kl"][0] > 0
    low, high = later["response"]["k1"]["bias"][1:]
    assert low < 0 < high


def test_estimates_of_an_untouched_copy() -> None:
    from rlhf_gym.core.models import load_causal_lm
    from rlhf_gym.envs.sentiment.task import REFERENCE

    found = estimates(load_causal_lm(REFERENCE), seed=0, samples=128)
    assert found["token"]["k2"]["bias"] == (0.0, 0.0, 0.0)


def test_the_picture(judge: ExactJudge, policy: NodeTable, tmp_path: Path) -> None:
    errors = {0.5: study.estimator_table(judge, policy)}
    gradients = {0.5: study.gradient_table(judge, policy)}
    placements = {"token, k1": [{"share": 0.9}, {"share": 1.0}], "none": [{"share": -1.0}]}
    assert draw(errors, gradients, placements, tmp_path / "kl.png").stat().st_size > 10_000
