"""`wavasr.speak`: text to sound with a shipped voice or one of your own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavasr.generation.reader import Reader
from wavasr.language.lexicon import Lexicon
from wavasr.language.pronunciation import Pronouncer
from wavasr.network.files import asset

Array = npt.NDArray[np.float32]

DEFAULT_VOICE = "kathleen"


def speak(
    text: str,
    voice: str | Path = DEFAULT_VOICE,
    *,
    speaker: str | None = None,
    rate: float = 1.0,
    semitones: float = 0.0,
    seed: int = 0,
) -> tuple[Array, int]:
    """Say a text.

    Args:
        text: English; numbers, dates, money and abbreviations are read out.
        voice: a voice's model file, or the name of a shipped one.
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
    blocks = list(reader.blocks(text, speaker, rate, semitones, seed))
    return np.concatenate(blocks), reader.sample_rate


def speak_blocks(
    text: str,
    voice: str | Path = DEFAULT_VOICE,
    *,
    speaker: str | None = None,
    rate: float = 1.0,
    semitones: float = 0.0,
    seed: int = 0,
) -> Iterator[Array]:
    """As `speak`, half a second at a time: the first sound comes before the text is through."""
    return reader_of(voice).blocks(text, speaker, rate, semitones, seed)


@functools.lru_cache(maxsize=2)
def reader_of(voice: str | Path) -> Reader:
    """A voice, kept for the next call.

    Raises:
        ModelError: there is no such voice, or it reads no text.
    """
    return Reader.load(voice, Pronunciations())


class Pronunciations:
    """How words are said: as the shipped lexicon has them, and as its words suggest where it lacks one."""

    def __init__(self) -> None:
        self._lexicon = Lexicon.read(asset("default.lexicon.txt"))
        self._guesses: dict[str, tuple[str, ...] | None] = {}

    def __call__(self, word: str) -> tuple[str, ...] | None:
        """The phones of a word in small letters; None where there is no idea."""
        if found := self._lexicon.get(word):
            return tuple(found[0])
        if word not in self._guesses:
            self._guesses[word] = self._pronouncer.pronounce(word)
        return self._guesses[word]

    @functools.cached_property
    def _pronouncer(self) -> Pronouncer:
        return Pronouncer(self._lexicon)
