"""Figures of a generator at work: what it expects, how hard a recording is for it, what it makes of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import AudioError
from wavasr.generation.expectation import Expected, expected
from wavasr.generation.frames import REFERENCE_LAG
from wavasr.generation.network import Network
from wavasr.generation.phrases import PAUSE
from wavasr.generation.reader import Reader
from wavasr.pictures.network import is_generator
from wavasr.pictures.recording import decibels, likelihood, power_spectrogram, stretch
from wavasr.pictures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    SPECTRUM,
    image,
    label,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]

_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)


@styled
def likelihood_of(source: str | Path, model: str | Path, *, start_s: float = 0.0, end_s: float | None = None) -> Figure:
    """Over the spectrogram of a recording, how hard its samples are for a model.

    Args:
        source: the sound file.
        model: a generator, or a recogniser beside whose file the likelihood of its training lies.
        start_s: where the stretch begins that is shown.
        end_s: where it ends; by default at most 20 s later.

    Raises:
        WavasrError: the recording or the model cannot be read.
    """
    if is_generator(model):
        network = Network.read(model)
        rate = network.config.sample_rate
        samples, title = stretch(source, start_s, end_s, rate)
        try:
            found = expected(network, samples)
        except AudioError as error:
            raise AudioError(f"{source}: {error}") from error
        samples, nats = found.samples, found.nats
    else:
        from wavasr.network.files import resolve
        from wavasr.network.inpainting import load_likelihood, sample_nats

        learnt = load_likelihood(resolve(model))
        rate = learnt.encoder.config.sample_rate
        samples, title = stretch(source, start_s, end_s, rate)
        nats = sample_nats(learnt, samples)
    title = f"{title}: {float(np.nanmean(nats)) / np.log(2):.2f} bits a sample"
    return likelihood(samples, rate, nats, title=title, start_s=start_s)


@styled
def distributions(found: Expected, sample_rate: int) -> Figure:
    """The softmax over the classes, sample by sample, and two of its distributions."""
    length = round(0.012 * sample_rate)
    power = np.convolve(found.samples**2, np.ones(length), "same")
    first = int(np.clip(power.argmax() - length // 2, 0, max(0, len(found.samples) - length)))
    part = slice(first, first + length)
    log_probs = found.log_probs(part).T  # (levels, T)
    probabilities = np.exp(log_probs)
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    span = (0.0, 1000 * length / sample_rate)
    picture = image(left, probabilities**0.5, (*span, -0.5, len(probabilities) - 0.5), cmap="Blues", vmin=0)
    times_ms = 1000 * (np.arange(length) + 0.5) / sample_rate
    left.plot(times_ms, found.classes[part], ".", color=RED, markersize=4)
    used = np.flatnonzero(probabilities.max(axis=1) > 0.01)
    low, high = min(used.min(), found.classes[part].min()) - 4, max(used.max(), found.classes[part].max()) + 4
    left.set_ylim(low, high)
    figure.colorbar(picture, ax=left, label="square root of the probability", pad=0.02)
    label(left, "time (ms)", "class", "Expected (blue) and what came (red)")
    entropy = -(probabilities * log_probs).sum(axis=0)
    for column, name, colour in (
        (int(entropy.argmin()), "surest", BLUE),
        (int(entropy.argmax()), "least sure", ORANGE),
    ):
        text = f"{name} sample: {entropy[column] / np.log(2):.1f} bits"
        right.plot(np.arange(len(probabilities)), 100 * probabilities[:, column], color=colour, label=text)
    right.set_xlim(low, high)
    right.set_ylim(0, 1.35 * 100 * float(probabilities[:, [entropy.argmin()]].max()))
    right.legend(loc="upper right", fontsize=9)
    label(right, "class", "probability (%)", "Two of the distributions")
    return figure


@styled
def text_to_speech(reader: Reader, text: str, samples: Floats) -> Figure:
    """How a sentence becomes sound: phones with their durations, pitch, mel spectrum, samples (S,).

    Raises:
        TextError: nothing in the text can be said.
    """
    found, features = reader.sentence(text)
    config = reader.voice.config
    hop_s = config.hop_samples / config.sample_rate
    ends = np.cumsum(features.durations) * hop_s
    figure = new_figure(10, 6.6)
    rows = figure.subplots(4, 1, sharex=True, height_ratios=[0.5, 1.1, 1.6, 1.2])
    for token, end, frames in zip(found, ends, features.durations, strict=True):
        rows[0].axvline(end, color=GREY, linewidth=0.6)
        name = "" if token.phone == PAUSE else token.phone
        room = 72 * 9 * frames / (0.7 * max(1, len(name)) * features.durations.sum())  # points, of a letter
        rows[0].text(end - frames * hop_s / 2, 0.5, name, ha="center", va="center", size=min(8, room))
    rows[0].set(yticks=[], ylim=(0, 1))
    label(rows[0], "", "", "Phones, as long as the network found")
    times = (np.arange(len(features.log_lag)) + 0.5) * hop_s
    hz = config.sample_rate / (REFERENCE_LAG * np.exp(features.log_lag))
    rows[1].plot(times, hz, color=GREY, linewidth=0.6, label="between voiced phones")
    rows[1].plot(times, np.where(features.voicing > 0.5, hz, np.nan), color=BLUE, label="voiced")
    rows[1].legend(loc="upper right", ncols=2)
    voiced = hz[features.voicing > 0.5] if (features.voicing > 0.5).any() else hz
    rows[1].set_ylim(
        0.8 * float(voiced.min()), 1.35 * float(voiced.max())
    )  # between voiced phones pitch may go anywhere
    label(rows[1], "", "Hz", "Melody")
    span = (0.0, len(times) * hop_s, 0.0, float(features.log_mel.shape[1]))
    image(rows[2], np.maximum(features.log_mel.T, features.log_mel.max() - 12), span, cmap=SPECTRUM)
    label(rows[2], "", "mel band", "Frames: what the WaveNet is told of each hundredth of a second")
    rows[3].plot(np.arange(len(samples)) / config.sample_rate, samples, color=BLUE, linewidth=0.3)
    rows[3].set_xlim(0, span[1])
    label(rows[3], "time (s)", "amplitude", f"Samples: {len(samples):,}, drawn one by one")
    return figure


@styled
def spectrograms(sounds: Mapping[str, Floats], sample_rate: int) -> Figure:
    """Several sounds, one below the other, on one time axis."""
    longest = max(len(samples) for samples in sounds.values()) / sample_rate
    figure = new_figure(10, 1.75 * len(sounds) + 0.4)
    rows = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, samples) in zip(rows, sounds.items(), strict=True):
        span = (0.0, len(samples) / sample_rate)
        image(axes, decibels(power_spectrogram(samples, sample_rate)), (*span, 0.0, sample_rate / 2000), cmap=SPECTRUM)
        label(axes, "", "kHz", name)
    rows[0].set_xlim(0, longest)
    rows[-1].set_xlabel("time (s)")
    return figure


@styled
def speakers(model: Any) -> Figure:
    """The learnt vectors of a generator's speakers on their two main axes: like voices lie close together."""
    vectors = model.conditioning.speakers.weight.detach().double().numpy()  # (N, D)
    names = model.config.speakers
    centred = vectors - vectors.mean(axis=0)
    _, strengths, axes_of = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes_of[:2].T
    share = strengths[:2] ** 2 / (strengths**2).sum()
    figure = new_figure(7.5, 5.5)
    axes = figure.subplots()
    axes.plot(places[:, 0], places[:, 1], "o", color=BLUE, markersize=6)
    axes.margins(0.12)
    reach = 1.24 * (places.max(axis=0) - places.min(axis=0)).clip(1e-6)
    points = places / reach * 72 * (figure.get_size_inches() - 0.8)
    for name, place, (right, up) in zip(names, places, _sides(points, names), strict=True):
        ends = "left" if right > 0 else "right", "bottom" if up > 0 else "top"
        offset = 5 * right, 3 * up
        axes.annotate(name, place, xytext=offset, textcoords="offset points", size=9, color=INK, ha=ends[0], va=ends[1])
    first, second = (f"axis {i + 1} ({100 * part:.0f} % of the variance)" for i, part in enumerate(share))
    label(axes, first, second, f"The vectors of {len(names)} speakers")
    return figure


