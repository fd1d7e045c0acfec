"""A recording as waveform, spectrogram, mel spectrum and pitch, with the words and phones that were said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.features import hz_to_mel, mel_filters
from wavasr.audio.reading import audio_duration_s, load_audio
from wavasr.audio.source import is_pipe, printable
from wavasr.errors import TextError, WavasrError
from wavasr.pictures.style import BLUE, GREEN, GREY, INK, ORANGE, SPECTRUM, image, label, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wavasr.decoding.times import Word

SHOWN_S = 20.0  # of a longer recording, by default
RATE_HZ = 16000
_WINDOW_S, _HOP_S = 0.025, 0.005
_RANGE_DB = 70.0
_MEL_BANDS = 80
_VOICED = 0.6  # normalised autocorrelation
_HUM_DB = 30.0  # what lies so far below the loudest frame has no pitch of a voice
_SMALLEST_PT = 4.0  # letters

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tiers:
    """Words and phones with their times, in seconds from the picture's start."""

    words: Sequence[Word] = ()
    phones: Sequence[Word] = ()


@styled
def recording(
    source: str | Path,
    *,
    model: str | Path | None = "default",
    text: str | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Figure:
    """A figure of a recording, or of a stretch of it.

    Args:
        source: the sound file.
        model: recognises (or, with `text`, aligns) the words; None: the picture has no words.
        text: what was said in the stretch.
        start_s: where the stretch begins.
        end_s: where it ends; by default at most 20 s later.

    Raises:
        WavasrError: the recording cannot be read, or the text not aligned.
    """
    samples, title = stretch(source, start_s, end_s)
    if model is None:
        return draw(samples, RATE_HZ, title=title, start_s=start_s)
    try:
        tiers = spoken(samples, model, text)
    except TextError as error:
        raise TextError(f"{printable(source)}: {str(error).removeprefix('-: ')}") from error
    return draw(samples, RATE_HZ, tiers, title=title, start_s=start_s)


def stretch(
    source: str | Path, start_s: float = 0.0, end_s: float | None = None, sample_rate: int = RATE_HZ
) -> tuple[Floats, str]:
    """The samples (S,) of a stretch, at most 20 s where no end is given, and a title.

    Raises:
        WavasrError: there is no such stretch, or the recording cannot be read.
    """
    if is_pipe(source):
        raise WavasrError(f"{printable(source)}: is a pipe, whose length nobody knows; save it to a file first")
    duration_s = audio_duration_s(source)
    end_s = min(duration_s, start_s + SHOWN_S if end_s is None else end_s)
    if not 0 <= start_s < end_s:
        raise WavasrError(
            f"{printable(source)}: from {start_s:g} to {end_s:g} s is no stretch of its {duration_s:.2f} s"
        )
    whole = end_s - start_s > duration_s - 0.01
    part = f"{duration_s:.2f} s" if whole else f"{start_s:g} to {end_s:g} s of {duration_s:.1f} s"
    return load_audio(source, sample_rate, start_s, end_s - start_s), f"{printable(Path(source).name)}, {part}"


def spoken(samples: Floats, model: str | Path, text: str | None = None) -> Tiers:
    """The words in the samples (S,) at 16 kHz and, where the model outputs phones, the phones.

    Raises:
        TextError: the given text cannot be aligned.
    """
    from wavasr.recognition.align import align
    from wavasr.recognition.transcribe import transcribe

    words: Sequence[Word] = ()
    if text is None:
        transcript = transcribe(samples, model, sample_rate=RATE_HZ)
        text, words = transcript.text, transcript.words
        if not text:
            return Tiers()
    try:
        aligned = align(samples, text, model, sample_rate=RATE_HZ)
    except TextError:
        if not words:
            raise
        return Tiers(words)
    return Tiers(words or aligned.words, aligned.units if aligned.unit_kind == "phones" else ())


@styled
def draw(
    samples: Floats, sample_rate: int, tiers: Tiers | None = None, *, title: str = "", start_s: float = 0.0
) -> Figure:
    """The picture of samples (S,); `start_s` is what the time axis begins with."""
    tiers = tiers or Tiers()
    end_s = start_s + len(samples) / sample_rate
    rows = [1.0, 2.0, 2.0, 1.2] + ([0.28 * (bool(tiers.words) + bool(tiers.phones)) + 0.1] if tiers.words else [])
    figure = new_figure(min(24.0, max(9.0, 1.6 * (end_s - start_s))), 1.5 * sum(rows))
    axes = figure.subplots(len(rows), 1, sharex=True, height_ratios=rows)
    _waveform(axes[0], samples, sample_rate, start_s)
    spectrogram = power_spectrogram(samples, sample_rate)
    _spectrogram(axes[1], spectrogram, sample_rate, (start_s, end_s), figure)
    _mel(axes[2], spectrogram, sample_rate, (start_s, end_s), figure)
    _pitch(axes[3], samples, sample_rate, start_s)
    axes[0].set_xlim(start_s, end_s)
    if tiers.words:
        _tiers(axes[4], tiers, start_s)
    axes[-1].set_xlabel("time (s)")
    figure.suptitle(title, fontweight="bold")
    return figure


@styled
def likelihood(samples: Floats, sample_rate: int, nats: Floats, *, title: str = "", start_s: float = 0.0) -> Figure:
    """Over the spectrogram, how hard each sample was to predict.

    Args:
        samples: (S,).
        sample_rate: samples per second.
        nats: (S,) minus the logarithm of the probability that a model gave each sample; NaN where it gave none.
        title: above the picture.
        start_s: what the time axis begins with.
    """
    duration_s = len(samples) / sample_rate
    figure = new_figure(min(24.0, max(9.0, 1.6 * duration_s)), 5.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1.4])
    span = (start_s, start_s + duration_s)
    _spectrogram(upper, power_spectrogram(samples, sample_rate), sample_rate, span, figure)
    hop = round(0.005 * sample_rate)
    whole = nats[: len(nats) // hop * hop].reshape(-1, hop)
    times = start_s + (np.arange(len(whole)) + 0.5) * hop / sample_rate
    defined = np.isfinite(whole)
    sums = np.where(defined, whole, 0.0).sum(axis=1)
    means = np.where(defined.any(axis=1), sums / np.maximum(1, defined.sum(axis=1)), np.nan)
    lower.plot(times, means, color=BLUE, linewidth=1)
    mean = float(np.nanmean(nats))
    lower.axhline(mean, color=ORANGE, linewidth=1, linestyle="--", label=f"mean {mean:.2f} nats")
    lower.legend(loc="upper right")
    label(lower, "time (s)", "nats per sample\n(mean of 5 ms)")
    figure.suptitle(title, fontweight="bold")
    return figure


def power_spectrogram(
    samples: Floats, sample_rate: int, window_s: float = _WINDOW_S, hop_s: float = _HOP_S
) -> NDArray[np.float64]:
    """Power under a Hann window, frame t centred on its hop: (S,) -> (bins, frames)."""
    window, hop = round(window_s * sample_rate), round(hop_s * sample_rate)
    size = 1 << (window - 1).bit_length()
    frames = max(1, len(samples) // hop)
    padded = np.pad(samples.astype(np.float64), ((window - hop) // 2, window))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:frames]
    return np.asarray(np.abs(np.fft.rfft(windows * np.hanning(window), size)).T ** 2)


def decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Below the loudest, from -70 dB up."""
    level = 10 * np.log10(np.maximum(power, 1e-12))
    return np.asarray(np.maximum(level - level.max(), -_RANGE_DB))


def _waveform(axes: Axes, samples: Floats, sample_rate: int, start_s: float) -> None:
    """Minimum and maximum of each pixel's samples, so that no peak is lost."""
    step = max(1, len(samples) // 4000)
    groups = samples[: len(samples) // step * step].reshape(-1, step)
    times = start_s + (np.arange(len(groups)) + 0.5) * step / sample_rate
    if step == 1:
        axes.plot(times, groups[:, 0], color=BLUE, linewidth=0.6)
    else:
        axes.fill_between(times, groups.min(axis=1), groups.max(axis=1), color=BLUE, linewidth=0.3)
    peak = float(np.abs(samples).max(initial=1e-3))
    axes.set_ylim(-1.1 * peak, 1.1 * peak)
    axes.set_ylabel("amplitude")


def _spectrogram(axes: Axes, power: NDArray[np.float64], rate: int, span: tuple[float, float], figure: Figure) -> None:
    picture = image(axes, decibels(power), (*span, 0.0, rate / 2000), cmap=SPECTRUM)
    axes.set_ylabel("frequency (kHz)")
    figure.colorbar(picture, ax=axes, label="dB", pad=0.01, fraction=0.03, aspect=12)


def _mel(axes: Axes, power: NDArray[np.float64], rate: int, span: tuple[float, float], figure: Figure) -> None:
    bands = mel_filters(rate, 2 * (len(power) - 1), _MEL_BANDS).astype(np.float64) @ power
    picture = image(axes, decibels(bands), (*span, 0.0, float(hz_to_mel(rate / 2))), cmap=SPECTRUM)
    ticks = [hz for hz in (0, 250, 500, 1000, 2000, 4000, 8000) if hz <= rate / 2]
    axes.set_yticks([float(hz_to_mel(hz)) for hz in ticks], [f"{hz / 1000:g}" for hz in ticks])
    axes.set_ylabel("mel bands (kHz)")
    figure.colorbar(picture, ax=axes, label="dB", pad=0.01, fraction=0.03, aspect=12)


def _pitch(axes: Axes, samples: Floats, sample_rate: int, start_s: float) -> None:
    from wavasr.audio.pitch import track_pitch

    hop = round(0.01 * sample_rate)
    pitch = track_pitch(samples, sample_rate, hop)
    times = start_s + (np.arange(len(pitch.voicing)) + 0.5) * hop / sample_rate
    power = (samples[: len(times) * hop].reshape(-1, hop) ** 2).mean(axis=1)
    voiced = (pitch.voicing >= _VOICED) & (power > power.max(initial=0.0) * 10 ** (-_HUM_DB / 10))
    hz = np.where(voiced, pitch.hz(sample_rate), np.nan)
    axes.plot(times, hz, ".", color=GREEN, markersize=3)
    axes.set_ylabel("pitch (Hz)")
    if voiced.any():
        axes.set_ylim(0.7 * float(np.nanmin(hz)), 1.15 * float(np.nanmax(hz)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)


def _tiers(axes: Axes, tiers: Tiers, start_s: float) -> None:
    """Boxes with the words and, below, the phones."""
    rows: list[tuple[str, Sequence[Word], str, float]] = [("words", tiers.words, "#cfe3f1", 10.0)]
    if tiers.phones:
        rows.append(("phones", tiers.phones, "#fbe6c0", 7.5))
    inches = axes.figure.get_figure(root=True).get_figwidth() - 1.5
    points = 72 * inches / (axes.get_xlim()[1] - axes.get_xlim()[0])  # to a second
    for row, (_, words, colour, size) in enumerate(rows):
        low = len(rows) - 1 - row
        for word in words:
            left, right = start_s + word.start_s, start_s + word.end_s
            axes.fill_between([left, right], low + 0.06, low + 0.94, color=colour, edgecolor=GREY, linewidth=0.5)
            room = points * (word.end_s - word.start_s) / (0.7 * max(1, len(word.word)))  # of a letter
            if room >= _SMALLEST_PT:
                middle, size_pt = (left + right) / 2, min(size, room)
                axes.text(middle, low + 0.5, word.word, size=size_pt, ha="center", va="center", color=INK, clip_on=True)
    axes.set_ylim(0, len(rows))
    axes.set_yticks([len(rows) - 0.5 - i for i in range(len(rows))], [name for name, *_ in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
