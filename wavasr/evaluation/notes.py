"""Whether an instrument plays the notes that it is given.

The judge that finds the pitches knows how many notes sound, not which. Recordings of the same notes are judged
likewise, which says how far to trust the judge.

Source: Klapuri 2006, "Multiple fundamental frequency estimation by summing harmonic amplitudes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wavasr.audio.reading import load_audio
from wavasr.audio.scores import HIGHEST_KEY, LOWEST_KEY, Note, read_midi
from wavasr.corpora.manifest import Utterance
from wavasr.errors import CorpusError, counted
from wavasr.evaluation.generation import Measure, density_measure
from wavasr.generation.expectation import expected
from wavasr.generation.voice import Voice

Array = npt.NDArray[np.float32]

_SPECTRUM = 1 << 15
_HARMONICS = 8
_WIDTH = 0.015  # of a harmonic's frequency: where its peak is looked for
_LEFT = 0.1  # of a harmonic, where its note has been found
_STEP_CENTS = 10
_STRIKE_S, _LONGEST_S, _SHORTEST_S = 0.03, 0.3, 0.1
_CENTS = 50


@dataclass(frozen=True)
class NotesResult:
    """What an instrument plays, beside recordings of the same notes.

    Attributes:
        recordings: how many.
        audio_s: how long together.
        density_bits: of the recordings under the model, per step of a 16-bit sample.
        notes: beginnings of notes, or chords, times the notes that sound there.
        within_50_cents: share of them that is found in what is played.
        natural_within_50_cents: in the recordings.
    """

    recordings: int
    audio_s: float
    density_bits: float
    notes: int
    within_50_cents: float
    natural_within_50_cents: float

    @property
    def verdict(self) -> str:
        """What was done."""
        return f"{counted(self.recordings, 'recording')}, {self.audio_s:.0f} s, played from their notes"

    @property
    def measures(self) -> list[Measure]:
        """The figures for people."""
        found, natural = (f"{100 * one:.1f} %" for one in (self.within_50_cents, self.natural_within_50_cents))
        return [
            density_measure(self.density_bits),
            Measure("notes found", found, natural, f"of {self.notes}, within 50 cents, by their spectra"),
        ]


def evaluate_notes(voice: Voice, utterances: Sequence[Utterance], seed: int = 0) -> NotesResult:
    """Play the MIDI files beside recordings, and compare.

    Raises:
        AudioError: a recording or its notes cannot be read.
        CorpusError: there are none.
    """
    if not utterances:
        raise CorpusError("no recordings with notes; give a manifest with some")
    rate = voice.config.sample_rate
    counts, seconds, bits = np.zeros(3, np.int64), 0.0, []
    for utterance in utterances:
        notes = read_midi(utterance.audio.with_suffix(".mid"))
        natural, played = load_audio(utterance.audio, rate), np.concatenate(list(voice.play_blocks(notes, seed)))
        counts += [found_notes(natural, notes, rate)[0], *found_notes(played, notes, rate)]
        bits.append(expected(voice.network, natural, notes=notes).density)
        seconds += len(played) / rate
    return NotesResult(
        recordings=len(utterances),
        audio_s=round(seconds, 2),
        density_bits=float(np.concatenate(bits).mean()),
        notes=int(counts[2]),
        within_50_cents=float(counts[1] / max(1, counts[2])),
        natural_within_50_cents=float(counts[0] / max(1, counts[2])),
    )


def found_notes(samples: Array, notes: Sequence[Note], sample_rate: int) -> tuple[int, int]:
    """Of the notes that sound after each beginning, how many are found, and how many there are."""
    found = total = 0
    beginnings = sorted({note.start_s for note in notes})
    for start_s, next_s in pairwise([*beginnings, beginnings[-1] + 1]):
        asked = [note.hz for note in notes if note.start_s <= start_s + 0.01 < note.end_s - _SHORTEST_S]
        end_s = min(next_s, start_s + _LONGEST_S)
        part = samples[round((start_s + _STRIKE_S) * sample_rate) : round(end_s * sample_rate)]
        if not asked or len(part) < _SHORTEST_S * sample_rate:
            continue
        recognised = np.array(pitches(part, sample_rate, len(asked)))
        total += len(asked)
        found += sum(bool((np.abs(1200 * np.log2(recognised / hz)) <= _CENTS).any()) for hz in asked)
    return found, total


def pitches(samples: Array, sample_rate: int, count: int) -> list[float]:
    """The fundamental frequencies of so many notes that sound together in samples (S,), the clearest first."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), _SPECTRUM))
    spectrum = np.sqrt(spectrum / (spectrum.max() + 1e-12))  # so that weak harmonics count
    cents = np.arange(100 * (LOWEST_KEY - 69), 100 * (HIGHEST_KEY - 69) + 1, _STEP_CENTS)
    candidates = 440.0 * 2 ** (cents / 1200)
    harmonics = candidates[:, None] * np.arange(1, _HARMONICS + 1)  # (N, H)
    inside = harmonics < sample_rate / 2 * 0.95
    weights = (candidates[:, None] + 52) / (harmonics + 320) * inside
    middle = np.where(inside, harmonics, 0) * _SPECTRUM / sample_rate
    reach = np.maximum(1, middle * _WIDTH / 2)
    offsets = np.linspace(-1, 1, 9)
    places = np.rint(middle[..., None] + reach[..., None] * offsets).astype(np.int64)  # (N, H, 9)
    nearness = 1 - 0.3 * np.abs(offsets)
    found: list[float] = []
    for _ in range(count):
        best = int(((spectrum[places] * nearness).max(axis=2) * weights).sum(axis=1).argmax())
        found.append(float(candidates[best]))
        for low, high in zip(middle[best] - 12, middle[best] + 13, strict=True):
            spectrum[max(0, int(low)) : int(high)] *= _LEFT
    return found
