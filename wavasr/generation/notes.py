"""What a generator that plays notes is told of them: pitch and voicing of each frame, and a tone for each sample.

The tone holds the partials of all notes that sound, at the loudness that a string has after so long, its level evened
out. It fixes the pitch; what a piano sounds like the network has to learn. Tones as a guide: Wang et al. 2019, "Neural
source-filter waveform models", arXiv 1904.12088.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wavasr.audio.pitch import Pitch, lag_range
from wavasr.audio.scores import Note
from wavasr.errors import AudioError

Array = npt.NDArray[np.float32]

TAIL_S = 0.6  # that a note sounds after its end
_BEFORE_S = 0.02  # a frame's spectrum sees so much of what follows
_PARTIALS = 8
_HIGHEST_HZ = 7000.0
_INHARMONICITY = 4e-4  # of a piano's middle strings: partial n lies at n f sqrt(1 + B n^2)
_RING_S = 1.5  # after which C4 has lost 8.7 dB; an octave higher half of that
_DAMPING_S = 0.07  # likewise after its end
_QUIET = 0.003
NOTES_SMOOTHING_HZ = 200.0  # of the prediction of an instrument; see `frames.described`
_HIGHEST_NOTE_HZ = 2000.0
_OCTAVE_COST = 0.05  # how much better a period of twice the length has to be: else the network plays an octave lower


class Sounding(NamedTuple):
    """Pairs of a frame and a note that sounds in it, N of them.

    Attributes:
        frames: (N,) int64.
        keys: (N,) int64.
        velocities: (N,).
        ages_s: (N,) since the note's beginning, at the frame's middle.
        released_s: (N,) since its end, below 0 before.
    """

    frames: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    velocities: Array
    ages_s: Array
    released_s: Array

    @property
    def weights(self) -> Array:
        """(N,) about how loud each note is."""
        return _loudness(self.keys, self.velocities, self.ages_s, self.released_s)


def sounding(notes: Sequence[Note], count: int, hop_s: float) -> Sounding:
    """What sounds in each of so many frames."""
    rows, chosen = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for index, note in enumerate(notes):
        first = max(0, int((note.start_s - _BEFORE_S) / hop_s))
        last = min(count, int((note.end_s + TAIL_S) / hop_s))
        rows.append(np.arange(first, max(first, last)))
        chosen.append(np.full(len(rows[-1]), index))
    frames, which = np.concatenate(rows), np.concatenate(chosen)
    table = np.array([note[:4] for note in notes]).reshape(-1, 4)[which]
    middle = (frames + 0.5) * hop_s
    parts = (table[:, 3], middle - table[:, 0], middle - table[:, 1])
    return Sounding(frames, table[:, 2].astype(np.int64), *(part.astype(np.float32) for part in parts))


def _loudness(keys: Any, velocities: Any, ages_s: npt.NDArray[Any], released_s: npt.NDArray[Any]) -> Array:
    ring = _RING_S * 2.0 ** ((60 - keys) / 12)
    decay = np.exp(-np.maximum(ages_s, 0) / ring - np.maximum(released_s, 0) / _DAMPING_S)
    return np.asarray(velocities * decay * (ages_s >= -_BEFORE_S), dtype=np.float32)


def partials_hz(key: int) -> npt.NDArray[np.float64]:
    """Frequencies of a key's partials, one at least."""
    number = np.arange(1, _PARTIALS + 1)
    found = 440.0 * 2 ** ((key - 69) / 12) * number * np.sqrt(1 + _INHARMONICITY * number**2)
    audible: npt.NDArray[np.float64] = found[(found < _HIGHEST_HZ) | (number == 1)]
    return audible


def note_lags(sample_rate: int) -> tuple[int, int]:
    """The shortest and the longest period of notes in samples, both included."""
    return lag_range(sample_rate, highest_hz=_HIGHEST_NOTE_HZ)


def pitch_of(heard: Sounding, count: int, sample_rate: int) -> Pitch:
    """The shortest period after which the notes of each frame come together again, and how well: `count` frames."""
    shortest, longest = note_lags(sample_rate)
    lags = np.arange(shortest, longest + 1)
    keys = np.unique(heard.keys)
    table = np.array([np.cos(2 * np.pi * np.outer(lags / sample_rate, partials_hz(key))).mean(1) for key in keys])
    for key, row in zip(keys, table, strict=True):
        row[lags < 0.6 * sample_rate / partials_hz(key)[0]] = -1.0  # what has hardly moved has not come back
    power = np.square(heard.weights.astype(np.float64))
    together, total = np.zeros((count, len(lags))), np.zeros(count)
    for index, key in enumerate(keys):
        own = heard.keys == key
        loud = np.bincount(heard.frames[own], power[own], count)
        together += loud[:, None] * table[index]
        total += loud
    scores = together / (total + _QUIET**2)[:, None]
    best = (scores - _OCTAVE_COST * np.log2(lags / shortest)).argmax(axis=1)
    voicing = np.clip(scores[np.arange(count), best], 0, 1)
    return Pitch((best + shortest).astype(np.float32), voicing.astype(np.float32))


def guide(notes: Sequence[Note], count: int, hop: int, sample_rate: int) -> Array:
    """The tone of each sample: (count, hop), of unit power where notes sound, 0 where none does."""
    length = count * hop
    tone, power = np.zeros(length, np.float32), np.full(length, _QUIET**2, np.float32)
    for note in notes:
        first = max(0, int(np.ceil(note.start_s * sample_rate)))
        last = min(length, int((note.end_s + TAIL_S) * sample_rate))
        if first >= last:
            continue
        age = np.arange(first, last) / sample_rate - note.start_s
        loud = _loudness(note.key, note.velocity, age, age - (note.end_s - note.start_s))
        waves = partials_hz(note.key)
        tone[first:last] += loud * np.cos(2 * np.pi * np.outer(waves, age)).sum(0) * np.sqrt(2 / len(waves))
        power[first:last] += loud**2
    return np.asarray(tone / np.sqrt(power), dtype=np.float32).reshape(count, hop)


def stretch(notes: Sequence[Note], start_s: float, duration_s: float) -> list[Note]:
    """The notes that sound in a stretch of a recording, their times from its start on."""
    end_s = start_s + duration_s
    return [
        note._replace(start_s=note.start_s - start_s, end_s=note.end_s - start_s)
        for note in notes
        if note.start_s < end_s and note.end_s + TAIL_S > start_s
    ]


def length_s(notes: Sequence[Note], longest_s: float) -> float:
    """How long notes sound.

    Raises:
        AudioError: longer than that, or there are none.
    """
    if not notes:
        raise AudioError("there are no notes; expected one or more")
    found = max(note.end_s for note in notes) + TAIL_S
    if found > longest_s:
        raise AudioError(f"the notes take {found:.0f} s; expected {longest_s:.0f} or fewer")
    return found
