"""How well samples of unseen speech are predicted: the generative loss of a trained model beside what needs no network.

    python benchmarks/likelihood.py --manifest dev.jsonl [--model runs/paper/model.wavasr] [--utterances 20]

All in nats per sample of 256 mu-law classes (WaveNet, arXiv 1609.03499, section 2.2). Linear prediction and a causal
model know all samples before; a non-causal model knows both sides of a hidden span of `auxiliary.span_ms`, and within
it the samples before only with `auxiliary.predictor: wavenet`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wavasr.audio.features import mu_law_encode
from wavasr.corpora.manifest import read_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.network.inpainting import load_likelihood, sample_nats

Array = NDArray[np.float64]
LEVELS = 256
ORDER, WINDOW, BLOCK = 16, 480, 80  # coefficients from the 30 ms before each 5 ms
_OUTLIERS = 1e-3  # share of a uniform distribution, so that no class is impossible


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Nats per sample of unseen speech.")
    parser.add_argument("--manifest", type=Path, required=True, metavar="JSONL", help="speech that was not trained on")
    parser.add_argument("--model", type=Path, help="trained with auxiliary.weight above 0")
    parser.add_argument("--utterances", type=int, default=20, metavar="N", help="so many, at equal distances")
    args = parser.parse_args(arguments)
    utterances = read_manifest(args.manifest)
    chosen = utterances[:: max(1, len(utterances) // args.utterances)][: args.utterances]
    model = load_likelihood(args.model) if args.model else None
    rate = model.encoder.config.sample_rate if model else 16000
    waveforms = [load_utterance(utterance, rate) for utterance in chosen]
    rows = {"a uniform distribution": math.log(LEVELS), "how often each class occurs": unigram_entropy(waveforms)}
    rows["linear prediction, order 16, from the 30 ms before"] = mean([linear_prediction_nats(w) for w in waveforms])
    if model:
        rows[args.model.as_posix()] = mean([sample_nats(model, w) for w in waveforms])
    print(f"{len(chosen)} utterances, {sum(map(len, waveforms)) / rate:.0f} s")
    for name, nats in rows.items():
        print(f"{nats:6.3f} nats per sample, {nats / math.log(2):5.2f} bits: {name}")
    return 0


def mean(parts: Sequence[NDArray[np.floating]]) -> float:
    """Over all samples that have a value."""
    return float(np.nanmean(np.concatenate(parts)))


def unigram_entropy(waveforms: Sequence[NDArray[np.float32]]) -> float:
    """Of the classes in this very speech: less than any model that does not look at the samples' neighbours reaches."""
    counts = np.bincount(np.concatenate([classes_of(waveform) for waveform in waveforms]), minlength=LEVELS)
    share = counts[counts > 0] / counts.sum()
    return -float((share * np.log(share)).sum())


def classes_of(waveform: NDArray[np.float32]) -> NDArray[np.int64]:
    """Mu-law classes: (S,) -> (S,)."""
    return mu_law_encode(torch.from_numpy(waveform).clamp(-1, 1), LEVELS).numpy()


def linear_prediction_nats(waveform: NDArray[np.float32]) -> Array:
    """-log P of each sample's class, Laplace-distributed around what linear prediction says: (S,) -> (S,).

    Coefficients and scale of every 5 ms come from the 30 ms before them, so that nothing is transmitted.
    """
    padded = np.concatenate([np.zeros(WINDOW + ORDER), waveform.astype(np.float64)])
    starts = np.arange(0, len(waveform), BLOCK)
    past = np.stack([padded[start + ORDER : start + ORDER + WINDOW] for start in starts])  # (blocks, WINDOW)
    coefficients = predictors(past * np.hanning(2 * WINDOW)[:WINDOW])
    nats = np.zeros(len(waveform))
    for start, window, weights in zip(starts, past, coefficients, strict=True):
        history = np.concatenate([window, waveform[start : start + BLOCK]])
        lagged = np.stack([history[ORDER - lag : len(history) - lag] for lag in range(1, ORDER + 1)])
        predicted = weights @ lagged
        residual = np.abs(history[ORDER:] - predicted)[: WINDOW - ORDER]
        scale = max(float(residual[-WINDOW // 2 :].mean()), 1e-4)
        place = slice(start, start + BLOCK)
        nats[place] = -np.log(class_shares(predicted[WINDOW - ORDER :], scale, classes_of(waveform[place])))
    return nats


def predictors(windows: Array) -> Array:
    """Linear prediction by the autocorrelation method: (N, WINDOW) -> (N, ORDER)."""
    spectrum = np.abs(np.fft.rfft(windows, 2 * WINDOW)) ** 2
    correlation = np.fft.irfft(spectrum)[:, : ORDER + 1]
    correlation[:, 0] = correlation[:, 0] * (1 + 1e-4) + 1e-7  # a white floor
    lags = np.abs(np.arange(ORDER)[:, None] - np.arange(ORDER))
    return np.asarray(np.linalg.solve(correlation[:, lags], correlation[:, 1:, None])[..., 0])


def class_shares(centre: Array, scale: float, classes: NDArray[np.int64]) -> Array:
    """Probability of mu-law classes under a Laplace distribution, mixed with a little of a uniform one."""
    low, high = (_laplace(edge(classes + side) - centre, scale) for side in (-0.5, 0.5))
    return (1 - _OUTLIERS) * (high - low) + _OUTLIERS / LEVELS


def edge(place: Array) -> Array:
    """Where a class ends: the sample at this place on the mu-law's scale; the outermost classes reach on."""
    companded = 2 * place / (LEVELS - 1) - 1
    inside = np.sign(companded) * np.expm1(np.minimum(np.abs(companded), 1) * math.log(LEVELS)) / (LEVELS - 1)
    return np.asarray(np.where(np.abs(companded) > 1, np.sign(companded) * 9.0, inside))


def _laplace(x: Array, scale: float) -> Array:
    """Its distribution function."""
    tail = 0.5 * np.exp(-np.abs(x) / scale)
    return np.asarray(np.where(x < 0, tail, 1 - tail))


if __name__ == "__main__":
    sys.exit(main())