def _sides(points: NDArray[np.float64], names: Sequence[str]) -> list[tuple[int, int]]:
    """For dots at (N, 2) points, the corner at which each name covers the least of dots and of names before it."""
    taken = [np.concatenate([point - 4, point + 4]) for point in points]  # left, bottom, right, top
    found: list[tuple[int, int]] = []
    for (x, y), name in zip(points, names, strict=True):
        width, height = 5.5 * len(name), 10.0

        def box(side: tuple[int, int], x: float = x, y: float = y, w: float = width, h: float = height) -> Any:
            left, low = (x + 5 if side[0] > 0 else x - 5 - w), (y + 3 if side[1] > 0 else y - 3 - h)
            return np.array([left, low, left + w, low + h])

        found.append(min(((1, 1), (1, -1), (-1, 1), (-1, -1)), key=lambda side: _covered(box(side), taken)))
        taken.append(box(found[-1]))
    return found


def _covered(box: NDArray[np.float64], others: Sequence[NDArray[np.float64]]) -> float:
    """The area of a box (left, bottom, right, top) that others cover, overlaps counted twice."""
    rows = np.array(others)
    sides = np.minimum(box[2:], rows[:, 2:]) - np.maximum(box[:2], rows[:, :2])
    return float(sides.clip(0).prod(axis=1).sum())
