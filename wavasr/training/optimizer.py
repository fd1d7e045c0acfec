"""The optimiser: orthogonal steps for the kernels of the encoder, AdamW for everything else.

A kernel's gradient has a few directions that dwarf the others. Muon makes all directions of its momentum equally long,
and learns more in an epoch than AdamW in two (docs/ablations.md).

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the step's size as in Liu et al.
2025, "Muon is scalable for LLM training", arXiv 2502.16982: as long as AdamW's, so that both share a learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from wavasr.training.processes import connected, has_fast_bfloat16
from wavasr.training.sharding import part_of, whole_tensor

_MOMENTUM = 0.95
_STEP_RMS = 0.2  # of AdamW's steps, about
_ITERATIONS = 5
_QUINTIC = 3.4445, -4.7750, 2.0315  # takes singular values from 0.01 to 1 to between 0.6 and 1.3 in five iterations


class Muon(torch.optim.AdamW):
    """AdamW, but groups with `kernels: True` hold weights (N, C, taps) of convolutions: each tap is a matrix.

    Several processes share the work: each makes the steps of some kernels, and they are exchanged.

    Args:
        groups: parameter groups, as AdamW takes them.
        lr: learning rate of groups without one.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, betas=(0.9, 0.98))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all groups; the kernels' gradients are used up."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group.get("kernels"):
                self._step_kernels(group)
        super().step()  # skips what has no gradient
        return loss

    def _step_kernels(self, group: dict[str, Any]) -> None:
        kernels = [p for p in cast(list[Tensor], group["params"]) if p.grad is not None]
        directions = []
        for kernel in kernels:
            gradient = cast(Tensor, kernel.grad)
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
                state["step"] = torch.zeros(())  # AdamW looks for it when a checkpoint is read
            momentum = state["momentum"]
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            directions.append(gradient.lerp(momentum, _MOMENTUM))
            kernel.grad = None
        steps = _shared([whole_tensor(direction) for direction in directions])
        for kernel, step in zip(kernels, steps, strict=True):
            kernel.mul_(1 - group["lr"] * group["weight_decay"]).add_(part_of(step, kernel), alpha=-group["lr"])


def _shared(directions: Sequence[Tensor]) -> list[Tensor]:
    """The steps along all directions; of several processes each makes its share."""
    rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if connected() else (0, 1)
    by_size = sorted(range(len(directions)), key=lambda index: directions[index].numel())
    own = set(by_size[rank::processes])
    steps = [orthogonal(d) if index in own else torch.zeros_like(d) for index, d in enumerate(directions)]
    if processes > 1 and steps:
        flat = torch.cat([step.flatten() for step in steps])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [d.numel() for d in directions])
        steps = [part.view_as(d) for part, d in zip(parts, directions, strict=True)]
    return steps


def orthogonal(direction: Tensor) -> Tensor:
    """The kernel whose taps are about orthogonal matrices near those of `direction`: (N, C, taps) -> the same.

    Newton and Schulz's iteration on all taps at once, in bfloat16 where that is fast. The result's root mean square is
    `_STEP_RMS`.
    """
    fast = direction.is_cuda or has_fast_bfloat16()
    x = direction.permute(2, 0, 1).to(torch.bfloat16 if fast else torch.float32)  # (taps, N, C)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x.float())[:, None, None].to(x.dtype) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    longer = max(x.shape[1:])
    step: Tensor = (x.mT if tall else x).to(direction.dtype) * (_STEP_RMS * longer**0.5)
    return step.permute(1, 2, 0)
