import pytest
import torch
from torch import nn

from rlhf_gym.agents.optimizers import TensorFlowAdam, make_optimizer
from rlhf_gym.core.errors import InvalidArgument


def one_parameter(gradient: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    return parameter


def test_two_steps_by_hand() -> None:
    parameter = one_parameter(1e-3)
    optimizer = TensorFlowAdam([parameter], lr=0.1, eps=1e-5)
    optimizer.step()
    # m = 0.1 * 1e-3 = 1e-4; v = 0.001 * 1e-6 = 1e-9, root 3.1622777e-5
    # step = 0.1 * sqrt(0.001) / 0.1 = 0.031622777
    # move = 0.031622777 * 1e-4 / (3.1622777e-5 + 1e-5) = 0.07597469
    assert parameter.item() == pytest.approx(1 - 0.07597469, abs=1e-8)
    parameter.grad = torch.tensor([-1e-3], dtype=torch.float64)
    optimizer.step()
    # m = 0.9e-4 - 1e-4 = -1e-5; v = 0.999e-9 + 1e-9 = 1.999e-9, root 4.4710178e-5
    # step = 0.1 * sqrt(1 - 0.998001) / (1 - 0.81) = 0.023531673
    # move = 0.023531673 * -1e-5 / 5.4710178e-5 = -0.004301151
    assert parameter.item() == pytest.approx(1 - 0.07597469 + 0.004301151, abs=1e-8)


def test_first_step_is_smaller_than_in_torch_form() -> None:
    ours, torchs = one_parameter(1e-5), one_parameter(1e-5)
    TensorFlowAdam([ours], lr=0.1, eps=1e-5).step()
    torch.optim.Adam([torchs], lr=0.1, eps=1e-5).step()
    # torch: 0.1 * 1e-5 / (1e-5 + 1e-5) = 0.05
    assert torchs.item() == pytest.approx(0.95)
    # here: 0.031622777 * 1e-6 / (3.1622777e-7 + 1e-5) = 0.0030653
    assert ours.item() == pytest.approx(1 - 0.0030653, abs=1e-6)


def test_without_epsilon_both_forms_agree() -> None:
    weights = [nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(2)]
    ours = TensorFlowAdam([weights[0]], lr=0.01, eps=0.0)
    torchs = torch.optim.Adam([weights[1]], lr=0.01, eps=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient = torch.randn(4, generator=generator, dtype=torch.float64)
        for weight in weights:
            weight.grad = gradient.clone()
        ours.step()
        torchs.step()
    torch.testing.assert_close(weights[0], weights[1])


def test_state_dict_resumes_exactly() -> None:
    straight, resumed = one_parameter(0.3), one_parameter(0.3)
    first = TensorFlowAdam([straight], lr=0.01)
    for _ in range(3):
        first.step()
    before = TensorFlowAdam([resumed], lr=0.01)
    before.step()
    after = TensorFlowAdam([resumed], lr=0.5)
    after.load_state_dict(before.state_dict())
    after.step()
    after.step()
    assert torch.equal(straight, resumed)


def test_parameters_without_gradient_stay() -> None:
    idle = nn.Parameter(torch.ones(2))
    optimizer = TensorFlowAdam([idle, one_parameter(1.0)])
    optimizer.step()
    assert torch.equal(idle, torch.ones(2))
    assert idle not in optimizer.state


@pytest.mark.parametrize("name", ["adam", "adam-tf", "adamw", "sgd"])
def test_frozen_parameters_are_left_out(name: str) -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    optimizer = make_optimizer(name, module.parameters(), learning_rate=0.1, eps=1e-5)
    assert [p for group in optimizer.param_groups for p in group["params"]] == [module.weight]


def test_bad_arguments() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(InvalidArgument, match="optimizer='adagrad'"):
        make_optimizer("adagrad", module.parameters(), learning_rate=0.1, eps=1e-5)
    module.requires_grad_(False)
    with pytest.raises(InvalidArgument, match="no parameter is left"):
        make_optimizer("adam", module.parameters(), learning_rate=0.1, eps=1e-5)
