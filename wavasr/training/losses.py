"""The terms of the training objective. Each maps what a network computed for a batch to nats, in a stated unit.

A task sums its losses by weight and logs each under its key: `ctc_nats_per_label`, `generative_nats_per_sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.language.text import Units
from wavasr.network.config import AuxiliaryConfig, EncoderConfig
from wavasr.network.crf import Competitors
from wavasr.network.likelihood import AuxiliaryLoss, Hidden
from wavasr.network.wavenet import Features
from wavasr.training.dataset import IGNORED, Batch


class Outputs(NamedTuple):
    """What a recogniser computed for a batch.

    Attributes:
        batch: the utterances.
        features: the frames of every stage; the last feed the CTC head.
        log_probs: (B, T, V) of the labels.
        hidden: the samples that the encoder did not see; None where nothing was hidden.
    """

    batch: Batch
    features: Sequence[Features]
    log_probs: Tensor
    hidden: Hidden | None


class Loss(nn.Module):
    """A term of the objective.

    Attributes:
        key: what it is logged under: its name and its unit.
        weight: what its value is multiplied by in the sum.
    """

    key: str

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Any) -> Tensor | None:
        """The mean over the batch in the key's unit, a scalar; None where the batch has nothing to learn it from."""
        raise NotImplementedError

    def count(self, outputs: Any) -> Tensor:
        """What that mean is divided by: how many of the unit this process has of the batch."""
        raise NotImplementedError


class CtcLoss(Loss):
    """CTC in nats per label."""

    key = "ctc_nats_per_label"

    def forward(self, outputs: Outputs) -> Tensor | None:
        """-log P(labels | samples) over the batch, per label."""
        if not labelled(outputs.batch):
            return None
        nats = ctc_nats(outputs.log_probs, outputs.features[-1].lengths, outputs.batch)
        return nats.sum() / outputs.batch.target_lengths.sum().clamp(min=1)

    def count(self, outputs: Outputs) -> Tensor:
        """Labels."""
        return outputs.batch.target_lengths.sum()


class CrfDenominator(Loss):
    """The denominator of the CRF loss, whose numerator is CTC: see `wavasr.network.crf`."""

    key = "crf_denominator_nats_per_label"

    def __init__(self, weight: float, texts: Sequence[Sequence[int]], labels: int) -> None:
        super().__init__(weight)
        self.competitors = Competitors(texts, labels)

    def nats(self, log_probs: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        """Of each utterance: log_probs (B, T, V), frames (B,) -> (B,)."""
        nats: Tensor = self.competitors(log_probs, frames, batch.targets, batch.target_lengths)
        return nats

    def forward(self, outputs: Outputs) -> Tensor | None:
        """Log-likelihood of all label sequences less that of the labels in the language, per label."""
        if not labelled(outputs.batch):
            return None
        nats = self.nats(outputs.log_probs, outputs.features[-1].lengths, outputs.batch)
        return nats.sum() / outputs.batch.target_lengths.sum().clamp(min=1)

    def count(self, outputs: Outputs) -> Tensor:
        """Labels."""
        return outputs.batch.target_lengths.sum()


class GenerativeLoss(Loss):
    """The likelihood of samples that the encoder has not seen: see `wavasr.network.likelihood`."""

    key = "generative_nats_per_sample"

    def __init__(self, encoder: EncoderConfig, config: AuxiliaryConfig) -> None:
        super().__init__(config.weight)
        self.likelihood = AuxiliaryLoss(encoder, config)

    def forward(self, outputs: Outputs) -> Tensor | None:
        """The mean cross-entropy of the mu-law classes of the hidden (or, of a causal encoder, the next) samples."""
        if outputs.hidden is None:
            return None
        nats: Tensor = self.likelihood(outputs.features, outputs.hidden)
        return nats

    def count(self, outputs: Outputs) -> Tensor:
        """Samples that are asked for."""
        assert outputs.hidden is not None
        return torch.tensor(outputs.hidden.classes.numel(), device=outputs.log_probs.device)


class FrameLoss(Loss):
    """Cross-entropy of each frame's phone, where the phones' times are known."""

    key = "frame_nats_per_frame"

    def __init__(self, weight: float, channels: int, phones: int) -> None:
        super().__init__(weight)
        self.head = nn.Conv1d(channels, phones, 1)

    def forward(self, outputs: Outputs) -> Tensor | None:
        """Per frame with a known phone."""
        last, targets = outputs.features[-1], outputs.batch.frame_targets
        if not targets.shape[1]:
            return None
        scores = self.head(F.relu(last.frames)).float()  # (B, phones, T)
        targets = F.pad(targets, (0, scores.shape[2] - targets.shape[1]), value=IGNORED)
        known = (targets != IGNORED).sum().clamp(min=1)
        return F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum") / known

    def count(self, outputs: Outputs) -> Tensor:
        """Frames with a known phone."""
        return (outputs.batch.frame_targets != IGNORED).sum()


def labelled(batch: Batch) -> bool:
    """Whether a batch has text; one of recordings without text trains by the generative loss alone."""
    return min(batch.places, default=0) >= 0


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
