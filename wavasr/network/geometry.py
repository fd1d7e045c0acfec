"""The numbers of an encoder: how many frames samples give, how convolutions are padded, what a frame sees."""

from __future__ import annotations

from typing import Any

from wavasr.network.config import EncoderConfig

# Numbers of the network that its weights do not hold.
LEVEL_FLOOR = 1e-8  # mean square of a sample; -80 dB below full scale counts as silence
LEVEL_SHIFT, LEVEL_SCALE = 4.0, 0.5  # bring the logarithm of a level to about unit range
ENERGY_FLOOR = 1e-5
NORM_FLOOR = 1e-5


def frames_of(samples: Any, hop: int) -> Any:
    """Frames that `samples` give: one for every started hop, so no sample is dropped. Integers or integer tensors."""
    return (samples + hop - 1) // hop


def split_reach(extra: int, causal: bool) -> tuple[int, int]:
    """How many of the `extra` frames that a window has lie before and after the current one."""
    return (extra, 0) if causal else ((extra + 1) // 2, extra // 2)


def dilated_reach(kernel: int, dilation: int, causal: bool) -> tuple[int, int]:
    """Frames (before, after) that a dilated convolution reaches, which are its padding when it keeps the length."""
    before, after = split_reach(kernel - 1, causal)
    return before * dilation, after * dilation


def receptive_field(config: EncoderConfig) -> tuple[int, int]:
    """Samples that a CTC frame sees (before, after) the hop it owns.

    Frame t owns samples [t * hop, (t + 1) * hop) and depends on [t * hop - before, (t + 1) * hop + after).
    """
    causal = config.context == "causal"
    before = after = 0
    for stage in reversed(config.stages):
        reaches = [dilated_reach(stage.kernel, dilation, causal) for dilation in stage.dilations]
        before = before * stage.pool + sum(left for left, _ in reaches)
        after = after * stage.pool + sum(right for _, right in reaches)
    first = config.stages[0]
    window = split_reach(first.window // first.stride - 1, causal)
    level = split_reach(max(first.level_frames - 1, 0), causal)
    # A sample is divided by the level around it, so the two reaches add up.
    return (before + window[0] + level[0]) * first.stride, (after + window[1] + level[1]) * first.stride
