"""What can be done with a generator's model: speak a recording again, improvise, in one of its voices."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from wavasr.audio.arrays import is_recording, pieces_of
from wavasr.audio.reading import Source
from wavasr.audio.scores import Note, read_midi
from wavasr.errors import WavasrError
from wavasr.files import atomic_bytes
from wavasr.generation.frames import Frames, active_gain, frames_of
from wavasr.generation.improvise import FrameSampler
from wavasr.generation.instrument import Instrument
from wavasr.generation.network import Network
from wavasr.generation.notes import length_s
from wavasr.generation.postfilter import filtered_blocks
from wavasr.generation.sampler import Backend, Sampler

Array = npt.NDArray[np.float32]

VOICED_SHARPNESS = 0.15  # chosen on recordings held out from training; see docs/generation.md
LONGEST_S = 3600.0


class Voice:
    """A generator, ready for use.

    Args:
        network: of a model file.
        temperature: below 1 surer, above 1 rougher.
        backend: "numba", "numpy", or what there is.
    """

    def __init__(self, network: Network, temperature: float = 1.0, backend: Backend = "auto") -> None:
        if not 0.05 <= temperature <= 5:
            raise WavasrError(f"the temperature is {temperature:g}; expected 0.05 to 5")
        self.network, self.config = network, network.config
        self._temperature, self._backend = temperature, backend

    @classmethod
    def load(cls, model: str | Path, temperature: float = 1.0) -> Voice:
        """From a model file or the name of a shipped one.

        Raises:
            ModelError: not a generator's model file, or damaged.
        """
        return cls(Network.read(model), temperature)

    def copy(self, samples: Array, speaker: str | None = None, seed: int = 0) -> Array:
        """A recording (S,) float32 at the model's rate as this voice says it, at the recording's own level."""
        blocks = list(self.copy_blocks(samples, speaker, seed))
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def copy_blocks(self, samples: Array, speaker: str | None = None, seed: int = 0) -> Iterator[Array]:
        """As `copy`, half a second at a time.

        Raises:
            WavasrError: the model is no vocoder, or the recording is shorter than a frame.
        """
        if self.config.condition != "mel":
            does = (
                "plays notes; give --notes FILE" if self.config.condition == "notes" else "improvises; leave --like out"
            )
            raise WavasrError(f"this model speaks no recording again: it {does}")
        if len(samples) < self.config.hop_samples:
            raise WavasrError(f"the recording has {len(samples)} samples; expected {self.config.hop_samples} or more")
        gain = active_gain(samples, self.config.hop_samples)
        frames = frames_of(np.asarray(samples * gain, dtype=np.float32), self.config)
        for block in self.render_blocks(frames, speaker, seed):
            yield np.asarray(block / gain, dtype=np.float32)

    def play_blocks(self, notes: Sequence[Note], seed: int = 0) -> Iterator[Array]:
        """Notes as this instrument plays them, half a second at a time.

        Raises:
            WavasrError: the model plays no notes, or there are too many.
        """
        if self.network.instrument is None:
            raise WavasrError("this model plays no notes; train an instrument with wavasr fit --config piano.yaml")
        count = int(length_s(notes, LONGEST_S) * self.config.sample_rate / self.config.hop_samples)
        frames = Instrument(self.network.instrument).frames(notes, count, self.config)
        yield from self.render_blocks(frames, seed=seed)

    def render_blocks(self, frames: Frames, speaker: str | None = None, seed: int = 0) -> Iterator[Array]:
        """The sound that frames describe, at the active level, half a second at a time."""
        sampler = self._sampler([self.network.speaker(speaker)], [seed])
        yield from filtered_blocks((drawn.samples[0] for drawn in sampler.render([frames])), frames, self.config)

    def render_all(self, sounds: Sequence[Frames], speakers: Sequence[str | None], seeds: Sequence[int]) -> list[Array]:
        """Several sounds side by side: faster together, above all without numba; the same as one by one."""
        sampler = self._sampler([self.network.speaker(name) for name in speakers], seeds)
        blocks = [drawn.samples for drawn in sampler.render(sounds)]
        return [
            np.concatenate(list(filtered_blocks((block[row] for block in blocks), frames, self.config)))
            for row, frames in enumerate(sounds)
        ]

    def improvise(self, seconds: float, speaker: str | None = None, seed: int = 0) -> Array:
        """So many seconds out of nothing, at the active level."""
        return np.concatenate(list(self.improvise_blocks(seconds, speaker, seed)))

    def improvise_blocks(self, seconds: float, speaker: str | None = None, seed: int = 0) -> Iterator[Array]:
        """As `improvise`, a frame at a time.

        Raises:
            WavasrError: the model needs to be told what to say, or the time is none.
        """
        check_seconds(seconds)
        number = self.network.speaker(speaker)
        count = max(1, round(seconds * self.config.sample_rate / self.config.hop_samples))
        if self.config.condition == "notes":
            raise WavasrError("this model is an instrument: it needs notes to play (--notes FILE)")
        if self.config.condition == "mel":
            if self.network.improviser is None:
                raise WavasrError("this model is a vocoder: it needs a recording to speak again (--like FILE)")
            frames = FrameSampler(*self.network.improviser, number, seed, self._temperature)
            yield from self.render_blocks(frames.frames(count, self.config), speaker, seed)
            return
        sampler = self._sampler([number], [seed])
        for drawn in sampler.improvise(count):
            yield drawn.samples[0]

    def _sampler(self, speakers: Sequence[int], seeds: Sequence[int]) -> Sampler:
        sharpness = VOICED_SHARPNESS if self.config.condition in ("mel", "notes") else 0.0
        return Sampler(self.network, speakers, seeds, self._temperature, sharpness, self._backend)


def generate(
    model: str | Path | None = None,
    seconds: float = 5.0,
    *,
    like: Source | npt.ArrayLike | None = None,
    notes: str | Path | Sequence[Note] | None = None,
    sample_rate: int | None = None,
    speaker: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> tuple[Array, int]:
    """Make sound with a generative WaveNet.

    Args:
        model: a model file or the name of a shipped one; None: `default_model`.
        seconds: how long to improvise; without meaning with `like` and `notes`.
        like: a recording to speak again: a path, the bytes of a file, or samples, (S,) float or int16.
        notes: what an instrument is to play: a MIDI file, or notes.
        sample_rate: of `like`, where it is samples, in Hz; the model's where not given.
        speaker: whose voice, of a model with several; the first where not given.
        seed: start of the random choices; the same seed gives the same sound.
        temperature: below 1 surer, above 1 rougher.

    Returns:
        Samples (T,) float32 and their rate. `Voice` gives them block by block.

    Raises:
        WavasrError: no such model or speaker, a recording that cannot be read, a model that cannot do it.
    """
    voice = Voice.load(model or default_model(like is not None, notes is not None), temperature)
    rate = voice.config.sample_rate
    if notes is not None:
        played = read_midi(notes) if isinstance(notes, str | Path) else notes
        return audible(np.concatenate(list(voice.play_blocks(played, seed)))), rate
    if like is None:
        return audible(voice.improvise(seconds, speaker, seed)), rate
    given_rate = sample_rate if sample_rate is not None or is_recording(like) else rate
    samples = np.concatenate(list(pieces_of(like, given_rate, rate, LONGEST_S)) or [np.zeros(0, np.float32)])
    return audible(voice.copy(samples, speaker, seed)), rate


def default_model(is_like: bool, is_notes: bool) -> str:
    """The shipped generator that speaks recordings again, plays notes, or improvises."""
    return "voices" if is_like else "piano" if is_notes else "violin"


def check_seconds(seconds: float) -> None:
    """Raise a WavasrError unless something of that length can be made."""
    if not 0.01 <= seconds <= LONGEST_S:
        raise WavasrError(f"the length is {seconds:g} s; expected 0.01 to {LONGEST_S:g}")


def audible(samples: Array) -> Array:
    """Samples within -1 and 1."""
    return np.clip(samples, -1, 1)


def write_sound(path: str | Path, samples: Array, sample_rate: int) -> None:
    """Write 16-bit WAV; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, audible(samples), sample_rate, format="WAV", subtype="PCM_16")
    with atomic_bytes(path) as stream:
        stream.write(buffer.getvalue())
