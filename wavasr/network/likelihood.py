"""The generative auxiliary loss: a likelihood, in nats per sample, of samples that the network has not seen.

- A causal encoder predicts the next samples from the past (the loss of the WaveNet paper, section 3.4). With a stride
  of 1 that is exactly the next sample; with a stride of n, the next n samples, independent given the past.
- A non-causal encoder would see the answer, so spans of its input are set to zero first, and the samples of those spans
  are predicted from both sides.
- With `bottleneck` nothing is hidden: the samples are reconstructed from what a few channels tell of the last frames
  (Chorowski et al. 2019, arXiv 1901.08810), by a WaveNet that knows the samples before each one.

Samples are quantised by the mu-law (paper, section 2.2); the loss is the cross-entropy of their classes. Given the
encoder's frames they are independent (`predictor: frames`), or a small causal WaveNet goes through a span with the
samples before each one at hand (`predictor: wavenet`): then the frames need to tell only what the past does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.audio.features import mu_law_encode
from wavasr.network.columns import StackWeights, run_columns
from wavasr.network.config import AuxiliaryConfig, EncoderConfig, StageConfig
from wavasr.network.wavenet import Features, GatedBlock, stack_weights

CONTEXT_CHANNELS = 128
OUTPUT_START = 0.1  # of the usual scale of a linear layer's weights
PAST_SAMPLES = 64  # before a span that the span's WaveNet starts with; it sees 63 samples back
SPANS_PER_ASKED = 2  # a WaveNet through every hidden span would cost more than a third of a step
_SPAN_STAGE = StageConfig(channels=32, skip_channels=64, kernel=2, dilations=(1, 2, 4, 8, 16, 32))


class Hidden(NamedTuple):
    """What the encoder may see, and what it is asked for.

    Attributes:
        waveform: (B, S) with the hidden spans at zero.
        utterances: (P,) int64, the utterance of each asked step; a step is `stride` samples.
        steps: (P,) int64, its index in the utterance.
        classes: (P, stride) int64, mu-law classes of its samples.
        clean: (B, S) the samples as they are, without gradient; only the span's WaveNet reads them, each too late to
            tell itself.
    """

    waveform: Tensor
    utterances: Tensor
    steps: Tensor
    classes: Tensor
    clean: Tensor


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
        self.bottleneck: nn.Linear | None = None
        if config.bottleneck:
            self.bottleneck = nn.Linear(widths[-1], config.bottleneck)
            widths, self.hops = [config.bottleneck], self.hops[-1:]
        self.contexts = nn.ModuleList(nn.Linear(width, CONTEXT_CHANNELS) for width in widths)
        self.output: nn.Linear | None = None
        self.wavenet: SpanWaveNet | None = None
        if config.predictor == "wavenet":
            self.wavenet = SpanWaveNet(first.stride, config.levels)
        else:
            self.output = nn.Linear(CONTEXT_CHANNELS, first.stride * config.levels)
            _start_near_uniform(self.output)

    def hide(
        self, waveform: Tensor, lengths: Tensor, generators: torch.Generator | Sequence[torch.Generator] | None = None
    ) -> Hidden:
        """Choose steps to ask for and, for a non-causal encoder, hide their samples.

        A span's WaveNet is asked for every other span.

        Args:
            waveform: (B, S) float32 in [-1, 1].
            lengths: (B,) int64 samples.
            generators: of the random choice; one for each utterance, or one for all.
        """
        steps = -(-waveform.shape[1] // self.stride)
        hidden = self.hide_steps(waveform, self._choose(lengths // self.stride, steps, generators))
        if self.wavenet is None:
            return hidden
        piece, _, _ = _pieces(hidden.utterances, hidden.steps, self.span_steps)
        asked = piece % SPANS_PER_ASKED == 0
        return hidden._replace(
            utterances=hidden.utterances[asked], steps=hidden.steps[asked], classes=hidden.classes[asked]
        )

    def hide_steps(self, waveform: Tensor, asked: Tensor) -> Hidden:
        """Ask for these steps: (B, S) and (B, N) bool, N steps of `stride` samples, the last perhaps not whole."""
        samples = F.pad(waveform, (0, -waveform.shape[1] % self.stride))
        steps = samples.reshape(len(samples), -1, self.stride)  # (B, N, stride)
        silenced = steps.masked_fill(asked[..., None], 0.0).flatten(1)[:, : waveform.shape[1]]
        utterances, indices = asked.nonzero(as_tuple=True)
        clean = waveform.detach().clamp(-1, 1)
        classes = mu_law_encode(steps[utterances, indices].detach().clamp(-1, 1), self.config.levels)
        seen = waveform if self.causal or self.bottleneck is not None else silenced
        return Hidden(seen, utterances, indices, classes, clean)

    def _choose(
        self, whole: Tensor, steps: int, generators: torch.Generator | Sequence[torch.Generator] | None
    ) -> Tensor:
        """Which steps are asked for, only whole ones: (B,) whole steps -> (B, N) bool."""
        if generators is None or isinstance(generators, torch.Generator):
            draws = torch.rand(len(whole), steps + 1, generator=generators).to(whole.device)
        else:
            draws = torch.stack([torch.rand(steps + 1, generator=one) for one in generators]).to(whole.device)
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
        context = F.relu(self.context(features, hidden))
        if self.wavenet is not None:
            return cast(Tensor, self.wavenet(context, hidden, self.span_steps))
        assert self.output is not None
        scores: Tensor = self.output(context)  # (P, stride * levels)
        return scores.view(-1, self.stride, self.config.levels)

    def context(self, features: Sequence[Features], hidden: Hidden) -> Tensor:
        """What the frames of all stages, or the bottleneck, tell of each asked step: (P, CONTEXT_CHANNELS)."""
        total = torch.zeros((), device=hidden.steps.device)
        all_frames = [feature.frames.transpose(1, 2) for feature in features]  # (B, T, C) each
        if self.bottleneck is not None:
            all_frames = [self.bottleneck(all_frames[-1])]
        for context, frames, hop in zip(self.contexts, all_frames, self.hops, strict=True):
            frame = hidden.steps * self.stride // hop
            # A causal frame may be used once all its samples lie before the asked ones.
            known = frame - 1 if self.causal else frame
            seen = frames[hidden.utterances, known.clamp(min=0)]  # (P, C)
            total = total + context(seen) * (known >= 0)[:, None]
        return total


class SpanWaveNet(nn.Module):
    """A small causal WaveNet over the samples of hidden spans, conditioned on what the encoder tells of each step."""

    def __init__(self, stride: int, levels: int) -> None:
        super().__init__()
        stage = _SPAN_STAGE
        self.stride, self.levels = stride, levels
        self.past_steps = -(-PAST_SAMPLES // stride)
        self.condition = nn.Linear(CONTEXT_CHANNELS, len(stage.dilations) * 2 * stage.channels)
        self.project = nn.Conv1d(1, stage.channels, 1)
        self.blocks = nn.ModuleList(GatedBlock(stage, d, causal=True, dropout=0.0) for d in stage.dilations)
        self.output = nn.Linear(stage.skip_width, levels)
        _start_near_uniform(self.output)

    def forward(self, context: Tensor, hidden: Hidden, span_steps: int) -> Tensor:
        """Scores of the asked samples' classes, each given the samples before it: (P, C) -> (P, stride, levels)."""
        row, place, first = _pieces(hidden.utterances, hidden.steps, span_steps)
        span_steps = int(place.max()) + 1  # of a causal encoder most asked steps stand alone
        asked = hidden.utterances.new_zeros(len(first), span_steps)
        asked[row, place] = torch.arange(len(row), device=row.device)
        begin = (hidden.steps[first] - self.past_steps) * self.stride - 1  # of the past of each piece
        count = (self.past_steps + span_steps) * self.stride
        scores = self.scores(
            past_of(hidden.clean, hidden.utterances[first], begin, count, self.levels), context[asked]
        )  # (R, span_steps * stride, levels)
        return scores.view(len(first), span_steps, self.stride, self.levels)[row, place]

    def scores(self, past: Tensor, context: Tensor) -> Tensor:
        """The class of every sample after the first PAST_SAMPLES or so, from the one before it and its context.

        Args:
            past: (R, T) the sample before each, in [-1, 1] by the mu-law.
            context: (R, N, C) of the N steps that are scored.

        Returns:
            (R, N * stride, levels).
        """
        pieces, steps = context.shape[:2]
        blocks = cast(Sequence[GatedBlock], self.blocks)
        told = F.pad(self.condition(context), (0, 0, self.past_steps, 0))  # (R, F, L * 2C), F of the past too
        bias = torch.stack([cast(Tensor, block.dilated.bias) for block in blocks])[:, :, None, None]  # (L, 2C, 1, 1)
        conditions = told.view(pieces, -1, *bias.shape[:2]).permute(2, 3, 1, 0) + bias  # (L, 2C, F, R)
        x = self.project(past[:, None]).permute(1, 2, 0).flatten(1)  # (C, T * R), ordered by time first
        weights = StackWeights(*(weight.to(x.dtype) for weight in stack_weights(blocks)))
        delays = [block.delays for block in blocks]
        skips = run_columns(x, weights, conditions.flatten(2).to(x.dtype), delays, pieces, self.stride)
        skips = skips[:, -steps * self.stride * pieces :].view(len(skips), -1, pieces)  # (S, steps * stride, R)
        scores: Tensor = self.output(F.relu(skips).permute(2, 1, 0))
        return scores


