"""Utterances wherever they lie, and their waveforms."""

from __future__ import annotations

from pathlib import Path

from wavasr.audio.reading import Samples, audio_duration_s, load_audio
from wavasr.corpora.base import find_audio
from wavasr.corpora.manifest import Utterance, file_of, read_manifest
from wavasr.corpora.remote import url_of
from wavasr.corpora.shards import reading_bytes, recording_bytes, stretch_of
from wavasr.errors import CorpusError


def read_recordings(path: Path) -> list[Utterance]:
    """The utterances of a manifest or of shards; of a folder its recordings, without texts, the folder their speaker.

    Raises:
        CorpusError: a manifest cannot be used, or a folder holds no recordings.
        AudioError: a recording in a folder cannot be read.
    """
    if url_of(path) or not file_of(path).is_dir():
        return read_manifest(path)
    found = [
        Utterance(file.relative_to(path).as_posix(), file.absolute(), audio_duration_s(file), "", path.absolute().name)
        for file in find_audio(path)
    ]
    if not found:
        raise CorpusError(f"{path}: holds no recordings; give a folder that does, or a manifest")
    return found


def load_utterance(utterance: Utterance, sample_rate: int, to_end: bool = False) -> Samples:
    """The waveform (S,) float32 of one utterance, which may be a part of its file, of a shard or of a URL.

    With `to_end` it ends where its recording does, whatever the manifest says.

    Raises:
        AudioError: as `load_audio`.
    """
    audio, span = utterance.audio, (utterance.offset_s, None if to_end else utterance.duration_s)
    if stretch_of(audio) is None and url_of(audio) is None:
        return load_audio(audio, sample_rate, *span)
    with reading_bytes(audio):
        return load_audio(recording_bytes(audio), sample_rate, *span)
