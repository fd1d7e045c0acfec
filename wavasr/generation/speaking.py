"""`wavasr.speak`: text to sound with a shipped voice or one of your own."""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from wavasr.errors import ModelError
from wavasr.generation.reader import Reader
from wavasr.generation.voice import Voice
from wavasr.language.lexicon import Lexicon
from wavasr.language.pronunciation import pronouncer
from wavasr.network.files import GENERATOR_FORMAT, language_of, read_header, resolve

Array = npt.NDArray[np.float32]

DEFAULT_VOICE = "kathleen"
VOICES = "voices"  # with several speakers
_UNKNOWN_SIZE = 0xFFFFFFFF  # what programs that write to a pipe say


def speak(
    text: str,
    voice: str | Path = DEFAULT_VOICE,
    *,
    speaker: str | None = None,
    rate: float = 1.0,
    semitones: float = 0.0,
    seed: int = 0,
) -> tuple[Array, int]:
    """Say a text; `reader_of(voice).blocks` gives the same block by block, while it is spoken.

    Args:
        text: English; numbers, dates, money and abbreviations are read out.
        voice: a voice's model file, the name of a shipped one, or a speaker of the shipped `voices`.
        speaker: one of the voice's speakers, where it has several.
        rate: 2 speaks twice as fast.
        semitones: added to the pitch.
        seed: the same seed gives the same sound.

    Returns:
        (S,) float32 in [-1, 1], and samples per second.

    Raises:
        TextError: nothing in the text can be said.
        ModelError: there is no such voice or speaker.
        ConfigError: a rate or pitch out of range.
    """
    reader = reader_of(voice)
    return np.concatenate(list(reader.blocks(text, speaker, rate, semitones, seed))), reader.sample_rate


@functools.lru_cache(maxsize=2)
def reader_of(voice: str | Path) -> Reader:
    """A voice, kept for the next call: one that reads, or a speaker of the shipped `voices`.

    These have learnt no text: the default voice reads, in their voice.

    Raises:
        ModelError: there is no such voice, or it reads no text.
    """
    others = read_header(VOICES, GENERATOR_FORMAT)["generator"]["speakers"]
    if Path(voice).is_file() or str(voice) not in others or str(voice) == DEFAULT_VOICE:
        try:
            return Reader.load(voice, Pronunciations())
        except ModelError as error:
            if Path(voice).is_file():
                raise
            raise ModelError(f"{error}; speakers of {VOICES}, which read, too: {', '.join(others)}") from error
    return Reader.load(DEFAULT_VOICE, Pronunciations()).spoken_by(Voice.load(VOICES), str(voice), DEFAULT_VOICE)


class Pronunciations:
    """How words are said: as the shipped lexicon has them, and as its words suggest where it lacks one."""

    def __init__(self) -> None:
        lexicon = language_of(resolve("default")).lexicon
        assert lexicon is not None, "the shipped recogniser has a lexicon"
        self._lexicon = Lexicon.read(lexicon)

    def __call__(self, word: str) -> tuple[str, ...] | None:
        """The phones of a word in small letters; None where there is no idea."""
        if word in self._lexicon:
            return self._lexicon[word][0]
        return _guess(self._lexicon, word)


@functools.lru_cache(maxsize=10_000)  # a server reads words without end
def _guess(lexicon: Lexicon, word: str) -> tuple[str, ...] | None:
    return next(iter(pronouncer(lexicon)(word)), None)


def write_wav(stream: BinaryIO, blocks: Iterable[Array], sample_rate: int) -> None:
    """Write blocks as 16-bit WAV while they come; where the stream can go back its sizes are filled in at the end."""
    coming, start = iter(blocks), stream.tell() if stream.seekable() else None
    first = next(coming, np.zeros(0, np.float32))  # before anything is written: the text may have nothing to say
    stream.write(_header(sample_rate, _UNKNOWN_SIZE))
    size = 0
    for block in itertools.chain([first], coming):
        content = np.round(np.clip(block, -1, 1) * 32767).astype("<i2").tobytes()
        stream.write(content)
        stream.flush()
        size += len(content)
    if start is not None:
        stream.seek(start)
        stream.write(_header(sample_rate, size))


def _header(sample_rate: int, size: int) -> bytes:
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    whole, data = min(size + 36, _UNKNOWN_SIZE), min(size, _UNKNOWN_SIZE)  # 32 bits have no number for more
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + format + struct.pack("<4sI", b"data", data)
