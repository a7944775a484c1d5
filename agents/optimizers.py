"""Optimisers by name, Adam in TensorFlow's form among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, get_args, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlhf_gym.agents.config import OptimizerName as OptimizerName
from rlhf_gym.core.errors import InvalidArgument


class TensorFlowAdam(Optimizer):
    """Adam with epsilon outside the bias correction, as TensorFlow 1 and the Adam paper's note.

        step_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)
        p <- p - step_t m_t / (sqrt(v_t) + eps)

    torch adds epsilon to the bias-corrected root instead: its first steps, when sqrt(v_t) is still
    small against epsilon, are up to sqrt(1 / (1 - beta2)) = 32 times larger. The published RLHF
    numbers before 2020 were made with this form; it moves the policy less at the start.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: decay of the two running means.
        eps: added to sqrt(v_t).

    Source: Kingma and Ba (2015), the remark at the end of section 2; "The N Implementation Details
    of RLHF with PPO" (2023), section on Adam's numerical details.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "step": 0})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the parameters once.

        Args:
            closure: recomputes the loss and its gradients; optional.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        gradients = [p.grad for p in params]
        means, squares = zip(*(self._moments(p) for p in params), strict=True)
        beta1, beta2 = group["betas"]
        group["step"] += 1
        correction = math.sqrt(1.0 - beta2 ** group["step"]) / (1.0 - beta1 ** group["step"])

        torch._foreach_lerp_(means, gradients, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(params, means, denominators, -group["lr"] * correction)

    def _moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state["exp_avg"], state["exp_avg_sq"]


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], *, learning_rate: float, eps: float
) -> Optimizer:
    """An optimiser over the parameters that are trained.

    Args:
        name: "adam", "adam-tf" (epsilon outside the bias correction), "adamw" or "sgd".
        parameters: frozen ones are left out, so no memory is spent on their moments.
        learning_rate: at the start; a schedule may move it.
        eps: Adam's epsilon.

    Raises:
        InvalidArgument: an unknown name, or nothing to train.
    """
    if name not in get_args(OptimizerName):
        raise InvalidArgument(
            "optimizer", name, "no such optimiser", f"Choose one of {get_args(OptimizerName)}"
        )
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise InvalidArgument(
            "freeze", "all", "no parameter is left to train", "Freeze fewer layers"
        )
    if name == "adam":
        return torch.optim.Adam(trained, lr=learning_rate, eps=eps, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(trained, lr=learning_rate, eps=eps, fused=True)
    if name == "adam-tf":
        return TensorFlowAdam(trained, lr=learning_rate, eps=eps)
    return torch.optim.SGD(trained, lr=learning_rate)
