"""What every training task shares: the weighted sum of its losses, the optimiser, and the average of the weights.

A task adds what the network computes for a batch (`outputs`), its losses (`wavasr.training.losses`) and its validation.

Every random draw is derived from (seed, epoch, batch), and the averaged weights are part of the checkpoint, so a
resumed run repeats exactly what an uninterrupted one would have done.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from wavasr.errors import WavasrError
from wavasr.training.config import OptimConfig
from wavasr.training.losses import Loss
from wavasr.training.optimizer import Muon
from wavasr.training.processes import connected

log = logging.getLogger("wavasr")

T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)

_FINAL_SCALE = 0.02  # of the learning rate
_AVERAGE_SHORTEST = 10  # the average covers about a tenth of the steps so far


class Task(pl.LightningModule, Generic[Network]):
    """Trains a network by a weighted sum of losses.

    Args:
        network: what is trained; it knows nothing of losses.
        losses: the terms of the objective.
        optim: the optimiser.
        seed: start of every random choice.
    """

    def __init__(self, network: Network, losses: Sequence[Loss], optim: OptimConfig, seed: int) -> None:
        super().__init__()
        self.network = network
        self.losses = nn.ModuleList(losses)
        self.optim = optim
        self.seed = seed
        self.average = copy.deepcopy(network).requires_grad_(False) if optim.average_decay else None
        self.epoch_losses: list[float] = []
        self.examples: list[tuple[str, str]] = []  # of the last validation: what was said and what was recognised

    @property
    def evaluated(self) -> Network:
        """The network that is validated and saved: the averaged one, where there is an average."""
        return self.average if self.average is not None else self.network

    @property
    def chosen_by(self) -> tuple[str, str]:
        """The logged figures that choose the best epoch: the first, and what decides between equals."""
        raise NotImplementedError

    def outputs(self, batch: Any, generator: torch.Generator) -> Any:
        """What the losses are given for a batch; random choices are drawn from `generator`."""
        raise NotImplementedError

    def audio_s(self, batch: Any) -> float:
        """Seconds of audio in a batch."""
        raise NotImplementedError

    def save(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write the evaluated network as a model file with this record of its training."""
        raise NotImplementedError

    def front_end(self) -> list[nn.Parameter]:
        """Weights with a learning rate of their own, which may stay frozen in the first epochs."""
        return []

    def kernels(self) -> list[nn.Parameter]:
        """Weights that Muon is for."""
        return [p for p in self.network.parameters() if p.ndim == 3]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The weighted sum of the losses.

        Raises:
            WavasrError: it is not finite.
        """
        torch.manual_seed(seed_of(self.seed, self.current_epoch, batch_idx, self.global_rank))  # of dropout
        values = self.objective(batch, self.current_epoch, batch_idx)
        total = self.total(values)
        reported = averaged({**values, "": total})
        if not torch.isfinite(reported[""]):
            raise WavasrError(
                f"the loss is {float(reported[''])} in epoch {self.current_epoch}, batch {batch_idx} (utterances "
                f"{', '.join(batch.ids[:5])} ...); lower optim.lr or set trainer.precision: 32-true"
            )
        self.epoch_losses.append(float(reported[""]))
        nothing = total.new_full((), math.nan)  # else Lightning repeats the value of an earlier batch
        self.log_dict({f"train_{key}": reported.get(key, nothing) for key in self.keys()}, batch_size=1)
        self.log("train_loss", reported[""], prog_bar=True, batch_size=1)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        return total

    def objective(self, batch: Any, epoch: int, batch_idx: int) -> dict[str, Tensor]:
        """The losses by their keys, so that their mean over all processes is that of the whole global batch.

        Processes have different shares of what a loss counts; the gradients, which are averaged over the processes, are
        those of one process that has the whole batch.
        """
        outputs = self.outputs(batch, torch.Generator().manual_seed(seed_of(self.seed, epoch, batch_idx)))
        values = self.values(outputs)
        if not connected():
            return values
        losses = [loss for loss in cast(Sequence[Loss], self.losses) if loss.key in values]
        counts = torch.stack([loss.count(outputs) for loss in losses]).float() * float(batch.counts)
        all_counts = counts.clone()
        torch.distributed.all_reduce(all_counts)
        shares = counts / all_counts.clamp(min=1) * torch.distributed.get_world_size()
        return {loss.key: values[loss.key] * share for loss, share in zip(losses, shares, strict=True)}

    def keys(self) -> list[str]:
        """Of the losses."""
        return [loss.key for loss in cast(Sequence[Loss], self.losses)]

    def values(self, outputs: Any) -> dict[str, Tensor]:
        """Every loss that this batch has, by its key, not weighted."""
        found = {loss.key: loss(outputs) for loss in cast(Sequence[Loss], self.losses)}
        return {key: value for key, value in found.items() if value is not None}

    def total(self, values: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum."""
        terms = [loss.weight * values[loss.key] for loss in cast(Sequence[Loss], self.losses) if loss.key in values]
        return torch.stack(terms).sum()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After each step the average follows the weights."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            step = self.global_step
            decay = min(self.optim.average_decay, (1 + step) / (_AVERAGE_SHORTEST + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)

    def configure_optimizers(self) -> Any:
        """The optimiser with a learning rate of its own for the front end, and no decay of vectors."""
        optim = self.optim
        front_end = {id(p) for p in self.front_end()}
        kernels = {id(p) for p in self.kernels()} if optim.method == "muon" else set()
        groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for p in self.parameters():
            if p.requires_grad:
                groups.setdefault((id(p) in front_end, p.ndim > 1, id(p) in kernels), []).append(p)
        optimizer = Muon(
            [
                {
                    "params": params,
                    "lr": optim.lr * (optim.front_end_lr_scale if is_front else 1.0),
                    "weight_decay": optim.weight_decay * is_matrix,
                    "kernels": is_kernel,
                }
                for (is_front, is_matrix, is_kernel), params in sorted(groups.items())
            ],
            optim.lr,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_scale(step, steps, optim))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """A run that resumes within an epoch does not pass `on_train_epoch_start`."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """In the first epochs the front end stays as it is: nothing below the rest is computed backwards."""
        frozen = self.current_epoch < self.optim.front_end_frozen_epochs
        for parameter in self.front_end():
            parameter.requires_grad_(not frozen)
        self.epoch_losses.clear()


def averaged(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means over all processes, without gradients."""
    mean = torch.stack([value.detach().float() for value in values.values()])
    if connected():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return dict(zip(values, mean, strict=True))


def gathered(mine: dict[str, T]) -> dict[str, T]:
    """What all processes have, by name, each once."""
    if not connected():
        return dict(mine)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return {name: result for part in parts for name, result in part.items()}


def lr_scale(step: int, steps: int, optim: OptimConfig) -> float:
    """The learning rate at a step as a share of the highest: a linear rise, then a cosine.

    The rise takes at most a quarter of all steps, so that a short trial is not all warm-up.
    """
    warmup = min(optim.warmup_steps, steps // 4)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return _FINAL_SCALE + (1 - _FINAL_SCALE) * 0.5 * (1 + math.cos(math.pi * progress))


def seed_of(*numbers: int) -> int:
    """One well-mixed seed out of several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
