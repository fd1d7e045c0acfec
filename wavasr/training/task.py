"""What training optimises: CTC, the generative loss and the frame loss of a recogniser, and the average of its weights.

Every random draw is derived from (seed, epoch, batch), and the averaged weights are part of the checkpoint, so a
resumed run repeats exactly what an uninterrupted one would have done.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.decoding.greedy import greedy
from wavasr.errors import WavasrError
from wavasr.evaluation import metrics
from wavasr.language.text import Units
from wavasr.network.crf import Competitors
from wavasr.network.geometry import frames_of
from wavasr.network.likelihood import AuxiliaryLoss
from wavasr.network.recognizer import Recognizer
from wavasr.network.wavenet import Features
from wavasr.training.config import FitConfig, OptimConfig
from wavasr.training.dataset import IGNORED, Batch
from wavasr.training.optimizer import Muon
from wavasr.training.processes import connected

log = logging.getLogger("wavasr")

T = TypeVar("T")

_AVERAGE_SHORTEST = 10  # the average covers about a tenth of the steps so far


class Heard(NamedTuple):
    """One validation utterance: what was said and heard, and its losses in nats."""

    reference: str
    hypothesis: str
    ctc_nats: float
    crf_nats: float
    labels: int


class RecognitionTask(pl.LightningModule):
    """Losses, optimiser and validation of a `Recognizer`, which itself knows nothing of them.

    Args:
        recognizer: the network.
        config: the run's configuration.
        frame_phones: how many classes the frame loss has; 0 for none.
        texts: the labels of the training texts, where `auxiliary.crf_weight` needs them.
    """

    def __init__(
        self, recognizer: Recognizer, config: FitConfig, frame_phones: int = 0, texts: Sequence[Sequence[int]] = ()
    ) -> None:
        super().__init__()
        self.config = config
        self.recognizer = recognizer
        self.average = copy.deepcopy(recognizer).requires_grad_(False) if config.optim.average_decay else None
        self.auxiliary = AuxiliaryLoss(config.encoder, config.auxiliary) if config.auxiliary.weight else None
        self.frame_head: nn.Module | None = None
        if frame_phones:
            self.frame_head = nn.Conv1d(config.encoder.stages[-1].output_channels, frame_phones, 1)
        self.competitors = Competitors(texts, len(recognizer.units)) if config.auxiliary.crf_weight else None
        self._heard: dict[str, Heard] = {}
        self._label_sums = torch.zeros(len(recognizer.units) + 1, dtype=torch.float64)  # of probabilities; frames
        self.label_priors: list[float] = []  # mean probabilities on the dev set
        self.epoch_losses: list[float] = []

    @property
    def listener(self) -> Recognizer:
        """The network that is validated and saved: the averaged one, where there is an average."""
        return self.average if self.average is not None else self.recognizer

    @property
    def chosen_by(self) -> tuple[str, str]:
        """What chooses the best epoch, and what decides between equals.

        The likeliest label of each frame tells little of a conditional random field, which leaves to the language what
        the language knows.
        """
        error = "dev_per" if self.recognizer.units.is_phones else "dev_wer"
        return ("dev_crf_nats_per_label", error) if self.competitors else (error, "dev_ctc_nats_per_label")

    # --- training ---

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses.

        Raises:
            WavasrError: it is not finite.
        """
        seed = seed_of(self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(seed)  # of dropout
        losses = self._losses(batch, torch.Generator().manual_seed(seed))
        weights = self.config.auxiliary
        total = losses["ctc_nats_per_label"]
        if "auxiliary_nats_per_sample" in losses:
            total = total + weights.weight * losses["auxiliary_nats_per_sample"]
        if self.frame_head is not None:
            total = total + weights.frame_weight * losses["frame_nats_per_frame"]
        if "competitors_nats_per_label" in losses:
            total = total + weights.crf_weight * losses["competitors_nats_per_label"]
        if not torch.isfinite(total):
            raise WavasrError(
                f"the loss is {float(total.detach())} in epoch {self.current_epoch}, batch {batch_idx} (utterances "
                f"{', '.join(batch.ids[:5])} ...); lower optim.lr or set trainer.precision: 32-true"
            )
        self.epoch_losses.append(float(total.detach()))
        self.log_dict({f"train_{name}": value.detach() for name, value in losses.items()}, batch_size=1)
        self.log("train_loss", total.detach(), prog_bar=True, batch_size=1)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        return total

    def _losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        hidden = None
        if batch.ear_frames is not None:
            features = self._features_of_heard(batch)
        else:
            waveform = batch.waveform
            if self.auxiliary is not None:
                hidden = self.auxiliary.hide(waveform, batch.lengths, generator)
                waveform = hidden.waveform
            features = self.recognizer.features(waveform, batch.lengths)
        labels = batch.target_lengths.sum().clamp(min=1)
        log_probs, frames = self.recognizer.head(features[-1]), features[-1].lengths
        losses = {"ctc_nats_per_label": ctc_nats(log_probs, frames, batch).sum() / labels}
        if self.competitors is not None:
            nats = self.competitors(log_probs, frames, batch.targets, batch.target_lengths)
            losses["competitors_nats_per_label"] = nats.sum() / labels
        if self.auxiliary is not None and hidden is not None:
            losses["auxiliary_nats_per_sample"] = self.auxiliary(features, hidden)
        if self.frame_head is not None:
            losses["frame_nats_per_frame"] = self._frame_loss(features[-1], batch.frame_targets)
        return losses

    def _features_of_heard(self, batch: Batch) -> list[Features]:
        assert batch.ear_frames is not None
        recognizer = self.recognizer
        frames = batch.ear_frames.to(recognizer.output.weight.dtype)
        return recognizer.features_above_ear(Features(frames, frames_of(batch.lengths, recognizer.ear_hop_samples)))

    def _frame_loss(self, features: Features, targets: Tensor) -> Tensor:
        assert self.frame_head is not None
        scores = self.frame_head(F.relu(features.frames)).float()  # (B, P, T)
        targets = F.pad(targets, (0, scores.shape[2] - targets.shape[1]), value=IGNORED)
        known = (targets != IGNORED).sum().clamp(min=1)
        return F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum") / known

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After each step the average follows the weights."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            step = self.global_step
            decay = min(self.config.optim.average_decay, (1 + step) / (_AVERAGE_SHORTEST + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.recognizer.parameters()), 1 - decay)

    def configure_optimizers(self) -> Any:
        """The optimiser with a learning rate of its own for the ear, and no decay of vectors."""
        optim = self.config.optim
        ear = {id(p) for p in ear_parameters(self.recognizer)}
        kernels = {id(p) for p in self.recognizer.encoder.parameters() if p.ndim == 3 and optim.method == "muon"}
        groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for p in self.parameters():
            if p.requires_grad:
                groups.setdefault((id(p) in ear, p.ndim > 1, id(p) in kernels), []).append(p)
        optimizer = Muon(
            [
                {
                    "params": params,
                    "lr": optim.lr * (optim.ear_lr_scale if is_ear else 1.0),
                    "weight_decay": optim.weight_decay * is_matrix,
                    "kernels": is_kernel,
                }
                for (is_ear, is_matrix, is_kernel), params in sorted(groups.items())
            ],
            optim.lr,
            optim.betas,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_scale(step, steps, optim))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """A run that resumes within an epoch does not pass `on_train_epoch_start`."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """In the first epochs the ear stays as it is: nothing below the rest is computed backwards."""
        frozen = self.current_epoch < self.config.optim.ear_frozen_epochs
        for parameter in ear_parameters(self.recognizer):
            parameter.requires_grad_(not frozen)
        self.epoch_losses.clear()

    # --- validation ---

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the loss and the greedy transcripts."""
        log_probs, frames = self.listener(batch.waveform, batch.lengths)
        nats = ctc_nats(log_probs, frames, batch)
        crf = nats
        if self.competitors is not None:
            crf = nats + self.competitors(log_probs, frames, batch.targets, batch.target_lengths)
        ctc_nats_of, crf_nats_of = nats.tolist(), crf.tolist()  # one wait for the device, not one an utterance
        units = self.recognizer.units
        for row, name in enumerate(batch.ids):
            heard = log_probs[row, : int(frames[row])].double().exp().cpu()
            self._label_sums += torch.cat([heard.sum(dim=0), torch.tensor([len(heard)])])
            labels = int(batch.target_lengths[row])
            hypothesis = greedy(log_probs[row, : int(frames[row])].float().cpu()).ids
            reference = units.decode(batch.targets[row, :labels].tolist())
            self._heard[name] = Heard(reference, units.decode(hypothesis), ctc_nats_of[row], crf_nats_of[row], labels)

    def on_validation_epoch_end(self) -> None:
        """Counts are summed over the set, also over several processes, and divided once."""
        sums = sum(gathered({str(self.global_rank): self._label_sums}).values(), torch.zeros(()))
        self.label_priors = [round(float(value), 7) for value in sums[:-1] / sums[-1].clamp(min=1)]
        self._label_sums = torch.zeros_like(self._label_sums)
        heard = list(gathered(self._heard).values())
        references, hypotheses = [h.reference for h in heard], [h.hypothesis for h in heard]
        rates = error_rates(references, hypotheses, self.recognizer.units, self.config.units.phone_set)
        labels = max(1, sum(h.labels for h in heard))
        rates["dev_ctc_nats_per_label"] = sum(h.ctc_nats for h in heard) / labels
        if self.competitors is not None:
            rates["dev_crf_nats_per_label"] = sum(h.crf_nats for h in heard) / labels
        self._heard.clear()
        if not any(hypotheses):
            log.warning(
                "epoch %d: the output is all blanks. That is how CTC begins; if it stays so for ten epochs or more, "
                "start from a warm ear (encoder.init) or change optim.lr",
                self.current_epoch,
            )
        for name, rate in rates.items():
            self.log(name, rate, prog_bar=name in self.chosen_by, sync_dist=connected())


def gathered(mine: dict[str, T]) -> dict[str, T]:
    """What all processes have, by name, each once."""
    if not connected():
        return dict(mine)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return {name: result for part in parts for name, result in part.items()}


def error_rates(
    references: Sequence[str], hypotheses: Sequence[str], units: Units, phone_set: int = 0
) -> dict[str, float]:
    """Error rates by the name they are logged under; TIMIT phones are scored on 39."""
    if units.is_phones:
        return {"dev_per": metrics.per(references, hypotheses, 39 if phone_set else None).rate}
    return {"dev_wer": metrics.wer(references, hypotheses).rate, "dev_cer": metrics.cer(references, hypotheses).rate}


def ctc_nats(log_probs: Tensor, frames: Tensor, batch: Batch) -> Tensor:
    """CTC in nats of each utterance: log_probs (B, T, V) and frames (B,) -> (B,) float32.

    Source: Graves et al. 2006, "Connectionist temporal classification".
    """
    return F.ctc_loss(
        log_probs.float().transpose(0, 1),  # (T, B, V)
        batch.targets,
        frames,
        batch.target_lengths,
        blank=Units.blank,
        reduction="none",
    )


def lr_scale(step: int, steps: int, optim: OptimConfig) -> float:
    """The learning rate at a step as a share of the highest: a linear rise, then the config's decay.

    The rise takes at most a quarter of all steps, so that a short trial is not all warm-up.
    """
    warmup = min(optim.warmup_steps, steps // 4)
    if step < warmup:
        return (step + 1) / warmup
    if optim.decay == "inverse_sqrt":
        return math.sqrt(max(warmup, 1) / max(step, 1))
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return optim.final_lr_scale + (1 - optim.final_lr_scale) * 0.5 * (1 + math.cos(math.pi * progress))


def ear_parameters(recognizer: Recognizer) -> list[nn.Parameter]:
    """Everything of the encoder that is not above the ear; nothing where there is no ear."""
    count = recognizer.encoder_config.ear_stages
    above = {id(p) for stage in list(recognizer.encoder.stages)[count:] for p in stage.parameters()}
    return [p for p in recognizer.encoder.parameters() if id(p) not in above] if count else []


def seed_of(*numbers: int) -> int:
    """One well-mixed seed out of several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
