"""A recording as the network sees it in training: the inputs of every sample, and the class of its answer.

The sampler (`wavasr.generation.sampler`) makes the same inputs from what it has drawn so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wavasr.audio.scores import Note
from wavasr.generation.frames import Frames, active_gain, frames_of
from wavasr.generation.prediction import excitation_of, pre_emphasise
from wavasr.generation.quantise import centres, encode, log2_widths
from wavasr.network.config import GeneratorConfig

Array = npt.NDArray[np.float32]


class Gains(NamedTuple):
    """What brings signals to the network's range.

    Attributes:
        sample: samples are multiplied by it at the input.
        excitation: excitation / level is multiplied by it before it is quantised, and three times as much at the input.
    """

    sample: float
    excitation: float


INPUT_SCALE = 3.0  # of what is within mu-law's range of -1 to 1, at the input
QUANTILE, QUANTILE_AT = 0.999, 0.55  # this quantile of the magnitudes comes to this place in mu-law's range


class Lesson(NamedTuple):
    """S samples to learn.

    Attributes:
        inputs: (I, S) what is known before each sample.
        classes: (S,) int64 mu-law classes.
    """

    inputs: Array
    classes: npt.NDArray[np.int64]


def prepared(samples: Array, config: GeneratorConfig, notes: Sequence[Note] = ()) -> tuple[Array, Frames, float]:
    """A recording (S,) float32 as it is learnt: pre-emphasised samples (F * hop,), F frames, what it was multiplied by.

    Speech is brought to one level; how loud a note is follows from how it is struck.
    """
    gain = 1.0 if config.condition == "notes" else active_gain(samples, config.hop_samples)
    level = np.asarray(samples * gain, dtype=np.float32)
    frames = frames_of(level, config, notes)
    return pre_emphasise(level, config.pre_emphasis)[: len(frames) * config.hop_samples], frames, gain


def excitation(samples: Array, frames: Frames, hop: int) -> Array:
    """What linear prediction leaves of pre-emphasised samples: (order + F * hop,) -> (F * hop,)."""
    if frames.coefficients.shape[1] == 0:
        return samples
    return np.asarray(excitation_of(samples[None], frames.coefficients[None], hop)[0], dtype=np.float32)


def lesson(samples: Array, frames: Frames, config: GeneratorConfig, gains: Gains) -> Lesson:
    """Inputs and classes of pre-emphasised samples; before their first frame counts as silence.

    Args:
        samples: (order + F * hop,), the first `order` from before the first frame (order 0: none).
        frames: F of them.
        config: of the network.
        gains: of the network.
    """
    hop, order = config.hop_samples, frames.coefficients.shape[1]
    left = excitation(samples, frames, hop)
    scale = np.repeat(gains.excitation / frames.level, hop).astype(np.float32)
    classes = encode(left * scale, config.levels)
    if config.excitation == "none":
        # The sampler goes on from the centres of classes.
        before = _late(centres(config.levels)[classes] / scale)
        return Lesson((before * gains.sample)[None].astype(np.float32), classes)
    predicted = samples[order:] - left
    before = samples[order - 1 : -1]
    lags = np.repeat(frames.lag_samples, hop)
    longest = int(lags.max()) + 1
    padded = np.concatenate([np.zeros(longest, np.float32), left])
    places = np.arange(len(left)) - lags + longest
    taps = [padded[places + shift] for shift in (-1, 0, 1)]
    known = np.stack([_late(left), *taps]) * (INPUT_SCALE * scale)
    parts = [np.stack([before, predicted]) * gains.sample, known]
    if config.condition == "notes":
        parts.append(frames.guide.reshape(1, -1))
    return Lesson(np.concatenate(parts).astype(np.float32), classes)


def _late(values: Array) -> Array:
    """One sample later, after silence: (S,) -> (S,)."""
    return np.asarray(np.concatenate([np.zeros(1), values[:-1]]), dtype=np.float32)


def fit_gains(excerpts: list[tuple[Array, Array]]) -> Gains:
    """The gains for recordings, from pairs of pre-emphasised samples and excitation / level."""
    samples, excitations = (np.abs(np.concatenate(parts)) for parts in zip(*excerpts, strict=True))
    sample = INPUT_SCALE * QUANTILE_AT / max(float(np.quantile(samples, QUANTILE)), 1e-6)
    return Gains(sample, QUANTILE_AT / max(float(np.quantile(excitations, QUANTILE)), 1e-6))


def density_bits(
    frames: Frames, classes: npt.NDArray[np.int64], config: GeneratorConfig, gains: Gains, recording_gain: float
) -> Array:
    """What is added to the bits of each class to make them bits per step of a 16-bit sample: (F * hop,) float32.

    The width of the class, in steps of the recording's own scale; classes of different quantisers compare by it.
    """
    step = np.log2(frames.level / (gains.excitation * recording_gain)) + 15
    return np.asarray(log2_widths(config.levels)[classes] + np.repeat(step, config.hop_samples), dtype=np.float32)
