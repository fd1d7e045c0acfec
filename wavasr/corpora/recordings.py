"""The waveforms of utterances."""

from __future__ import annotations

from wavasr.audio.reading import Samples, load_audio
from wavasr.corpora.manifest import Utterance
from wavasr.corpora.remote import url_of
from wavasr.corpora.shards import recording_bytes, stretch_of
from wavasr.errors import AudioError


def load_utterance(utterance: Utterance, sample_rate: int, to_end: bool = False) -> Samples:
    """The waveform (S,) float32 of one utterance, which may be a part of its file, of a shard or of a URL.

    With `to_end` it ends where its recording does, whatever the manifest says.

    Raises:
        AudioError: as `load_audio`.
    """
    audio, span = utterance.audio, (utterance.offset_s, None if to_end else utterance.duration_s)
    if stretch_of(audio) is None and url_of(audio) is None:
        return load_audio(audio, sample_rate, *span)
    try:
        content = recording_bytes(audio)
    except OSError as error:
        raise AudioError(f"{audio}: cannot be read ({error.strerror}); check the path") from error
    try:
        return load_audio(content, sample_rate, *span)
    except AudioError as error:  # names the bytes
        raise AudioError(f"{audio}: {str(error).partition(': ')[2] or error}") from error
