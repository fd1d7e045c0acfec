"""How each note of an instrument sounds, as mel spectra: powers of notes add up.

`wavasr.generation.instrument` runs it in NumPy. A vocoder sounds the spectra.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.audio.scores import HIGHEST_KEY, LOWEST_KEY
from wavasr.network.config import MEL_BANDS, NOTE_PLACES

_WIDTH = 96


class Instrument(nn.Module):
    """From keys and how they were struck to the log-mel spectra of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Embedding(HIGHEST_KEY - LOWEST_KEY + 1, _WIDTH)
        self.place = nn.Linear(NOTE_PLACES, _WIDTH)
        self.second = nn.Linear(_WIDTH, _WIDTH)
        self.output = nn.Linear(_WIDTH, MEL_BANDS)
        self.floor = nn.Parameter(torch.full((MEL_BANDS,), -18.0))
        with torch.no_grad():
            self.output.bias.fill_(-10.0)

    def forward(self, keys: Tensor, places: Tensor, frames: Tensor, count: int) -> Tensor:
        """Log-mel powers of so many frames.

        Args:
            keys: (N,) int64 from the piano's lowest on.
            places: (N, NOTE_PLACES), see `generation.instrument.places_of`.
            frames: (N,) int64, the frame of each.
            count: of frames.

        Returns:
            (count, bands).
        """
        x = F.relu(self.key(keys) + self.place(places))
        power = torch.exp(self.output(F.relu(self.second(x))))
        return torch.log(torch.exp(self.floor).repeat(count, 1).index_add(0, frames, power))
