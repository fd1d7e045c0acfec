"""How each note of an instrument sounds, learnt from recordings with their notes: the vocoder can then play a tune."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from wavasr.audio.scores import LOWEST_KEY
from wavasr.generation.instrument import places_of
from wavasr.generation.notes import sounding
from wavasr.network.config import MEL_BANDS
from wavasr.network.instrument import Instrument
from wavasr.training.generate.data import Studio

log = logging.getLogger("wavasr")

_STEPS = 1500
_FRAMES = 500  # of a recording in a step
_LR = 3e-3


class _Lesson:
    """A recording: notes in frames, and the spectra that they became."""

    def __init__(self, studio: Studio, index: int, is_held: bool) -> None:
        utterance = (studio.voices.dev if is_held else studio.voices.train)[index]
        config = studio.config.generator
        mel = studio.recording(utterance).frames.features[:, :MEL_BANDS]
        played = sounding(studio.notes(utterance), len(mel), config.hop_samples / config.sample_rate)
        self.mel = torch.from_numpy(np.ascontiguousarray(mel))
        self.frames = torch.from_numpy(played.frames)
        self.keys = torch.from_numpy(played.keys - LOWEST_KEY)
        self.places = torch.from_numpy(places_of(played))

    def error(self, model: Instrument, first: int, count: int) -> Tensor:
        """Mean absolute error of the log-mel powers of some frames, in nats."""
        own = (self.frames >= first) & (self.frames < first + count)
        target = self.mel[first : first + count]
        said = model(self.keys[own], self.places[own], self.frames[own] - first, len(target))
        error: Tensor = (said - target).abs().mean()
        return error


def train_instrument(studio: Studio, seed: int) -> Instrument:
    """A network that knows how each note sounds."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 3))
    lessons = [_Lesson(studio, index, False) for index in range(len(studio.voices.train))]
    model = Instrument()
    adam = torch.optim.Adam(model.parameters(), lr=_LR)
    for step in range(_STEPS):
        for group in adam.param_groups:
            group["lr"] = _LR * min(1.0, 0.03 + 1.5 * (1 - step / _STEPS))
        lesson = lessons[int(rng.integers(len(lessons)))]
        loss = lesson.error(model, int(rng.integers(max(1, len(lesson.mel) - _FRAMES))), _FRAMES)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    with torch.no_grad():
        held = [_Lesson(studio, index, True) for index in range(len(studio.voices.dev))]
        errors = [float(lesson.error(model, 0, len(lesson.mel))) for lesson in held]
    log.info("notes: spectra of recordings held out are off by %.2f nats (%.1f dB)", *_both(float(np.mean(errors))))
    return model.eval()


def _both(nats: float) -> tuple[float, float]:
    return nats, 10 * nats / np.log(10)
