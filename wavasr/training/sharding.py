"""`trainer.strategy: fsdp`: each process keeps a part of the weights, of their gradients and of the optimiser's state.

Lightning's own strategy of this name wants a GPU and wraps modules in ways that this package's tasks do not fit. This
one takes PyTorch's `fully_shard` (FSDP2), which runs on any device, and checkpoints hold whole weights: a run goes on
with another strategy, and with another number of processes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from wavasr.network.wavenet import Stage

_FORWARDS = ("objective", "validation_step")  # of a task: all that computes with its weights


class Sharded(DDPStrategy):
    """Processes as in DDP, but the weights lie in parts; whole ones exist while a stage computes."""

    def configure_ddp(self) -> None:
        """Divide the task's weights instead of wrapping it."""
        task = self.lightning_module
        assert task is not None
        if isinstance(task, FSDPModule):
            return
        # What is saved, on one process and in its memory; modules in parts cannot be copied.
        self._whole = {n: copy.deepcopy(m).cpu() for n, m in task.named_children()} if self.is_global_zero else {}
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for module in task.modules():
            if isinstance(module, nn.ModuleList):
                for stage in list(module)[1:]:  # the first stage is not called as a whole
                    if isinstance(stage, Stage):
                        fully_shard(stage, mesh=mesh)
        fully_shard(task, mesh=mesh, reshard_after_forward=True)
        for name in _FORWARDS:
            register_fsdp_forward_method(task, name)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights; all processes must ask."""
        return whole(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole moments; all processes must ask."""
        return whole(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each process keeps its part."""
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for weight, state in optimizer.state.items():
                for name, value in state.items():
                    if value.shape == weight.shape:
                        state[name] = part_of(value, weight)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """The first process's task has whole weights meanwhile, to be saved; all processes must enter."""
        task = self.lightning_module
        assert task is not None
        weights = whole(task.state_dict())
        parts = dict(task.named_children())
        for name, module in self._whole.items():
            prefix = f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
            setattr(task, name, module)
        try:
            yield
        finally:
            for name in self._whole:
                setattr(task, name, parts[name])


def whole(values: dict[str, Any]) -> dict[str, Any]:
    """Tensors in parts, anywhere in a collection, put together on the CPU; all processes must call it."""
    return cast(dict[str, Any], apply_to_collection(values, DTensor, lambda value: value.full_tensor().cpu()))


def whole_tensor(value: Tensor) -> Tensor:
    """A tensor as it is or, where it lies in parts, put together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that all processes have, divided as another one is."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
