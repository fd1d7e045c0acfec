"""The generative auxiliary loss: a likelihood, in nats per sample, of samples that the network has not seen.

- A causal encoder predicts the next samples from the past (the loss of the WaveNet paper, section 3.4). With a stride
  of 1 that is exactly the next sample; with a stride of n, the next n samples, independent given the past.
- A non-causal encoder would see the answer, so spans of its input are set to zero before it listens, and the samples
  of those spans are predicted from both sides.

Samples are quantised by the mu-law (paper, section 2.2); the loss is the cross-entropy of their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.audio.features import mu_law_encode
from wavasr.network.config import AuxiliaryConfig, EncoderConfig
from wavasr.network.wavenet import Features

CONTEXT_CHANNELS = 128
OUTPUT_START = 0.1  # of the usual scale of a linear layer's weights


class Hidden(NamedTuple):
    """What the encoder may hear, and what it is asked for.

    Attributes:
        waveform: (B, S) with the hidden spans at zero.
        utterances: (P,) int64, the utterance of each asked step; a step is `stride` samples.
        steps: (P,) int64, its index in the utterance.
        classes: (P, stride) int64, mu-law classes of its samples.
    """

    waveform: Tensor
    utterances: Tensor
    steps: Tensor
    classes: Tensor


class AuxiliaryLoss(nn.Module):
    """Predicts unseen samples from every stage's frames; see the module's docstring."""

    def __init__(self, encoder: EncoderConfig, config: AuxiliaryConfig) -> None:
        super().__init__()
        first = encoder.stages[0]
        self.config = config
        self.causal = encoder.context == "causal"
        self.stride = first.stride
        self.span_steps = max(1, round(config.span_ms / 1000 * encoder.sample_rate / first.stride))
        self.hops = [first.stride]
        for stage in encoder.stages:
            self.hops.append(self.hops[-1] * stage.pool)
        widths = [first.skip_width] + [stage.output_channels for stage in encoder.stages]
        self.contexts = nn.ModuleList(nn.Linear(width, CONTEXT_CHANNELS) for width in widths)
        self.output = nn.Linear(CONTEXT_CHANNELS, first.stride * config.levels)
        with (
            torch.no_grad()
        ):  # starts at ln(levels) nats; not quite zero, so that the encoder learns from the first step
            self.output.weight *= OUTPUT_START
            self.output.bias.zero_()

    def hide(self, waveform: Tensor, lengths: Tensor, generator: torch.Generator | None = None) -> Hidden:
        """Choose steps to ask for and, for a non-causal encoder, hide their samples.

        Args:
            waveform: (B, S) float32 in [-1, 1].
            lengths: (B,) int64 samples.
            generator: of the random choice.
        """
        whole = lengths // self.stride  # only whole steps are hidden
        samples = F.pad(waveform, (0, -waveform.shape[1] % self.stride))
        steps = samples.reshape(len(samples), -1, self.stride)  # (B, N, stride)
        asked = self._choose(whole, steps.shape[1], generator)
        silenced = steps.masked_fill(asked[..., None], 0.0).flatten(1)[:, : waveform.shape[1]]
        heard = waveform if self.causal else silenced
        utterances, indices = asked.nonzero(as_tuple=True)
        classes = mu_law_encode(steps[utterances, indices].detach().clamp(-1, 1), self.config.levels)
        return Hidden(heard, utterances, indices, classes)

    def _choose(self, whole: Tensor, steps: int, generator: torch.Generator | None) -> Tensor:
        """Which steps are asked for: (B,) whole steps -> (B, N) bool."""
        draws = torch.rand(len(whole), steps + 1, generator=generator).to(whole.device)
        positions = torch.arange(steps, device=whole.device)
        inside = positions < whole[:, None]
        if self.causal:
            return (draws[:, :steps] < self.config.hidden_share) & inside & (positions > 0)
        starts = draws[:, :steps] < self.config.hidden_share / self.span_steps
        always = (draws[:, -1] * whole).long()  # every utterance hides at least one span
        starts = starts | (positions == always[:, None])
        covered = F.pad(starts.float(), (self.span_steps - 1, 0))[:, None]
        return (F.max_pool1d(covered, self.span_steps, stride=1)[:, 0] > 0) & inside

    def forward(self, features: Sequence[Features], hidden: Hidden) -> Tensor:
        """Mean negative log-likelihood of the asked samples in nats per sample, a scalar.

        Args:
            features: what `Recognizer.features` gave for `hidden.waveform`.
            hidden: from `hide`.
        """
        if len(hidden.steps) == 0:
            return features[-1].frames.sum() * 0.0
        return F.cross_entropy(self.logits(features, hidden).flatten(0, 1).float(), hidden.classes.flatten())

    def logits(self, features: Sequence[Features], hidden: Hidden) -> Tensor:
        """Scores of the asked samples' classes: (P, stride, levels)."""
        total = torch.zeros((), device=hidden.steps.device)
        for context, feature, hop in zip(self.contexts, features, self.hops, strict=True):
            frame = hidden.steps * self.stride // hop
            # A causal frame may be used once all its samples lie before the asked ones.
            known = frame - 1 if self.causal else frame
            heard = feature.frames.transpose(1, 2)[hidden.utterances, known.clamp(min=0)]  # (P, C)
            total = total + context(heard) * (known >= 0)[:, None]
        scores: Tensor = self.output(F.relu(total))  # (P, stride * levels)
        return scores.view(-1, self.stride, self.config.levels)
