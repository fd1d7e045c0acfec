"""The figures of the lecture on WaveNet, each computed from a recording, a model or the package's own functions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.features import hz_to_mel, mel_filters
from wavasr.errors import WavasrError
from wavasr.pictures.network import paths
from wavasr.pictures.recording import decibels, power_spectrogram
from wavasr.pictures.style import BLUE, GREEN, GREY, INK, ORANGE, RED, SPECTRUM, image, label, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]

_FULL_SCALE = 32768  # of a 16-bit sample


@styled
def sampling(samples: Floats, sample_rate: int) -> Figure:
    """Samples on the curve that they stand for, and the steps of 16 bits where it is quiet."""
    figure = new_figure(10, 3.4)
    left, right = figure.subplots(1, 2)
    voices = np.diff(np.convolve(samples, np.ones(8) / 8, "same"))  # without hisses above them and hums below
    loudest = int(np.argmax(np.convolve(voices**2, np.ones(400), "same")))
    loud = _window_at(samples, loudest, round(0.006 * sample_rate))
    fine = _interpolated(loud, 16)
    left.plot(1000 * np.arange(len(fine)) / 16 / sample_rate, fine, color=GREY, linewidth=1, label="curve through them")
    left.plot(1000 * np.arange(len(loud)) / sample_rate, loud, "o", color=BLUE, markersize=3.5, label="samples")
    left.legend(loc="upper right", ncols=2)
    left.set_ylim(-1.2 * float(np.abs(fine).max()), 1.5 * float(np.abs(fine).max()))
    label(left, "time (ms)", "amplitude", f"The loudest 6 ms: {len(loud)} samples")
    quiet = np.round(_quiet(samples, round(0.004 * sample_rate)) * _FULL_SCALE)
    right.step(1000 * np.arange(len(quiet)) / sample_rate, quiet, where="mid", color=BLUE, linewidth=1)
    right.grid(axis="y", color="#e0e0e0", linewidth=0.5)
    label(right, "time (ms)", "16-bit value", "The quietest 4 ms: steps of 1/32,768")
    return figure


def _window_at(samples: Floats, middle: int, length: int) -> Floats:
    first = min(max(0, middle - length // 2), max(0, len(samples) - length))
    return samples[first : first + length]


def _quiet(samples: Floats, length: int) -> Floats:
    """The quietest stretch whose samples are not all within two steps."""
    stretches = samples[: len(samples) // length * length].reshape(-1, length)
    peaks = np.abs(stretches).max(axis=1) * _FULL_SCALE
    order = [i for i in np.argsort(peaks) if peaks[i] >= 4]
    return np.asarray(stretches[order[0] if order else 0])


def _interpolated(samples: Floats, times: int) -> Floats:
    """The band-limited curve through samples, `times` as dense; edges are padded by reflection."""
    pad = min(64, len(samples) - 1)
    spectrum = np.fft.rfft(np.pad(samples, pad, mode="reflect"))
    length = (len(samples) + 2 * pad) * times
    if not len(samples) % 2:
        spectrum[-1] /= 2  # half the rate is its own mirror image
    dense = np.fft.irfft(spectrum * times, length)
    return np.asarray(dense[pad * times : (pad + len(samples) - 1) * times + 1], dtype=np.float32)


@styled
def mu_law(samples: Floats) -> Figure:
    """The companding curve with its classes, and how real samples fall into linear and into mu-law classes."""
    import torch

    from wavasr.audio.features import mu_law_decode, mu_law_encode

    figure = new_figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    x = np.linspace(-1, 1, 2001, dtype=np.float32)
    curve = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log1p(255)
    left.plot(x, curve, color=BLUE, label="companded amplitude")
    stairs = mu_law_encode(torch.from_numpy(x), 16).numpy() / 15 * 2 - 1
    left.step(x, stairs, where="mid", color=ORANGE, linewidth=1, label="16 classes (256 in the network)")
    left.legend(loc="upper left", fontsize=8.5)
    label(left, "amplitude", "companded", "f(x) = sign(x) ln(1 + 255 |x|) / ln 256")
    # As loud as the network gets it: the peak at full scale.
    scaled = torch.from_numpy(samples / max(1e-6, float(np.abs(samples).max())))
    classes = mu_law_encode(scaled).numpy()
    linear = np.clip(np.round((scaled.numpy() + 1) / 2 * 255), 0, 255).astype(int)
    for found, colour, name, decoded in (
        (linear, GREY, "linear", linear / 255 * 2 - 1),
        (classes, BLUE, "mu-law", mu_law_decode(torch.from_numpy(classes)).numpy()),
    ):
        counts = np.bincount(found, minlength=256) / len(found)
        bits = -float(np.sum(counts[counts > 0] * np.log2(counts[counts > 0])))
        noise = float(np.mean((decoded - scaled.numpy()) ** 2))
        ratio = 10 * np.log10(float(np.mean(scaled.numpy() ** 2)) / noise)
        text = f"{name}: {bits:.1f} bits of entropy, signal {ratio:.0f} dB over the error"
        right.plot(np.arange(256), 100 * counts, color=colour, linewidth=1.2, label=text)
    right.set_ylim(0, 1.9 * float(100 * np.bincount(classes, minlength=256).max() / len(classes)))
    right.legend(loc="upper left", fontsize=8.5, frameon=True, framealpha=1.0, edgecolor="none")  # over the curve
    label(right, "class", "share of the samples (%)", "The recording in 256 classes")
    return figure


@styled
def stacks() -> Figure:
    """Causal, dilated causal and dilated non-causal convolutions, as paths to one output."""
    figure = new_figure(10, 7.4)
    for axes, title, kernel, dilations, causal in zip(
        figure.subplots(3, 1),
        ("Causal convolutions", "Causal and dilated (WaveNet)", "Dilated, both sides (the recogniser)"),
        (2, 2, 3),
        ((1, 1, 1, 1), (1, 2, 4, 8), (1, 2, 4)),
        (True, True, False),
        strict=True,
    ):
        paths(axes, kernel, dilations, causal=causal)
        axes.set_title(title)
    return figure


@styled
def gate(model: Any, samples: Floats) -> Figure:
    """The product of tanh and sigmoid in the first gated block, as it works on a recording."""
    hidden = _before_first_gate(model, samples)  # (2C, T)
    filters, gates = np.split(hidden, 2)
    channel = int(np.argmax(np.std(filters, axis=1)))
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
    f, g = np.meshgrid(np.linspace(-4, 4, 161), np.linspace(-4, 4, 161))
    # The weights of the filter carry the factor 1/2 of tanh(f / 2).
    surface = left.contourf(f, g, np.tanh(f) / (1 + np.exp(-g)), levels=np.linspace(-1, 1, 21), cmap="RdBu_r")
    points = np.random.default_rng(0).choice(filters.size, min(1500, filters.size), replace=False)
    left.plot(filters.flat[points] / 2, gates.flat[points], ".", color=INK, markersize=1.5, alpha=0.5)
    left.set(xlim=(-4, 4), ylim=(-4, 4))
    figure.colorbar(surface, ax=left, label="output", ticks=[-1, -0.5, 0, 0.5, 1])
    label(left, "filter input", "gate input", "tanh(filter) x sigmoid(gate)")
    middle, half = hidden.shape[1] // 2, min(150, hidden.shape[1] // 2)
    part = slice(middle - half, middle + half)
    opened = 1 / (1 + np.exp(-gates[channel, part]))
    shown = np.tanh(filters[channel, part] / 2)
    steps = np.arange(len(shown))
    right.plot(steps, shown, color=GREY, linewidth=0.8, label="tanh(filter)")
    right.plot(steps, opened, color=ORANGE, linewidth=1.2, label="sigmoid(gate)")
    right.plot(steps, shown * opened, color=BLUE, linewidth=1.0, label="output")
    right.set_ylim(-1.1, 1.6)
    right.legend(loc="upper center", ncols=3)
    label(right, "step of the block", "", f"One channel (number {channel}) on real speech")
    return figure


def _before_first_gate(model: Any, samples: Floats) -> NDArray[np.float32]:
    import torch
    import torch.nn.functional as F

    from wavasr.network.wavenet import normalise_frames

    block = model.encoder.stages[0].blocks[0]
    inputs: list[Any] = []
    hook = block.register_forward_pre_hook(lambda _, given: inputs.append(given))
    try:
        with torch.no_grad():
            model(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
            x, mask = inputs[0][:2]
            padded = F.pad(normalise_frames(x, mask), block.padding)
            hidden = block.dilated(padded)
    finally:
        hook.remove()
    return np.asarray(hidden[0].numpy(), dtype=np.float32)


@styled
def mel(samples: Floats, sample_rate: int, bands: int = 40) -> Figure:
    """A spectrogram, the filters of the mel scale, and what they make of it."""
    power = power_spectrogram(samples, sample_rate)
    filters = mel_filters(sample_rate, 2 * (len(power) - 1), bands)
    span, top = (0.0, len(samples) / sample_rate), sample_rate / 2000
    figure = new_figure(10, 6)
    grid = figure.add_gridspec(2, 2, height_ratios=[1.6, 1])
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    image(left, decibels(power), (*span, 0.0, top), cmap=SPECTRUM)
    label(left, "time (s)", "frequency (kHz)", f"Spectrogram: {len(power)} frequencies")
    image(right, decibels(filters.astype(np.float64) @ power), (*span, 0.0, float(bands)), cmap=SPECTRUM)
    edges = np.linspace(0.0, float(hz_to_mel(sample_rate / 2)), bands + 2)
    hz = [value for value in (250, 500, 1000, 2000, 4000) if value < sample_rate / 2]
    right.set_yticks([float(np.interp(hz_to_mel(value), edges[1:-1], np.arange(bands))) for value in hz])
    right.set_yticklabels([f"{value / 1000:g}" for value in hz])
    label(right, "time (s)", "band (centre in kHz)", f"Mel spectrum: {bands} bands")
    lower = figure.add_subplot(grid[1, :])
    bins = np.linspace(0, top, filters.shape[1])
    for i, colour in zip(range(bands), itertools.cycle((BLUE, ORANGE, GREEN)), strict=False):
        lower.plot(bins, filters[i], color=colour, linewidth=0.9)
    lower.set(xlim=(0, top), ylim=(0, 1.05))
    label(lower, "frequency (kHz)", "weight", "The filters: narrow where the ear tells tones apart")
    return figure


@styled
def posteriors(model: Any, samples: Floats, text: str = "") -> Figure:
    """What the network says at each frame, the greedy path through it, and the labels that the path collapses to."""
    from wavasr.decoding.greedy import greedy

    log_probs, _ = model.infer(samples[None], np.array([len(samples)]))
    probabilities = np.exp(log_probs[0])  # (T, V)
    path, found = probabilities.argmax(axis=1), greedy(log_probs[0])
    if not found.ids:
        raise WavasrError("the model recognises nothing in the recording; give one with speech")
    names = ["blank", *model.units.symbols[1:]]
    rows = [0, *dict.fromkeys(found.ids)]
    hop_s = model.hop_samples / model.sample_rate
    figure = new_figure(11.0, 1.6 + 0.22 * len(rows))
    axes = figure.subplots()
    shown = probabilities[:, rows[::-1]].T
    picture = image(axes, shown, (0.0, len(path) * hop_s, -0.5, len(rows) - 0.5), cmap="Blues", vmin=0, vmax=1)
    axes.set_yticks(range(len(rows)), [names[row] for row in rows[::-1]])
    heights = [len(rows) - 1 - rows.index(unit) if unit in rows else np.nan for unit in path]
    times = (np.arange(len(path)) + 0.5) * hop_s
    axes.plot(times, heights, color=RED, linewidth=0.9, marker="s", markersize=2, label="greedy path")
    figure.colorbar(picture, ax=axes, label="probability", pad=0.01, fraction=0.03)
    collapsed = " ".join(names[unit] for unit in found.ids)
    title = f"Collapsed: {collapsed if len(collapsed) < 90 else collapsed[:87] + '...'}"
    label(axes, "time (s)", "label", title + (f"\nWith lexicon and language model: {text}" if text else ""))
    figure.legend(loc="outside lower right")
    return figure
