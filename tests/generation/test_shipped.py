"""What ships sounds: measured on recordings that it has not learnt."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wavasr
from wavasr.audio.reading import load_audio
from wavasr.audio.scores import Note
from wavasr.corpora.manifest import read_manifest
from wavasr.errors import ModelError
from wavasr.evaluation.generation import compare, periodicity, spectral_flatness
from wavasr.evaluation.notes import found_notes
from wavasr.generation.frames import active_gain
from wavasr.generation.network import Network
from wavasr.generation.sampler import has_numba
from wavasr.generation.speaking import reader_of
from wavasr.generation.voice import Voice
from wavasr.network.files import asset

needs_numba = pytest.mark.skipif(not has_numba(), reason="without numba it takes too long")


@needs_numba
def test_kathleen_speaks_a_recording_again(shared_data: Path) -> None:
    utterance = read_manifest(shared_data / "kathleen" / "all.jsonl")[-9]
    natural = load_audio(utterance.audio)[:48000]
    natural = np.asarray(natural * active_gain(natural), dtype=np.float32)
    found = compare(natural, Voice.load("kathleen").copy(natural))
    assert found.pitch_hits > 0.85 * found.voiced_frames > 30
    assert found.synthetic_periodicity > 0.85 * found.natural_periodicity
    assert found.distortion_db < 4.5


def test_shipped_generators_are_small() -> None:
    sizes = [
        path.stat().st_size
        for path in asset("").glob("*.wavasr")
        if path.stem in ("kathleen", "voices", "violin", "piano")
    ]
    assert len(sizes) == 4 and sum(sizes) < 8e6


@needs_numba
def test_threads_change_no_byte() -> None:
    code = "import sys, wavasr; sys.stdout.buffer.write(wavasr.speak('Go left.', seed=3)[0].tobytes())"
    found = []
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        found.append(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert found[0] == found[1] and len(found[0]) > 30_000


def test_any_speaker_reads() -> None:
    """The frames of the reader, in the manner and with the mean pitch of another speaker."""
    text = "The old man walked slowly down to the river."
    (_, own), (_, other) = (reader_of(name).sentence(text) for name in ("kathleen", "26"))
    network = Network.read("voices")
    assert network.improviser is not None
    lags = network.improviser[1]["means"][:, -1]
    assert np.allclose(other.log_mel.mean(axis=1), own.log_mel.mean(axis=1), atol=1e-3)
    assert np.abs(other.log_mel - own.log_mel).mean() > 0.3
    assert np.allclose(other.log_lag - own.log_lag, lags[network.speaker("26")] - lags[network.speaker("kathleen")])
    with pytest.raises(
        ModelError, match=r"nobody: no such model file; .*; speakers of voices, which read, too: 1088, "
    ):
        reader_of("nobody")
    with pytest.raises(ModelError, match="already that of speaker 26, not 1088"):
        next(reader_of("26").blocks(text, "1088"))


@needs_numba
def test_the_violin_plays_tones() -> None:
    sound = Voice.load("violin").improvise(3.0)
    assert spectral_flatness(sound) < 0.08 and periodicity(sound, 16000) > 0.5
    assert 0.01 < sound.std() < 0.4  # about as loud as the recordings were brought to


@needs_numba
def test_the_piano_plays_the_notes_that_it_is_given() -> None:
    keys = (60, 64, 67, 72, 71, 67, 65, 62, 60)
    notes = [Note(0.4 * index, 0.4 * index + 0.38, key, 0.65) for index, key in enumerate(keys)]
    sound, rate = wavasr.generate(notes=notes)
    found, asked = found_notes(sound, notes, rate)
    assert asked == len(keys) and found >= asked - 2
    assert 0.01 < sound.std() < 0.2
