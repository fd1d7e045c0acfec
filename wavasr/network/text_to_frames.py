"""From phones to the frames that a vocoder speaks: durations, pitch, mel spectrum. Trained here, run by NumPy.

    phones, places (P,) ── embedding ── gated convolutions ──┬── log durations (P,)
                                                             └ repeated for each frame, with the place in the phone
                                                                 ├── gated convolutions ── pitch, voicing (F,)
                                                                 └── + pitch ── gated convolutions ── mel (bands, F)

A small feed-forward network in the manner of FastSpeech 2 (Ren et al. 2020, arXiv 2006.04558), with convolutions for
attention. `wavasr.generation.text_to_frames` computes the same without torch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.network.config import FRAME_PLACES, PHONE_PLACES, SpeechConfig


class SpokenFrames(NamedTuple):
    """What the network says of a batch.

    Attributes:
        log_durations: (B, P) natural logarithms of frames.
        pitch: (B, 2, F) normalised log period, and voicing from 0 to 1.
        mel: (B, bands, F) normalised log-mel spectrum.
    """

    log_durations: Tensor
    pitch: Tensor
    mel: Tensor


class GatedConvolution(nn.Module):
    """x + dropout(a * sigmoid(b)), where a and b are convolutions of x, normalised over its channels."""

    def __init__(self, channels: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation, padding=padding)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T) with (B, 1, T) ones where there is something -> (B, C, T)."""
        normal = self.norm(x.transpose(1, 2)).transpose(1, 2) * mask
        out: Tensor = x + self.dropout(F.glu(self.conv(normal), dim=1))
        return out


class TextToFrames(nn.Module):
    """Durations, pitch and mel spectrum of phones."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.config = config
        width, frame_width, kernel = config.channels, config.frame_channels, config.kernel

        def stack(channels: int, dilations: tuple[int, ...]) -> nn.ModuleList:
            return nn.ModuleList(GatedConvolution(channels, kernel, d, config.dropout) for d in dilations)

        self.phones = nn.Embedding(len(config.phones), width)
        self.places = nn.Linear(PHONE_PLACES, width)
        self.speakers = nn.Embedding(len(config.speakers), width) if config.speakers else None
        self.encoder = stack(width, (1,) * config.layers)
        self.duration = nn.Conv1d(width, 1, 1)
        self.to_pitch = nn.Conv1d(width + FRAME_PLACES, frame_width, 1)
        self.pitch_blocks = stack(frame_width, config.pitch_dilations)
        self.pitch = nn.Conv1d(frame_width, 2, 1)
        self.to_mel = nn.Conv1d(width + FRAME_PLACES + 2, frame_width, 1)
        self.mel_blocks = stack(frame_width, config.mel_dilations)
        self.mel = nn.Conv1d(frame_width, config.bands, 1)

    def forward(
        self,
        phones: Tensor,
        places: Tensor,
        lengths: Tensor,
        indices: Tensor,
        within: Tensor,
        frames: Tensor,
        pitch: Tensor,
        speaker: Tensor | None = None,
    ) -> SpokenFrames:
        """Everything for known durations and pitch, as in training.

        Args:
            phones: (B, P) int64.
            places: (B, P, PHONE_PLACES).
            lengths: (B,) phones of each.
            indices: (B, F) int64, the phone of each frame.
            within: (B, FRAME_PLACES, F) the place of each frame in its phone.
            frames: (B,) frames of each.
            pitch: (B, 2, F) normalised log period and voicing, as the mel spectrum is to have them.
            speaker: (B,) int64, where the network has several.
        """
        mask = _mask(lengths, phones.shape[1])
        x = (self.phones(phones) + self.places(places)).transpose(1, 2)
        if self.speakers is not None and speaker is not None:
            x = x + self.speakers(speaker)[:, :, None]
        for block in self.encoder:
            x = block(x, mask)
        frame_mask = _mask(frames, indices.shape[1])
        repeated = torch.gather(x, 2, indices[:, None].expand(-1, x.shape[1], -1))
        placed = torch.cat([repeated, within], dim=1)
        melody = self.to_pitch(placed)
        for block in self.pitch_blocks:
            melody = block(melody, frame_mask)
        spectrum = self.to_mel(torch.cat([placed, pitch], dim=1))
        for block in self.mel_blocks:
            spectrum = block(spectrum, frame_mask)
        return SpokenFrames(self.duration(x)[:, 0], self.pitch(melody), self.mel(spectrum))


def _mask(lengths: Tensor, longest: int) -> Tensor:
    """(B,) -> (B, 1, longest) of ones up to each length."""
    return (torch.arange(longest, device=lengths.device) < lengths[:, None])[:, None].float()
