"""Text to speech: sentences become phones, phones frames, and a vocoder speaks the frames.

    text -> spoken words -> phones, pauses -> durations, pitch, mel spectrum -> samples
    (`language.spoken`)    (`phrases`)        (`text_to_frames`)               (`voice`)

One model file holds the vocoder and the network from phones to frames. Sound comes sentence by sentence, half a second
at a time, in flat memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from wavasr.archive import Content, is_archive, members_of
from wavasr.audio.pitch import Pitch
from wavasr.config import from_dict, to_dict
from wavasr.errors import ConfigError, ModelError
from wavasr.generation.conversion import Conversion
from wavasr.generation.frames import REFERENCE_LAG, described
from wavasr.generation.network import Network
from wavasr.generation.phrases import Pronounce, Token, Word, arrays, sentences, tokens
from wavasr.generation.text_to_frames import Speech, SpeechScale, SpokenFeatures
from wavasr.generation.voice import Voice
from wavasr.network.config import SpeechConfig
from wavasr.network.files import GENERATOR_FORMAT, HEADER, WEIGHTS, read_arrays, read_header, resolve, write_model

Array = npt.NDArray[np.float32]

PREFIX = "speech."  # of this network's weights in the model file of a vocoder
SLOWEST, FASTEST = 0.5, 2.0
MOST_SEMITONES = 12.0
_SENTENCE_PAUSE_S = 0.15


class Reader:
    """A voice that reads text.

    Args:
        voice: the vocoder.
        speech: from phones to frames.
        pronounce: words to phones.
        speaker: of a vocoder with several speakers, the one who speaks.
        conversion: of the frames, to that speaker.
    """

    def __init__(
        self,
        voice: Voice,
        speech: Speech,
        pronounce: Pronounce,
        speaker: str | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        self.voice = voice
        self._speaker, self._conversion = speaker, conversion
        self._speech = speech
        self._pronounce = pronounce

    @classmethod
    def load(cls, model: str | Path, pronounce: Pronounce) -> Reader:
        """From a model file or the name of a shipped one.

        Raises:
            ModelError: not a generator's model file, one that reads no text, or damaged.
        """
        path = resolve(model)
        header = read_header(path, GENERATOR_FORMAT)
        if "speech" not in header:
            raise ModelError(f"{path.stem}: this model reads no text; train it to with wavasr fit --config speak.yaml")
        own = ((name, values) for name, values in read_arrays(path).items() if name.startswith(PREFIX))
        weights = {name.removeprefix(PREFIX): values for name, values in own}
        try:
            stored = header["speech"]
            scale: dict[str, Any] = {
                key: np.asarray(value, np.float32) if isinstance(value, list) else value
                for key, value in stored["scale"].items()
            }
            speech = Speech(from_dict(SpeechConfig, stored["config"]), weights, SpeechScale(**scale))
        except (KeyError, TypeError, ConfigError) as error:
            raise ModelError(f"{path}: its header is damaged ({error}); train the model again") from error
        return cls(Voice(Network.read(path)), speech, pronounce)

    def spoken_by(self, voices: Voice, speaker: str, own: str) -> Reader:
        """This reader with the voice of another speaker, whose manner its frames get, see `Conversion`.

        Args:
            voices: a vocoder with several speakers, and what it knows of their frames (its improviser).
            speaker: whose voice.
            own: which of its speakers this reader is.

        Raises:
            ModelError: no such speaker, or nothing is known of the speakers' frames.
        """
        known = voices.network.improviser[1] if voices.network.improviser else {}
        if "manners" not in known:
            raise ModelError("nothing is known of the spectra of these voices; train them with improviser.steps")
        here, there = voices.network.speaker(own), voices.network.speaker(speaker)
        manners, lags = known["manners"], known["means"][:, -1]
        conversion = Conversion(manners[here], manners[there], float(lags[there] - lags[here]))
        return Reader(voices, self._speech, self._pronounce, speaker, conversion)

    @property
    def sample_rate(self) -> int:
        """Of the sound."""
        return self.voice.config.sample_rate

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the voices in the model; empty where there is one."""
        return self._speech.config.speakers

    def blocks(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        rate: float = 1.0,
        semitones: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Array]:
        """The sound of a text, block by block: (S,) float32 in [-1, 1].

        Args:
            text: English, of any length; or its lines, which are said as they come.
            speaker: one of `speakers`; None: the first.
            rate: 2 speaks twice as fast.
            semitones: added to the pitch.
            seed: the same seed gives the same sound.

        Raises:
            TextError: nothing in the text can be said.
            ConfigError: a rate or pitch out of range.
            ModelError: no such speaker.
        """
        if not SLOWEST <= rate <= FASTEST:
            raise ConfigError(f"the rate is {rate:g}; expected {SLOWEST:g} to {FASTEST:g}")
        if not abs(semitones) <= MOST_SEMITONES:
            raise ConfigError(
                f"the pitch is {semitones:+g} semitones; expected -{MOST_SEMITONES:g} to {MOST_SEMITONES:g}"
            )
        if self._speaker and speaker not in (None, self._speaker):
            raise ModelError(f"the voice is already that of speaker {self._speaker}, not {speaker}; name one of them")
        number = 0 if self._speaker else self.voice.network.speaker(speaker)
        for index, sentence in enumerate(sentences(text, self._pronounce)):
            if index:
                yield np.zeros(round(_SENTENCE_PAUSE_S * self.sample_rate), np.float32)
            frames = self.features(sentence, number, rate, semitones)
            pitch = Pitch(np.exp(frames.log_lag) * np.float32(REFERENCE_LAG), frames.voicing)
            described_frames = described(frames.log_mel, pitch, self.voice.config)
            for block in self.voice.render_blocks(described_frames, self._speaker or speaker, seed + index):
                yield np.clip(block, -1.0, 1.0)

    def sentence(self, text: str) -> tuple[list[Token], SpokenFeatures]:
        """The phones of a text's first sentence, and what the vocoder is told of them.

        Raises:
            TextError: nothing in the text can be said.
        """
        words = next(sentences(text, self._pronounce))
        return tokens(words), self.features(words, 0, 1.0, 0.0)

    def features(self, sentence: list[Word], speaker: int, rate: float, semitones: float) -> SpokenFeatures:
        """What the vocoder is told of a sentence."""
        phones, places = arrays(tokens(sentence), self._speech.config.phones)
        found = self._speech(phones, places, speaker, rate, semitones)
        if self._conversion is None:
            return found
        log_lag = found.log_lag + np.float32(self._conversion.log_lag)
        return replace(found, log_mel=self._conversion.spectrum(found.log_mel), log_lag=log_lag)


def save_reader(
    path: Path,
    vocoder: str | Path,
    config: SpeechConfig,
    weights: Mapping[str, npt.NDArray[Any]],
    scale: SpeechScale,
    record: Mapping[str, Any],
) -> None:
    """Write a model file that holds a vocoder and the network that reads; it appears whole or not at all.

    Raises:
        ModelError: the vocoder cannot be read.
    """
    source = resolve(vocoder)
    header = read_header(source, GENERATOR_FORMAT)
    kept = {name: values for name, values in read_arrays(source).items() if not name.startswith(PREFIX)}
    stored = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(scale).items()}
    header["speech"] = {"config": to_dict(config), "scale": stored, "metadata": dict(record)}
    kept |= {PREFIX + name: values for name, values in weights.items()}
    halved = {
        name: np.asarray(values, np.float16 if values.ndim > 1 else np.float32, order="C")
        for name, values in kept.items()
    }
    # What makes up frames for the vocoder goes with it.
    parts = dict[str, Content](members_of(source)) if is_archive(source) else {}
    parts.pop(HEADER, None)
    write_model(path, header, {**parts, WEIGHTS: save(halved)})
