"""CTC-CRF: a recogniser that is rewarded for its labels only so far as they beat all other label sequences.

CTC asks that the spoken labels be probable frame by frame. A conditional random field asks that they be more probable
than every other sequence, weighed by how probable each is in the language:

    -log P(y | x) = log sum over z of P(z) p(x, z)  -  log P(y) p(x, y)        p(x, z): the sum over the CTC paths of z

P is a trigram model of the training labels. The network learns what the language does not know by itself, and the blank
needs no penalty when words are searched.

Source: Xiang and Ou 2019, "CRF-based single-stage acoustic modeling with CTC topology", ICASSP; the sum over all
sequences is that of lattice-free MMI (Povey et al. 2016, Interspeech).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavasr.errors import ConfigError
from wavasr.language.text import Units

MOST_LABELS = 128  # a trigram table of so many takes 8 MB
_DISCOUNT = 0.75  # of counts, in favour of what was not seen


class Competitors(nn.Module):
    """What all label sequences reach together, weighed by a trigram model.

    Args:
        sequences: the labels of the training texts, which the model is estimated on.
        labels: how many there are, the blank included.

    Raises:
        ConfigError: there are too many labels.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], labels: int) -> None:
        super().__init__()
        if labels > MOST_LABELS:
            raise ConfigError(
                f"auxiliary.crf_weight needs a table of three labels in a row, and there are {labels} labels; "
                f"set it to 0, or take units of at most {MOST_LABELS}"
            )
        follows, ends = trigrams(sequences, labels)
        fresh = follows.copy()
        fresh[:, np.arange(labels), np.arange(labels)] = 0.0  # an equal label is new only after a blank
        # From label b, after label a without or with a blank since, to label c.
        moves = np.concatenate([fresh, follows]).transpose(1, 0, 2)  # (b, 2a, c)
        log_probs = np.log(np.maximum(np.concatenate([follows, ends[:, :, None]], axis=2), np.finfo(np.float32).tiny))
        for name, values in (("moves", moves), ("ends", ends.T), ("log_probs", log_probs)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)), persistent=False)

    def forward(self, log_probs: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """What CTC lacks of the conditional random field's loss, in nats (B,): the first term above less log P(y).

        Args:
            log_probs: (B, T, V) of labels in frames.
            frames: (B,) of each recording.
            targets: (B, L) labels y.
            lengths: (B,) how many each recording has.
        """
        return self.all_nats(log_probs, frames) + self.language_nats(targets, lengths)

    def all_nats(self, log_probs: Tensor, frames: Tensor) -> Tensor:
        """Log-likelihood of all label sequences together: (B, T, V), (B,) -> (B,)."""
        with torch.autocast(log_probs.device.type, enabled=False):  # sums over a thousand frames
            return _All.apply(log_probs.float(), frames, self.moves, self.ends)  # type: ignore[no-any-return, no-untyped-call]

    def language_nats(self, targets: Tensor, lengths: Tensor) -> Tensor:
        """-log P(labels), the end included: (B, L), (B,) -> (B,)."""
        assert isinstance(self.log_probs, Tensor)
        places = torch.arange(targets.shape[1] + 1, device=targets.device)
        end = self.log_probs.shape[2] - 1
        padded = torch.nn.functional.pad(targets.long(), (2, 1))  # nothing before: the blank's number
        history, previous, label = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
        label = label.masked_fill(places == lengths[:, None], end)
        nats = -self.log_probs[history, previous, label]
        return nats.masked_fill(places > lengths[:, None], 0.0).sum(dim=1)


class _All(torch.autograd.Function):
    """The forward-backward recursions over the states (label before, last label, with or without a blank since).

    States are laid out as (last label b, utterance, 2a): for label a before b, first without a blank since b, then with
    one. Each frame's are scaled to sum to one. The number of the blank stands for "no label yet".
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, frames: Tensor, moves: Tensor, ends: Tensor) -> Tensor:
        batch, count, labels = log_probs.shape
        peaks = log_probs.amax(dim=2)
        probs = (log_probs - peaks[:, :, None]).exp().permute(1, 2, 0).contiguous()[..., None]  # (T, V, B, 1)
        states = log_probs.new_zeros(count + 1, labels, batch, 2 * labels)
        states[0, Units.blank, :, labels + Units.blank] = 1.0
        scales = log_probs.new_ones(count, batch)
        going = torch.arange(count, device=frames.device)[:, None] < frames  # (T, B)
        ragged = (~going).any(dim=1).tolist()
        for t in range(count):
            before, after = states[t], states[t + 1]
            same, since = before[..., :labels], before[..., labels:]
            torch.add(same, since, out=after[..., labels:])
            after[..., labels:].mul_(probs[t, Units.blank])
            torch.add(torch.bmm(before, moves).permute(2, 1, 0), same, out=after[..., :labels])
            after[..., :labels].mul_(probs[t])
            scale = after.sum(dim=(0, 2))
            after.div_(scale[:, None])
            if ragged[t]:
                scale = torch.where(going[t], scale, 1.0)
                after.copy_(torch.where(going[t][:, None], after, before))
            scales[t] = scale
        last = states[count]
        final = ends[:, None, :] * (last[..., :labels] + last[..., labels:])  # (b, B, a)
        nats = final.sum(dim=(0, 2)).log() + (scales.log() + (peaks.T * going)).sum(dim=0)
        ctx.save_for_backward(probs, states, moves, ends, going)
        ctx.ragged = ragged
        return nats

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """How much of the likelihood passes through each label in each frame."""
        probs, states, moves, ends, going = ctx.saved_tensors
        count, labels, batch, _ = probs.shape
        back = moves.transpose(1, 2).contiguous()
        ahead = ends[:, None, :].expand(labels, batch, labels).repeat(1, 1, 2)
        passed = probs.new_zeros(count, labels, batch)
        for t in reversed(range(count)):
            here = states[t + 1] * ahead
            torch.sum(here[..., :labels], dim=2, out=passed[t])
            passed[t, Units.blank] += here[..., labels:].sum(dim=(0, 2))
            label = ahead[..., :labels] * probs[t]
            before = torch.bmm(label.permute(2, 1, 0).contiguous(), back)  # of views it would copy each matrix
            blank = ahead[..., labels:] * probs[t, Units.blank]
            before[..., :labels] += label
            before[..., :labels] += blank
            before[..., labels:] += blank
            before /= before.sum(dim=(0, 2))[:, None]
            ahead = torch.where(going[t][:, None], before, ahead) if ctx.ragged[t] else before
        passed /= passed.sum(dim=1, keepdim=True)
        passed *= going[:, None, :]
        return passed.permute(2, 0, 1) * gradients[0][:, None, None], None, None, None


def trigrams(sequences: Iterable[Sequence[int]], labels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(c | a, b) as (a, b, c) and P(end | a, b) as (a, b), by interpolated absolute discounting.

    The blank's number stands for the start; it follows nothing.
    """
    end = labels
    counts = np.zeros((labels, labels, labels + 1))
    for sequence in sequences:
        padded = np.array([Units.blank, Units.blank, *sequence, end])
        np.add.at(counts, (padded[:-2], padded[1:-1], padded[2:]), 1)
    lower = np.full(labels + 1, 1.0 / labels)
    lower[Units.blank] = 0.0
    for level in (counts.sum(axis=(0, 1)), counts.sum(axis=0), counts):
        total = level.sum(axis=-1, keepdims=True)
        left = _DISCOUNT * (level > 0).sum(axis=-1, keepdims=True)
        seen = total > 0
        share = np.where(seen, left / np.maximum(total, 1), 1.0)
        lower = np.maximum(level - _DISCOUNT, 0.0) / np.maximum(total, 1) + share * lower
    return lower[..., :end], lower[..., end]
