"""Samples in arrays, as callers have them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from wavasr.audio.arrays import checked_samples, is_recording, pieces_of
from wavasr.errors import AudioError

SOUND = np.sin(np.arange(1600) / 10).astype(np.float32) / 2


@pytest.mark.parametrize(
    "samples",
    [SOUND, SOUND.astype(np.float64), SOUND.astype(">f4"), SOUND.tolist(), np.repeat(SOUND, 2)[::2]],
    ids=["float32", "float64", "big-endian", "list", "every-second"],
)
def test_floats_of_any_kind_are_the_same_samples(samples: Any) -> None:
    (piece,) = pieces_of(samples, 16000, 16000, 1.0)
    assert piece.dtype == np.float32
    assert np.allclose(piece, SOUND, atol=1e-7)


def test_integers_of_16_bits_are_divided() -> None:
    assert checked_samples(np.array([-32768, 16384], np.int16)).tolist() == [-1.0, 0.5]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (None, 16000, "NoneType is no recording"),
        (5, 16000, "int is no recording"),
        (SOUND[:, None], 16000, r"shape \(1600, 1\)"),
        (SOUND.astype(np.int32), 16000, "int32"),
        (SOUND * np.nan, 16000, "not numbers"),
        (SOUND, None, "give sample_rate"),
        (SOUND, "16000", "sample_rate is '16000'"),
        (SOUND, 999, "sample_rate is 999"),
        ("talk.wav", 16000, "a file tells its own"),
    ],
)
def test_what_is_no_sound_says_why(samples: Any, rate: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        list(pieces_of(samples, rate, 16000, 1.0))


def test_recordings_and_samples_are_told_apart(tmp_path: Path) -> None:
    assert all(map(is_recording, ("a.wav", tmp_path, b"RIFF", io.BytesIO())))
    assert not any(map(is_recording, (SOUND, [0.0], None, 5)))
    soundfile.write(tmp_path / "a.wav", SOUND, 16000, subtype="FLOAT")
    assert np.array_equal(np.concatenate(list(pieces_of(tmp_path / "a.wav", None, 16000, 1.0))), SOUND)
