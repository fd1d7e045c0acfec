"""Sound from a network, block by block: streams side by side, each with its own seed.

    described frames --> conditions --> 160 samples a frame         a vocoder: `render`
    the samples so far --> frame --> condition --> 160 samples      on its own: `improvise`

The steps are compiled by numba where it is installed (`pip install wavasr[generate]`), else done in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import util
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from wavasr.errors import WavasrError
from wavasr.generation.frames import Frames, frames_of_past, past_samples
from wavasr.generation.network import Network
from wavasr.generation.stepping import Drawn, Orders, Stepper
from wavasr.network.config import CONDITION_REACH

Array = npt.NDArray[np.float32]
Backend = Literal["auto", "numba", "numpy"]

BLOCK_FRAMES = 50


class Steps(Protocol):
    """What moves N streams on: `Stepper` or `Kernel`."""

    def draw(self, orders: Orders) -> Drawn:
        """F frames more."""


def has_numba() -> bool:
    """Whether the compiled steps can be used."""
    return util.find_spec("numba") is not None


def make_steps(network: Network, streams: int, backend: Backend = "auto") -> Steps:
    """The steps of so many streams.

    Raises:
        WavasrError: numba is asked for and not installed.
    """
    if backend == "numba" and not has_numba():
        raise WavasrError("numba is not installed; pip install 'wavasr[generate]', or leave the choice to the sampler")
    if backend == "numpy" or not has_numba():
        return Stepper(network, streams)
    from wavasr.generation.kernel import Kernel

    return Kernel(network, streams)


class Sampler:
    """Draws sound from a network.

    Args:
        network: a vocoder or one that improvises.
        speakers: the speaker's number of each stream; there are as many streams.
        seeds: of each stream; equal seeds give equal sounds, whatever else is computed beside them.
        temperature: below 1 the network's first choices are drawn more often, above 1 less often.
        voiced_sharpness: how much the logits are raised in voiced frames; LPCNet's remedy against roughness.
        backend: "numba", "numpy", or what there is.
    """

    def __init__(
        self,
        network: Network,
        speakers: Sequence[int],
        seeds: Sequence[int],
        temperature: float = 1.0,
        voiced_sharpness: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        self.network = network
        self._speakers = list(speakers)
        self._random = [np.random.default_rng(seed) for seed in seeds]
        self._temperature, self._voiced_sharpness = temperature, voiced_sharpness
        self._steps = make_steps(network, len(self._speakers), backend)

    def render(self, sounds: Sequence[Frames]) -> Iterator[Drawn]:
        """The sounds that frames describe, one for each stream; shorter ones go on with their last frame.

        Yields:
            `BLOCK_FRAMES` frames at a time, the last block shorter.
        """
        count = max(len(frames) for frames in sounds)
        for first in range(0, count, BLOCK_FRAMES):
            last = min(first + BLOCK_FRAMES, count)
            here = [frames[_rows(first, last, len(frames))] for frames in sounds]
            around = [
                frames.features[_rows(first - CONDITION_REACH, last + CONDITION_REACH, len(frames))]
                for frames in sounds
            ]
            yield self._steps.draw(self._orders(here, around))

    def improvise(self, frames: int) -> Iterator[Drawn]:
        """So many frames, each described by the samples before it.

        Yields:
            One frame at a time.
        """
        config = self.network.config
        past = np.zeros((len(self._speakers), past_samples(config)), np.float32)
        history: list[Array] = []
        for _ in range(frames):
            now = frames_of_past(past, config)
            history = [*history[-2 * CONDITION_REACH :], now.features]
            history = [history[0]] * (2 * CONDITION_REACH + 1 - len(history)) + history
            around = list(np.stack(history, axis=1))  # of each stream (5, D)
            drawn = self._steps.draw(self._orders([now[i : i + 1] for i in range(len(past))], around))
            past = np.concatenate([past, drawn.emphasised], axis=1)[:, -past.shape[1] :]
            yield drawn

    def _orders(self, sounds: Sequence[Frames], around: Sequence[Array]) -> Orders:
        conditions = [
            self.network.condition(features, speaker) for features, speaker in zip(around, self._speakers, strict=True)
        ]
        count = len(sounds[0]) * self.network.config.hop_samples
        return Orders(
            condition=np.stack(conditions),
            coefficients=np.stack([frames.coefficients for frames in sounds]),
            level=np.stack([frames.level for frames in sounds]),
            lag_samples=np.stack([frames.lag_samples for frames in sounds]),
            sharpness=np.stack([self._sharpness(frames) for frames in sounds]),
            guide=np.stack([frames.guide.ravel() for frames in sounds]),
            uniform=np.stack([random.random(count, dtype=np.float32) for random in self._random]),
        )

    def _sharpness(self, frames: Frames) -> Array:
        if not frames.features.shape[1] or not self._voiced_sharpness:
            return np.full(len(frames), 1 / self._temperature, np.float32)
        return np.asarray((1 + self._voiced_sharpness * frames.voiced) / self._temperature, dtype=np.float32)


def _rows(first: int, last: int, count: int) -> npt.NDArray[np.int64]:
    """The frames from `first` to before `last`; beyond both ends the outermost one."""
    return np.clip(np.arange(first, last), 0, count - 1)
