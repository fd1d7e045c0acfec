"""Muon: steps beside the singular value decomposition and torch's AdamW, alone and shared by processes."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from wavasr.training.optimizer import Muon, orthogonal


def kernel(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 24, 3), (24, 64, 2), (32, 32, 1)])
def test_steps_are_orthogonal_and_near_the_direction(shape: tuple[int, int, int]) -> None:
    direction = kernel(*shape) * torch.logspace(0, -1, shape[1])[:, None]
    step = orthogonal(direction)
    assert step.shape == shape
    longer = max(shape[:2])
    for tap in range(shape[2]):
        u, _, v = torch.linalg.svd(direction[..., tap], full_matrices=False)
        found = u.T @ (step[..., tap] / (0.2 * longer**0.5)) @ v.T  # diagonal, were it exact
        assert found.diagonal().min() > 0.6 and found.diagonal().max() < 1.3
        assert (found - torch.diag(found.diagonal())).abs().max() < 0.1  # bfloat16 has eight bits
    assert step.square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_no_direction_gives_no_step() -> None:
    assert orthogonal(torch.zeros(4, 4, 2)).abs().max() == 0


def groups_of(parameters: list[nn.Parameter], kernels: bool) -> list[dict[str, Any]]:
    return [{"params": parameters, "lr": 0.01, "weight_decay": 0.1, "kernels": kernels}]


def test_without_kernels_it_is_adamw() -> None:
    ours, theirs = (nn.Parameter(kernel(6, 5)) for _ in range(2))
    muon = Muon(groups_of([ours], kernels=False), 1.0)
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    for seed in range(5):
        for parameter, optimizer in ((ours, muon), (theirs, adamw)):
            parameter.grad = kernel(6, 5, seed=seed)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_kernel_moves_as_written() -> None:
    weight = nn.Parameter(kernel(8, 4, 3))
    start = weight.detach().clone()
    muon = Muon(groups_of([weight], kernels=True), 1.0)
    gradients = [kernel(8, 4, 3, seed=seed) for seed in (1, 2)]
    momentum = torch.zeros_like(start)
    expected = start
    for gradient in gradients:
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        expected = expected * (1 - 0.01 * 0.1) - 0.01 * orthogonal(0.05 * gradient + 0.95 * momentum)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-2, atol=1e-4)


def after_three_steps() -> list[torch.Tensor]:
    """Three kernels, each moved three times."""
    weights = [nn.Parameter(kernel(8, 4, 3)), nn.Parameter(kernel(4, 4, 1)), nn.Parameter(kernel(6, 4, 2))]
    muon = Muon(groups_of(weights, kernels=True), 1.0)
    for seed in range(3):
        for weight in weights:
            weight.grad = kernel(*weight.shape, seed=seed)
        muon.step()
    return [weight.detach() for weight in weights]


def share(rank: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(after_three_steps(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_steps_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(share, (port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for first, second, one in zip(*both, after_three_steps(), strict=True):
        torch.testing.assert_close(first, one, rtol=0, atol=0)
        torch.testing.assert_close(second, one, rtol=0, atol=0)
