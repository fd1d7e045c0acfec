"""The judge of notes finds those that sound, and no others."""

import numpy as np
import pytest

from wavasr.audio.scores import Note
from wavasr.evaluation.notes import found_notes, pitches
from wavasr.generation.notes import guide

RATE = 16000


def tone(*keys: int, seconds: float = 0.3) -> np.ndarray:
    """Falling partials of keys that are struck together."""
    count = round(100 * seconds)
    rng = np.random.default_rng(0)
    return sum((guide([Note(0.0, 9.0, key, 0.8)], count, 160, RATE).ravel() for key in keys),
               0.05 * rng.standard_normal(count * 160)).astype(np.float32)  # fmt: skip


def cents(hz: float, key: int) -> float:
    return float(1200 * np.log2(hz / (440 * 2 ** ((key - 69) / 12))))


@pytest.mark.parametrize("key", [40, 52, 60, 69, 76, 88])
def test_a_note_is_found(key: int) -> None:
    (found,) = pitches(tone(key), RATE, 1)
    assert abs(cents(found, key)) < 30


def test_a_chord_is_found() -> None:
    found = sorted(pitches(tone(57, 61, 64), RATE, 3))
    assert all(abs(cents(hz, key)) < 40 for hz, key in zip(found, (57, 61, 64), strict=True))


def test_other_notes_are_not_found() -> None:
    notes = [Note(0.3 * index, 0.3 * index + 0.28, key, 0.8) for index, key in enumerate((60, 64, 67, 72))]
    sound = np.concatenate([tone(note.key) for note in notes])
    assert found_notes(sound, notes, RATE) == (4, 4)
    assert found_notes(sound, [note._replace(key=note.key + 1) for note in notes], RATE) == (0, 4)
    assert found_notes(sound[::2], notes, RATE)[0] <= 1  # an octave too high, twice as fast
