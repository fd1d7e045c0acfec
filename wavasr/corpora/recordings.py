"""The waveforms of utterances."""

from __future__ import annotations

from wavasr.audio.reading import Samples, load_audio
from wavasr.corpora.manifest import Utterance


def load_utterance(utterance: Utterance, sample_rate: int) -> Samples:
    """The waveform (S,) float32 of one utterance, which may be a part of its file.

    Raises:
        AudioError: as `load_audio`.
    """
    return load_audio(utterance.audio, sample_rate, utterance.offset_s, utterance.duration_s)