def past_of(clean: Tensor, utterances: Tensor, begin: Tensor, count: int, levels: int) -> Tensor:
    """`count` samples of each utterance from `begin` on, quantised, in [-1, 1] by the mu-law; silence outside it.

    (B, S), (R,), (R,) -> (R, count).
    """
    places = begin[:, None] + torch.arange(count, device=begin.device)
    inside = (places >= 0) & (places < clean.shape[1])
    samples = clean[utterances[:, None], places.clamp(0, clean.shape[1] - 1)] * inside
    return mu_law_encode(samples, levels).to(clean.dtype) * (2 / (levels - 1)) - 1


def _pieces(utterances: Tensor, steps: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring asked steps as pieces of at most `longest`: the piece of each step, its place there, the firsts."""
    number = torch.arange(len(steps), device=steps.device)
    new = torch.ones_like(steps, dtype=torch.bool)
    new[1:] = (utterances[1:] != utterances[:-1]) | (steps[1:] != steps[:-1] + 1)
    run_start = torch.cummax(torch.where(new, number, 0), 0).values
    place = (number - run_start) % longest
    first = place == 0
    return torch.cumsum(first, 0) - 1, place, number[first]


@torch.no_grad()
def _start_near_uniform(output: nn.Linear) -> None:
    """Start at ln(levels) nats; not quite zero, so that the encoder learns from the first step."""
    output.weight *= OUTPUT_START
    output.bias.zero_()
