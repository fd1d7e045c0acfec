"""A lecture on WaveNet in figures: one page that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.reading import load_audio
from wavasr.audio.source import printable
from wavasr.errors import ModelError
from wavasr.files import atomic_text
from wavasr.pictures import lessons, voices
from wavasr.pictures.network import network
from wavasr.pictures.page import embedded, render
from wavasr.pictures.recording import draw, likelihood, spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wavasr.generation.reader import Reader

PAGE = "lecture.html"
_LONGEST_S = 6.0
_SHORTER_S = 3.0  # where each frame is looked at
_RATE_HZ = 16000
_SENTENCE = "The old man walked slowly, down to the river."


@dataclass(frozen=True)
class Chapter:
    """A figure and what is to be seen in it.

    Attributes:
        drawn: it holds lines and becomes SVG; else images and PNG.
        sounds: the addresses of recordings, by name.
    """

    title: str
    text: str
    figure: Figure
    drawn: bool = True
    sounds: Mapping[str, str] = field(default_factory=dict)


def lecture(
    directory: str | Path,
    source: str | Path | None = None,
    model: str | Path = "default",
    voice: str | Path = "kathleen",
) -> Path:
    """Write lecture.html about a recording.

    Args:
        directory: made where it does not exist.
        source: a recording of speech, of which the first six seconds are used; None: a sentence that the voice says.
        model: the recogniser that is shown.
        voice: the vocoder that is shown.

    Returns:
        The page.

    Raises:
        WavasrError: the recording or the model cannot be used.
        OSError: the page cannot be written.
    """
    if source is None:
        samples = np.concatenate(list(_reader(voice).blocks(_SENTENCE)))
    else:
        samples = load_audio(source, _RATE_HZ)[: round(_LONGEST_S * _RATE_HZ)]
    found = chapters(samples, model) + voice_chapters(samples, voice)
    pictures = [embedded(chapter.figure, chapter.drawn) for chapter in found]
    content = {
        "title": "WaveNet in figures",
        "chapters": list(zip(found, pictures, strict=True)),
        "source": f"“{_SENTENCE}”" if source is None else printable(Path(source).name),
        "model": str(model),
    }
    path = Path(directory) / PAGE
    with atomic_text(path) as stream:
        stream.write(render("lecture.html.j2", content))
    return path


def chapters(samples: NDArray[np.float32], model: str | Path) -> list[Chapter]:
    """The chapters about samples (S,) at 16 kHz."""
    from wavasr.network.recognizer import load_model

    module = load_model(model)
    _check_rate(model, module.sample_rate)
    tiers = spoken(samples, model)
    short = samples[: round(_SHORTER_S * _RATE_HZ)]
    text = " ".join(word.word for word in tiers.words if word.end_s <= _SHORTER_S)
    made: list[tuple[str, str, Callable[[], Figure], bool]] = [
        ("Sampling", _SAMPLING, lambda: lessons.sampling(samples, _RATE_HZ), True),
        ("256 classes: the mu-law", _MU_LAW, lambda: lessons.mu_law(samples), True),
        ("Causal and dilated convolutions", _STACKS, lessons.stacks, True),
        ("The gated unit", _GATE, lambda: lessons.gate(module, samples), True),
        ("Spectrogram and mel spectrum", _MEL, lambda: lessons.mel(samples, _RATE_HZ), False),
        ("A network and its receptive field", _NETWORK, lambda: network(module), True),
        ("Recognition: posteriors and the greedy path", _CTC, lambda: lessons.posteriors(module, short, text), False),
        ("All of it", _ALL, lambda: draw(samples, _RATE_HZ, tiers), False),
    ]
    return [Chapter(title, text, draw_it(), drawn) for title, text, draw_it, drawn in made]


def voice_chapters(samples: NDArray[np.float32], voice: str | Path) -> list[Chapter]:
    """The chapters about generation: what a vocoder expects of the samples, and how it says them."""
    from wavasr.evaluation.report.render import sound_address
    from wavasr.generation.expectation import expected
    from wavasr.generation.voice import Voice
    from wavasr.network.generator import load_generator

    speaking = Voice.load(voice)
    _check_rate(voice, speaking.config.sample_rate)
    names = speaking.config.speakers
    found = expected(speaking.network, samples)
    sounds = {"the recording": samples}
    for name in _apart(names) or [""]:
        sounds[f"in the voice {name}" if name else "as the network says it"] = speaking.copy(samples, name or None)
    players = {name: sound_address(sound, _RATE_HZ) for name, sound in sounds.items()}
    chapters = [
        Chapter("A distribution over the next sample", _SOFTMAX, voices.distributions(found, _RATE_HZ), False),
        Chapter("How hard it is to predict", _NATS, likelihood(found.samples, _RATE_HZ, found.nats), False),
        Chapter("The network speaks", _COPY, voices.spectrograms(sounds, _RATE_HZ), False, players),
    ]
    chapters.append(_text_chapter(voice))
    if len(names) > 2:
        chapters.append(Chapter("Speakers as vectors", _SPEAKERS, voices.speakers(load_generator(voice))))
    return chapters


def _check_rate(model: str | Path, rate: int) -> None:
    if rate != _RATE_HZ:
        raise ModelError(f"{model}: works at {rate} Hz; the lecture takes models of {_RATE_HZ} Hz")


def _reader(voice: str | Path) -> Reader:
    """The voice, which reads; where it reads no text, the shipped one."""
    from wavasr.generation.speaking import DEFAULT_VOICE, reader_of
    from wavasr.network.files import GENERATOR_FORMAT, read_header

    return reader_of(str(voice) if "speech" in read_header(voice, GENERATOR_FORMAT) else DEFAULT_VOICE)


def _text_chapter(voice: str | Path) -> Chapter:
    from wavasr.evaluation.report.render import sound_address

    reader = _reader(voice)
    samples = np.concatenate(list(reader.blocks(_SENTENCE)))
    player = {f"“{_SENTENCE}”": sound_address(samples, _RATE_HZ)}
    return Chapter("From text to speech", _TEXT, voices.text_to_speech(reader, _SENTENCE, samples), False, player)


def _apart(names: Sequence[str], most: int = 3) -> list[str]:
    """A few of many names, far from each other in the list."""
    count = min(most, len(names))
    return [names[i * len(names) // count] for i in range(count)]


_SAMPLING = (
    "A recording is a list of numbers: here 16,000 a second, each one of 65,536 values. Between the samples the curve "
    "is known exactly, as long as it holds nothing above half the rate. WaveNet predicts these numbers one by one; "
    "our recogniser reads them as they are, without a spectrogram."
)
_MU_LAW = (
    "A softmax over 65,536 values would be wasteful, so amplitudes are companded, then cut into 256 classes: fine "
    "steps where it is quiet, coarse ones where it is loud. Of 256 even steps speech uses few, since most samples are "
    "small; of the mu-law's it uses most, so the same number of classes says more and quiet sounds survive."
)
_STACKS = (
    "A causal convolution sees the past only. Stacked with kernel 2, it reaches back one sample for each layer; with "
    "dilations 1, 2, 4, 8 the reach doubles with each layer at the same cost. A recogniser may see the future too: "
    "the same blocks with taps on both sides."
)
_GATE = (
    "Each block makes two convolutions of its input: one says what (tanh), the other how much of it passes (sigmoid). "
    "The dots are inputs of the first block of the shipped recogniser on this recording. At the right one channel: "
    "the gate opens and closes with the sound."
)
_MEL = (
    "A spectrogram shows which frequencies a short stretch of sound holds. The ear tells low tones apart better than "
    "high ones; triangles on the mel scale average the spectrum accordingly, so that 40 numbers do for 257. Harmonics "
    "blur, formants stay. It is what vocoders are conditioned on."
)
_NETWORK = (
    "The recogniser's stages pool as they go, so that a few blocks reach seconds. Below: how much one output changes "
    "when one sample changes, computed by the gradient. It ends where the formula for the receptive field says."
)
_CTC = (
    "At every frame the network gives each label a probability; most frames say blank. The greedy path takes the best "
    "label of each frame; repeats are merged and blanks removed. A search over a lexicon and a language model reads "
    "the same probabilities and finds words."
)
_ALL = (
    "Waveform, spectrogram, mel spectrum and pitch, with the words that the recogniser found and the phones at the "
    "places where they were said."
)
_SOFTMAX = (
    "A generative WaveNet does not predict a sample but a probability for each of 256 classes, given all samples "
    "before. A sound is made by drawing one class after another. The darker the blue, the surer the network: it "
    "expects the pulses of a voice one pitch period after the last ones, and knows least in hisses."
)
_NATS = (
    "The logarithm of the probability that the network gave to what came measures how well it knows speech: the fewer "
    "nats, the better. The same measure trains the network, and a recogniser can be trained by it beside its labels."
)
_COPY = (
    "The blocks take a condition: here the mel spectrum, voicing and pitch of each hundredth of a second of the "
    "recording, and a vector for the speaker. The network then draws all samples anew. With another speaker's vector "
    "it says the same in another voice."
)
_TEXT = (
    "Text is a condition, too. Its words become phones, from a lexicon or by its example; a network finds how long "
    "each phone lasts, the melody and the mel spectrum of each hundredth of a second, with what it learnt from an hour "
    "of recordings. These are the conditions that the WaveNet knows: it draws the samples as if it spoke a recording "
    "again. One sample depends on all of it, from the comma at the end of the phrase to the sample before."
)
_SPEAKERS = (
    "Each speaker of the training set has a vector of learnt numbers; nothing else in the network is the speaker's "
    "own. Seen from the side where they differ most, like voices lie together, though nobody told the network who is "
    "like whom."
)
