"""A recogniser's network in two graphs: samples to the features of its last stage, and those to log-probabilities.

    samples -> front -> features -> back -> log-probabilities
    (B, S)              (B, T, C)           (B, T, V)

The front sees a few frames around each, the last stage about a second to either side. So whoever recognises while
samples come runs the front, most of the work, once for each of them, and only the last stage again and again.
"""

from __future__ import annotations

import numpy as np

from wavasr.network.config import EncoderConfig
from wavasr.network.geometry import dilated_reach, receptive_field
from wavasr.network.runtime import Floats, Ints
from wavasr.network.session import new_session

_PIECE_FRAMES, _LEAST_PIECE_FRAMES = 400, 50  # of all utterances of a batch, and of each


class Halves:
    """Both parts of a network.

    Attributes:
        front_reach: frames before and after its own that a feature sees.
        back_reach: features before and after its own that a frame of log-probabilities sees.
    """

    def __init__(self, front: bytes, back: bytes, name: str, config: EncoderConfig) -> None:
        self._hop = config.hop_samples
        last, causal = config.stages[-1], config.context == "causal"
        reaches = [dilated_reach(last.kernel, dilation, causal) for dilation in last.dilations]
        self.back_reach = sum(before for before, _ in reaches), sum(after for _, after in reaches)
        before, after = (-(-samples // self._hop) for samples in receptive_field(config))
        self.front_reach = before - self.back_reach[0], after - self.back_reach[1]
        self._front, self._back = new_session(front, name), new_session(back, name)

    def infer(self, waveform: Floats, lengths: Ints) -> tuple[Floats, Ints]:
        """One after the other: (B, S) samples, (B,) how many each -> (B, T, V), (B,) how many frames each."""
        features = self._features(waveform, lengths)
        log_probs, frames = self._back.run(["log_probs", "frames"], {"features": features, "lengths": lengths})
        return log_probs, frames

    def front(self, samples: Floats) -> Floats:
        """(S,) -> (T, C); frames at the ends are those of samples that nothing surrounds."""
        features: Floats = self._features(samples[None], np.array([len(samples)]))[0]
        return features

    def _features(self, waveform: Floats, lengths: Ints) -> Floats:
        """(B, S), (B,) -> (B, T, C), a piece after the other: many samples at once do not fit a processor's cache."""
        hop, frames = self._hop, -(-waveform.shape[1] // self._hop)
        step = max(_LEAST_PIECE_FRAMES, _PIECE_FRAMES // max(1, len(waveform)))
        before, after = self.front_reach
        pieces: list[Floats] = []
        for start in range(0, max(1, frames), step):
            begin, end = max(0, start - before), min(frames, start + step)
            part = waveform[:, begin * hop : (end + after) * hop]
            given = {"waveform": part, "lengths": np.clip(lengths - begin * hop, 0, part.shape[1])}
            pieces.append(self._front.run(["features"], given)[0][:, start - begin : end - begin])
        whole: Floats = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        return whole

    def back(self, features: Floats) -> Floats:
        """(T, C) -> (T, V)."""
        given = {"features": features[None], "lengths": np.array([len(features) * self._hop])}
        log_probs: Floats = self._back.run(["log_probs"], given)[0][0]
        return log_probs
