"""Whether a run is one of several processes that learn together."""

from __future__ import annotations

import torch


def connected() -> bool:
    """Whether this process exchanges with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
