"""A WaveNet over frames: causal blocks at 100 Hz that give the distribution of the next frame's codes.

    code, pitch code, speaker -- embeddings -- gated blocks, summed skips -- relu -- 1x1 -- relu --+-- 1x1 --> code
                                                                                                  |
                                                            embedding of the code that was drawn -+-- 1x1 --> pitch code

A code stands for a typical spectrum, relative to the speaker's mean; a pitch code for voicing and pitch. A vocoder
sounds the frames: two WaveNets, of which the slow one conditions the fast one.

Source: van den Oord et al. 2016, "WaveNet", arXiv 1609.03499, section 2.6 (context stacks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.network.config import MEL_BANDS, ImproviserConfig, StageConfig
from wavasr.network.wavenet import GatedBlock


class CodeLogits(NamedTuple):
    """Logits of the next frames: (B, codes, T) and, given the codes, (B, pitch_codes, T)."""

    codes: Tensor
    pitch_codes: Tensor


class Improviser(nn.Module):
    """The network, and what its codes stand for. Training sets the tables before the first step."""

    spectra: Tensor  # (codes, bands) relative to the speaker's mean
    pitches: Tensor  # (pitch_codes, 2) voicing, and log lag relative to the speaker's mean
    means: Tensor  # (speakers, bands + 1) of the log-mel bands and of the log lag
    manners: Tensor  # (speakers, 2, bands), see `generation.conversion.manner`

    def __init__(self, config: ImproviserConfig, speakers: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        stage = StageConfig(channels=width, kernel=config.kernel, dilations=config.dilations)
        self.code = nn.Embedding(config.codes, width)
        self.pitch_code = nn.Embedding(config.pitch_codes, width)
        self.speaker = nn.Embedding(speakers, width)
        self.blocks = nn.ModuleList(GatedBlock(stage, d, causal=True, dropout=0.0) for d in config.dilations)
        self.post = nn.Conv1d(width, width, 1)
        self.output = nn.Conv1d(width, config.codes, 1)
        self.drawn = nn.Embedding(config.codes, width)
        self.pitch_output = nn.Conv1d(width, config.pitch_codes, 1)
        self.register_buffer("spectra", torch.zeros(config.codes, MEL_BANDS))
        self.register_buffer("pitches", torch.zeros(config.pitch_codes, 2))
        self.register_buffer("means", torch.zeros(speakers, MEL_BANDS + 1))
        self.register_buffer("manners", torch.zeros(speakers, 2, MEL_BANDS))

    def forward(self, codes: Tensor, pitch_codes: Tensor, speaker: Tensor) -> CodeLogits:
        """Logits of frames 1 to T from those before them: (B, T + 1), (B, T + 1), (B,) int64."""
        known = self.code(codes[:, :-1]) + self.pitch_code(pitch_codes[:, :-1]) + self.speaker(speaker)[:, None]
        x = known.transpose(1, 2)  # (B, C, T)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for block in cast(Sequence[GatedBlock], self.blocks):
            x, skip = block(x, None)
            total = total + skip
        hidden = self.post(F.relu(total))
        given = hidden + self.drawn(codes[:, 1:]).transpose(1, 2)
        return CodeLogits(self.output(F.relu(hidden)), self.pitch_output(F.relu(given)))
