"""What the network from text to frames optimises: durations, pitch and mel spectrum, beside those of the recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavasr.errors import WavasrError
from wavasr.generation.reader import save_reader
from wavasr.generation.text_to_frames import SpeechScale
from wavasr.network.config import SpeechConfig
from wavasr.network.text_to_frames import SpokenFrames, TextToFrames
from wavasr.training.config import OptimConfig
from wavasr.training.processes import has_fast_bfloat16
from wavasr.training.speak.config import SpeakConfig
from wavasr.training.speak.data import VOICED, LessonBatch
from wavasr.training.task import Task

_WEIGHTS = {"mel": 1.0, "duration": 0.3, "pitch": 0.5, "voicing": 1.0}


class SpeakTask(Task[TextToFrames]):
    """Trains the network, and measures how much flatter than the recordings it speaks."""

    def __init__(self, speech: SpeechConfig, scale: SpeechScale, config: SpeakConfig) -> None:
        super().__init__(TextToFrames(speech), [], OptimConfig(average_decay=config.optim.average_decay), config.seed)
        self.config = config
        self.scale = scale
        self._spreads = Spreads()

    @property
    def chosen_by(self) -> tuple[str, str]:
        """The logged figures that choose the best epoch."""
        return "dev_loss", "dev_mel"

    def audio_s(self, batch: LessonBatch) -> float:
        """Seconds of audio in a batch."""
        return float(batch.frames.sum()) / 100

    def save(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write the voice: the vocoder's model and this network, with the spreads of the last validation."""
        scale = replace(
            self.scale,
            duration=self._spreads.duration,
            pitch_spread=self._spreads.pitch,
            mel_spread=self._spreads.mel,
        )
        weights = {name: tensor.detach().cpu().numpy() for name, tensor in self.evaluated.state_dict().items()}
        save_reader(path, self.config.voice, self.network.config, weights, scale, record)

    def training_step(self, batch: LessonBatch, batch_idx: int) -> Tensor:
        """The weighted sum of all losses.

        Raises:
            WavasrError: it is not finite.
        """
        fast = self.device.type == "cuda" or has_fast_bfloat16()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            said = answer(self.network, batch)
        loss = weighted(losses(said, batch))
        if not torch.isfinite(loss):
            raise WavasrError(f"the loss is {float(loss.detach())} at step {self.global_step}; lower optim.lr")
        self.epoch_losses.append(float(loss.detach()))
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=1)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Measure anew."""
        self._spreads = Spreads()
        self.evaluated.eval()

    def validation_step(self, batch: LessonBatch, batch_idx: int) -> None:
        """Each loss of the averaged weights, and how much wider the recordings are."""
        said = answer(self.evaluated, batch)
        found = losses(said, batch)
        self._spreads.add(said, batch)
        for name, value in found.items():
            self.log(f"dev_{name}", value, batch_size=len(batch.phones), prog_bar=name == "mel", sync_dist=True)
        self.log("dev_loss", weighted(found), batch_size=len(batch.phones), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam; its learning rate by the step."""
        optim, steps = self.config.optim, int(self.trainer.estimated_stepping_batches)
        adam = torch.optim.Adam(self.network.parameters(), lr=optim.lr, betas=optim.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: optim.scale(step, steps))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def answer(network: TextToFrames, batch: LessonBatch) -> SpokenFrames:
    """What the network says of a batch, for its true durations and pitch."""
    said = network(
        batch.phones, batch.places, batch.lengths, batch.indices, batch.within, batch.frames, batch.pitch, batch.speaker
    )
    return SpokenFrames(*(part.float() for part in said))


def losses(said: SpokenFrames, batch: LessonBatch) -> dict[str, Tensor]:
    """Means over phones or frames: absolute errors in standard deviations; of log durations, squared errors."""
    phones = (torch.arange(batch.phones.shape[1], device=batch.phones.device) < batch.lengths[:, None]).float()
    frames = (torch.arange(batch.indices.shape[1], device=batch.phones.device) < batch.frames[:, None]).float()
    voiced = frames * (batch.pitch[:, 1] >= VOICED)
    log_durations = torch.log(batch.durations.clamp(min=1))

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        return (values * weights).sum() / weights.sum().clamp(min=1)

    return {
        "mel": mean((said.mel - batch.mel).abs().mean(1), frames),
        "duration": mean((said.log_durations - log_durations) ** 2, phones),
        "pitch": mean((said.pitch[:, 0] - batch.pitch[:, 0]).abs(), voiced),
        "voicing": mean((said.pitch[:, 1] - batch.pitch[:, 1]).abs(), frames),
    }


def weighted(values: Mapping[str, Tensor]) -> Tensor:
    """The objective."""
    return torch.stack([_WEIGHTS[name] * value for name, value in values.items()]).sum()


class Spreads:
    """How much wider the recordings are than what the network says of them; summed over batches."""

    def __init__(self) -> None:
        self._durations = np.zeros(2)
        self._pitch = np.zeros(2)
        self._mel: list[npt.NDArray[np.float64]] = []

    def add(self, said: SpokenFrames, batch: LessonBatch) -> None:
        """Take one batch into account."""
        for row in range(len(batch.phones)):
            phones, frames = int(batch.lengths[row]), int(batch.frames[row])
            found = float(said.log_durations[row, :phones].exp().sum())
            self._durations += [float(batch.durations[row, :phones].sum()), found]
            voiced = batch.pitch[row, 1, :frames] >= VOICED
            if int(voiced.sum()) > 10:
                melodies = (part[row, 0, :frames][voiced] for part in (batch.pitch, said.pitch))
                self._pitch += [float((melody**2).sum()) for melody in melodies]
            variances = [part[row, :, :frames].double().var(1).cpu().numpy() for part in (batch.mel, said.mel)]
            self._mel.append(np.stack(variances))

    @property
    def duration(self) -> float:
        """The sum of the true durations by that of the network's."""
        return float(self._durations[0] / max(self._durations[1], 1e-6))

    @property
    def pitch(self) -> float:
        """The deviation of the true pitch from its mean by that of the network's."""
        return float(np.clip(np.sqrt(self._pitch[0] / max(self._pitch[1], 1e-6)), 1.0, 3.0))

    @property
    def mel(self) -> npt.NDArray[np.float32]:
        """The same of each mel band."""
        true, found = np.mean(self._mel, axis=0)
        return np.asarray(np.clip(np.sqrt(true / np.maximum(found, 1e-6)), 1.0, 1.5), np.float32)
