"""Columns compute what the blocks do: values, gradients of the input and of every weight; batch and padding too."""

from collections.abc import Sequence
from typing import cast

import pytest
import torch
from torch import Tensor

from wavasr.network import wavenet
from wavasr.network.config import PRESETS, EncoderConfig, StageConfig
from wavasr.network.wavenet import Encoder, GatedBlock, Stage, skips_in_columns

STAGES = {
    "two taps": StageConfig(channels=6, skip_channels=10, kernel=2, dilations=(1, 2, 4, 8), pool=4),
    "three taps": StageConfig(channels=6, kernel=3, dilations=(1, 3, 9, 1), pool=4),
    "dilated past the end": StageConfig(channels=4, kernel=3, dilations=(1, 90), pool=4),
}


def stage_of(name: str, causal: bool) -> Stage:
    torch.manual_seed(0)
    return Stage(STAGES[name], 2, causal, 0.0, 8000).double()


def by_blocks(stage: Stage, x: Tensor, lengths: Tensor) -> Tensor:
    mask = wavenet.mask_of(lengths, x.shape[2]).double()
    total = torch.zeros(())
    for block in stage.blocks:
        x, skip = block(x, mask)
        total = total + skip
    return total * mask


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", STAGES)
def test_columns_are_the_blocks(name: str, causal: bool) -> None:
    stage = stage_of(name, causal)
    channels = STAGES[name].channels
    lengths = torch.tensor([70, 41, 1])
    x = torch.randn(3, channels, 70, dtype=torch.double, requires_grad=True)
    slow = by_blocks(stage, x, lengths)
    fast = skips_in_columns(cast(Sequence[GatedBlock], stage.blocks), x, lengths)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-10)
    target = torch.randn_like(fast) * wavenet.mask_of(lengths, 70)
    inputs = [x, *stage.blocks.parameters()]
    expected = torch.autograd.grad((slow * target).sum(), inputs)
    found = torch.autograd.grad((fast * target).sum(), inputs)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-9)


@pytest.mark.parametrize("context", ["noncausal", "causal"])
def test_the_paper_trains_in_columns_and_computes_the_same_without(
    context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(preset="paper", context=context))  # type: ignore[arg-type]
    waveform, lengths = 0.1 * torch.randn(2, 4000), torch.tensor([4000, 2500])
    used = []

    def counted(*arguments: Tensor) -> Tensor:
        used.append(1)
        return skips_in_columns(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(wavenet, "skips_in_columns", counted)
    fast = encoder(waveform, lengths)[0].frames
    assert used == [1]
    (gradient,) = torch.autograd.grad(fast.square().sum(), encoder.stages[0].blocks[0].dilated.weight)  # type: ignore[union-attr, index]
    monkeypatch.setattr(wavenet, "MOST_COLUMN_CHANNELS", 0)
    slow = encoder(waveform, lengths)[0].frames
    (expected,) = torch.autograd.grad(slow.square().sum(), encoder.stages[0].blocks[0].dilated.weight)  # type: ignore[union-attr, index]
    assert used == [1]
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(encoder(waveform, lengths)[0].frames, slow, rtol=0, atol=1e-5)


def test_the_paper_sees_a_quarter_of_a_second_on_both_sides_of_a_sample() -> None:
    """240 to 300 ms (paper, section 3.4), without gaps: three taps, dilations that triple."""
    first = PRESETS["paper"][0]
    assert (first.kernel, first.pool, first.filter_bank, first.stride) == (3, 160, False, 1)
    reach = sum(first.dilations)
    assert 0.24 < (2 * reach + 1) / 16000 < 0.3


def test_half_precision_is_near() -> None:
    stage = stage_of("three taps", False).float()
    x, lengths = torch.randn(2, 2, 400).requires_grad_(), torch.tensor([400, 333])
    exact = stage.stack(x, lengths).frames
    with torch.autocast("cpu", torch.bfloat16):
        rounded = stage.stack(x, lengths).frames
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded.float()).abs().max() < 0.05 * exact.abs().max()
