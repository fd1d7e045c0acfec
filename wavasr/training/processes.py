"""What a run computes on: alone or with other processes, with or without fast bfloat16."""

from __future__ import annotations

import torch


def connected() -> bool:
    """Whether this process exchanges with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def most(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    if not connected():
        return number
    found = torch.tensor(number, device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return int(found)


def has_fast_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products (AVX-512 BF16, AMX)."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)
