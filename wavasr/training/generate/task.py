"""What a generator's training optimises: the cross-entropy of the next sample's class, nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavasr.errors import WavasrError
from wavasr.network.generator import Generator, save_generator
from wavasr.training.config import OptimConfig
from wavasr.training.generate.config import GenerateConfig
from wavasr.training.generate.data import Crop
from wavasr.training.processes import has_fast_bfloat16
from wavasr.training.task import Task

_TRAIN_WARM_UP = 512  # first samples of a crop, whose past is missing; they are not learnt


class GenerationTask(Task[Generator]):
    """Trains a generator, and keeps the average of its weights."""

    def __init__(self, generator: Generator, config: GenerateConfig) -> None:
        super().__init__(generator, [], OptimConfig(average_decay=config.optim.average_decay), config.seed)
        self.config = config
        self._bits: list[Tensor] = []

    @property
    def chosen_by(self) -> tuple[str, str]:
        """The logged figures that choose the best epoch."""
        return "dev_density_bits", "dev_class_bits"

    def audio_s(self, batch: Crop) -> float:
        """Seconds of audio in a batch."""
        return batch.classes.numel() / self.config.generator.sample_rate

    def save(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write the averaged network as a model file."""
        save_generator(self.evaluated, path, record)

    def class_nats(self, model: Generator, batch: Crop, warm_up: int) -> Tensor:
        """The cross-entropy of each sample after the first `warm_up` of each crop: ((T - warm_up) * B,), time first."""
        condition = model.condition(batch.frames, batch.speaker)
        fast = batch.inputs.is_cuda or has_fast_bfloat16()
        logits = model.forward_columns(batch.inputs, condition, torch.bfloat16 if fast else torch.float32)
        first = warm_up * len(batch.inputs)
        return F.cross_entropy(logits[first:], batch.classes.t().flatten()[first:], reduction="none")

    def training_step(self, batch: Crop, batch_idx: int) -> Tensor:
        """Nats per sample.

        Raises:
            WavasrError: they are not finite.
        """
        warm_up = min(_TRAIN_WARM_UP, batch.classes.shape[1] // 4)
        loss = self.class_nats(self.network, batch, warm_up).mean()
        if not torch.isfinite(loss):
            raise WavasrError(f"the loss is {float(loss.detach())} at step {self.global_step}; lower optim.lr")
        self.epoch_losses.append(float(loss.detach()) / math.log(2))
        self.log("train_bits", loss.detach() / math.log(2), prog_bar=True, batch_size=1)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam; its learning rate by the step."""
        optim = self.config.optim
        adam = torch.optim.Adam(self.network.parameters(), lr=optim.lr, betas=optim.betas)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: optim.scale(step, steps))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def validation_step(self, batch: Crop, batch_idx: int) -> None:
        """Bits of the classes and bits per 16-bit step, of the averaged weights."""
        warm_up = min(self.config.generator.receptive_samples, batch.classes.shape[1] // 2)
        bits = self.class_nats(self.evaluated, batch, warm_up).double() / math.log(2)
        density = batch.density.t().flatten()[warm_up * len(batch.inputs) :].double()
        self._bits.append(torch.stack([bits.sum(), density.sum(), bits.new_tensor(bits.numel())]))

    def on_validation_epoch_end(self) -> None:
        """Sums over all crops, divided once."""
        classes, density, count = torch.stack(self._bits).sum(0).tolist()
        self._bits.clear()
        self.log("dev_class_bits", classes / count, sync_dist=True)  # all processes have the same
        self.log("dev_density_bits", (classes + density) / count, prog_bar=True, sync_dist=True)
