"""The encoder's promises: integer lengths, exact reach, no look-ahead where none is allowed, nothing from neighbours.

A second encoder, written frame by frame in numpy, says what the fast one must compute.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavasr.audio.features import log_mel
from wavasr.network.config import PRESETS, EncoderConfig, StageConfig
from wavasr.network.geometry import frames_of, receptive_field
from wavasr.network.wavenet import (
    ENERGY_FLOOR,
    LEVEL_FLOOR,
    NORM_FLOOR,
    Encoder,
    Features,
    Level,
    gate,
    normalise_frames,
)

# The shapes of the presets, in miniature.
STEPPED = (
    StageConfig(6, window=8, stride=4, level_frames=6, filter_bank=True, dilations=(1, 2), pool=5, pooling="energy"),
    StageConfig(channels=6, dilations=(1, 2), pool=4, pooling="energy"),
    StageConfig(channels=8, dilations=(1, 3), pool=2),
    StageConfig(channels=8, dilations=(2,)),
)
PAPER = (
    StageConfig(channels=5, skip_channels=7, kernel=2, dilations=(1, 2, 4, 8) * 2, pool=16),
    StageConfig(channels=6, dilations=(1, 1)),
)
ODD = (
    StageConfig(channels=16, window=9, stride=3, level_frames=5, kernel=2, dilations=(1, 3), pool=3),
    StageConfig(channels=8, kernel=4, dilations=(2,), pool=1, pooling="energy"),
)
SHAPES = {"stepped": STEPPED, "paper": PAPER, "odd": ODD}
CONTEXTS = ("noncausal", "causal")
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_context = pytest.mark.parametrize("context", CONTEXTS)


def config_of(shape: str, context: str) -> EncoderConfig:
    return EncoderConfig(preset="custom", stages=SHAPES[shape], context=context, sample_rate=2000, init="random")  # type: ignore[arg-type]


def encoder_of(shape: str, context: str = "noncausal", seed: int = 0) -> Encoder:
    """In float64 and eval mode."""
    torch.manual_seed(seed)
    return shaken(Encoder(config_of(shape, context)).double().eval())


def shaken(encoder: Encoder) -> Encoder:
    """Without the zeros that a filter bank starts with, which would hide what the blocks do."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return encoder


def noise(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(waveform: Tensor) -> Tensor:
    """The lengths of a batch without padding."""
    return torch.full((len(waveform),), waveform.shape[1])


# Lengths --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hop", [1, 2, 3, 7, 160, 320])
def test_frames_of_is_one_for_each_started_hop(hop: int) -> None:
    samples = list(range(2 * hop + 2)) + [10**9 + residue for residue in range(hop)]
    expected = [sum(1 for _ in range(0, n, hop)) if n < 10**6 else math.ceil(n / hop) for n in samples]
    assert [frames_of(n, hop) for n in samples] == expected
    tensor = frames_of(torch.tensor(samples), hop)
    assert tensor.dtype == torch.int64
    assert tensor.tolist() == expected


@given(st.integers(0, 10**12), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_frames_stage_by_stage_are_those_of_the_product(samples: int, pools: list[int]) -> None:
    frames = samples
    for pool in pools:
        frames = frames_of(frames, pool)
    assert frames == frames_of(samples, math.prod(pools))


@every_shape
@every_context
def test_lengths_travel_with_their_frames(shape: str, context: str) -> None:
    encoder = encoder_of(shape, context)
    hop = encoder.config.hop_samples
    waveform = noise(hop + 2, 2 * hop + 1)
    lengths = torch.arange(len(waveform))  # every residue, 0 samples too
    outputs = encoder(waveform, lengths)
    assert len(outputs) == len(SHAPES[shape]) + 1
    assert outputs[-1].lengths.dtype == torch.int64
    assert outputs[-1].lengths.tolist() == [frames_of(n, hop) for n in range(len(waveform))]
    for features in outputs:
        assert features.frames.shape[2] >= int(features.lengths.max())
        for row, length in zip(features.frames, features.lengths.tolist(), strict=True):
            assert torch.isfinite(row[:, :length]).all()


def test_stages_can_be_left_out() -> None:
    encoder = encoder_of("stepped")
    waveform = noise(1, 1000)
    everything = encoder(waveform, whole(waveform))
    for stages in range(1, 5):
        part = encoder(waveform, whole(waveform), stages=stages)
        assert len(part) == stages + 1
        assert torch.equal(part[-1].frames, everything[stages].frames)


# An encoder written frame by frame ------------------------------------------------------------------------------------

Array = np.ndarray
Weights = Mapping[str, Array]


def slow_reach(extra: int, causal: bool) -> int:
    """How many frames of a window lie before the current one."""
    return extra if causal else -(-extra // 2)


def slow_convolution(x: Array, weights: Weights, name: str, dilation: int, causal: bool) -> Array:
    """(C_in, T) -> (C_out, T), tap by tap."""
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    before = slow_reach(kernel.shape[2] - 1, causal) * dilation
    out = np.zeros((len(bias), x.shape[1]))
    for t in range(x.shape[1]):
        out[:, t] = bias
        for tap in range(kernel.shape[2]):
            source = t - before + tap * dilation
            if 0 <= source < x.shape[1]:
                out[:, t] += kernel[:, :, tap] @ x[:, source]
    return out


def slow_stack(x: Array, weights: Weights, name: str, stage: StageConfig, causal: bool) -> Array:
    """Input projection, gated residual blocks, summed skips, post-net."""
    x = slow_convolution(x, weights, f"{name}.project", 1, causal)
    total = x.copy() if stage.filter_bank else np.zeros((stage.skip_width, x.shape[1]))
    for index, dilation in enumerate(stage.dilations):
        block = f"{name}.blocks.{index}"
        normed = np.stack([frame / math.sqrt((frame**2).mean() + NORM_FLOOR) for frame in x.T], axis=1)
        hidden = slow_convolution(normed, weights, f"{block}.dilated", dilation, causal)
        f, g = hidden[: stage.channels], hidden[stage.channels :]
        mixed = slow_convolution(np.tanh(f / 2) / (1 + np.exp(-g)), weights, f"{block}.mix", 1, causal)
        x = x + mixed[: stage.channels]
        total += mixed[stage.channels :]
    if stage.pooling == "mean":
        total = np.maximum(total, 0)
    return slow_convolution(total, weights, f"{name}.post", 1, causal)


def slow_pool(x: Array, pool: int, energy: bool) -> Array:
    frames = []
    for start in range(0, x.shape[1], pool):
        group = x[:, start : start + pool]
        parts = [group.sum(axis=1) / pool]  # a started group is averaged as if silence followed
        if energy:
            parts.append(np.log((group**2).sum(axis=1) / pool + ENERGY_FLOOR))
        frames.append(np.concatenate(parts))
    return np.stack(frames, axis=1)


def slow_level(phases: Array, frames: int, causal: bool) -> Array:
    """(stride, T) -> the local level (1, T)."""
    power = (phases**2).mean(axis=0)
    before = slow_reach(frames - 1, causal)
    sums = [power[max(0, t - before) : t - before + frames].sum() for t in range(len(power))]
    return np.sqrt(np.array(sums)[None] / frames + LEVEL_FLOOR)


def slow_encoder(config: EncoderConfig, weights: Weights, waveform: Array) -> list[Array]:
    """(S,) -> what `Encoder` gives for it alone: (C, T) each."""
    causal, first = config.context == "causal", config.stages[0]
    phases = np.zeros((first.stride, -(-len(waveform) // first.stride)))
    for s, sample in enumerate(waveform):
        phases[s % first.stride, s // first.stride] = sample
    level = slow_level(phases, first.level_frames, causal) if first.level_frames else None
    x = phases if level is None else phases / level
    outputs = []
    for index, stage in enumerate(config.stages):
        x = slow_stack(x, weights, f"stages.{index}", stage, causal)
        if index == 0:
            outputs.append(x)
        x = slow_pool(x, stage.pool, stage.pooling == "energy")
        if index == 0 and level is not None:
            x = np.concatenate([x, slow_pool((np.log(level) + 4) / 2, stage.pool, energy=False)])
        outputs.append(x)
    return outputs


@every_shape
@every_context
def test_every_output_is_that_of_the_slow_encoder(shape: str, context: str) -> None:
    encoder = encoder_of(shape, context)
    weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    lengths = torch.tensor([301, 1, 47])
    waveform = noise(3, 333)
    with torch.no_grad():
        outputs = encoder(waveform, lengths)
    for i, length in enumerate(lengths.tolist()):
        expected = slow_encoder(encoder.config, weights, waveform[i, :length].numpy())
        for features, slow in zip(outputs, expected, strict=True):
            assert int(features.lengths[i]) == slow.shape[1]
            np.testing.assert_allclose(features.frames[i, :, : slow.shape[1]].numpy(), slow, rtol=0, atol=1e-9)


def test_single_precision_is_close_to_double() -> None:
    encoder = encoder_of("stepped")
    waveform = noise(2, 2000)
    with torch.no_grad():
        exact = encoder(waveform, whole(waveform))[-1].frames
        rough = encoder.float()(waveform.float(), whole(waveform))[-1].frames
    assert (exact - rough).abs().max() < 1e-4


# Reach ----------------------------------------------------------------------------------------------------------------


def reach(encoder: Encoder, samples: int, frame: int, seed: int = 0) -> tuple[int, int]:
    """First sample and the one after the last that have a gradient to the frame of the last stage."""
    waveform = noise(1, samples, seed=seed).to(next(encoder.parameters()).dtype).requires_grad_()
    frames = encoder(waveform, whole(waveform))[-1].frames
    weights = noise(frames.shape[1], seed=seed + 1, scale=1.0).to(frames.dtype)
    (frames[0, :, frame] @ weights).backward()
    assert waveform.grad is not None
    where = waveform.grad[0].nonzero()
    return int(where.min()), int(where.max()) + 1


def expected_reach(encoder: Encoder, frame: int) -> tuple[int, int]:
    before, after = receptive_field(encoder.config)
    hop = encoder.config.hop_samples
    return frame * hop - before, (frame + 1) * hop + after


def check_reach(encoder: Encoder) -> None:
    before, after = receptive_field(encoder.config)
    hop = encoder.config.hop_samples
    frame = before // hop + 2
    samples = (frame + 1) * hop + after + 2 * hop
    assert reach(encoder, samples, frame) == expected_reach(encoder, frame)


@every_shape
@every_context
def test_receptive_field_is_exact(shape: str, context: str) -> None:
    check_reach(encoder_of(shape, context))


@every_context
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize(("window", "stride", "level"), [(1, 1, 0), (1, 1, 7), (12, 4, 0), (8, 4, 5)])
def test_receptive_field_of_every_kind_of_first_stage(
    context: str, kernel: int, window: int, stride: int, level: int
) -> None:
    stages = (
        StageConfig(8, dilations=(1, 3), kernel=kernel, window=window, stride=stride, level_frames=level, pool=2),
        StageConfig(8, dilations=(2, 1), kernel=kernel, pool=3),
    )
    torch.manual_seed(0)
    check_reach(Encoder(EncoderConfig(stages=stages, context=context)).double().eval())  # type: ignore[arg-type]


@every_context
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_receptive_field_of_the_presets(preset: str, context: str) -> None:
    # The reach has nothing to do with the width, so narrow stages stand for the real ones.
    stages = tuple(dataclasses.replace(stage, channels=8, skip_channels=8) for stage in PRESETS[preset])
    torch.manual_seed(0)
    check_reach(shaken(Encoder(EncoderConfig(stages=stages, context=context)).double().eval()))  # type: ignore[arg-type]


def test_receptive_field_of_the_paper_in_closed_form() -> None:
    paper = EncoderConfig(preset="paper", context="causal")
    # The level's 480 samples, two cycles of 1 + 3 + ... + 729, four convolutions over frames of 10 ms; three taps each.
    assert receptive_field(paper) == (479 + 2 * 2 * 1093 + 4 * 2 * 160, 0)
    assert paper.hop_samples == 160


# Causality ------------------------------------------------------------------------------------------------------------


@every_shape
def test_a_causal_frame_has_no_gradient_to_a_later_sample(shape: str) -> None:
    encoder = encoder_of(shape, "causal")
    stages = encoder.config.stages
    hop = stages[0].stride
    waveform = noise(1, 400).requires_grad_()
    outputs = encoder(waveform, whole(waveform))
    for features, pool in zip(outputs, [1, *(stage.pool for stage in stages)], strict=True):
        hop *= pool
        for frame in (0, 1, features.frames.shape[2] // 2):
            (gradient,) = torch.autograd.grad(features.frames[0, :, frame].square().sum(), waveform, retain_graph=True)
            assert gradient[0, : (frame + 1) * hop].abs().max() > 0
            assert gradient[0, (frame + 1) * hop :].abs().sum() == 0


@every_shape
def test_a_causal_encoder_says_of_a_prefix_what_it_says_of_the_whole(shape: str) -> None:
    encoder = encoder_of(shape, "causal")
    hop = encoder.config.hop_samples
    waveform = noise(1, 10 * hop + 3)
    with torch.no_grad():
        offline = encoder(waveform, whole(waveform))[-1].frames
        for frames in range(1, 11):
            prefix = waveform[:, : frames * hop]
            early = encoder(prefix, whole(prefix))[-1].frames
            assert (early - offline[:, :, :frames]).abs().max() < 1e-12


@every_shape
def test_a_noncausal_frame_hears_both_sides(shape: str) -> None:
    before, after = receptive_field(config_of(shape, "noncausal"))
    assert before > 0
    assert after > 0


# Neighbours and padding -----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    context=st.sampled_from(CONTEXTS),
    length=st.integers(1, 400),
    padding=st.integers(0, 200),
    neighbours=st.lists(st.integers(1, 600), max_size=3),
    loudness=st.sampled_from([1e-4, 0.1, 100.0]),
    seed=st.integers(0, 1000),
)
def test_frames_do_not_depend_on_batch_or_padding(
    shape: str, context: str, length: int, padding: int, neighbours: list[int], loudness: float, seed: int
) -> None:
    encoder = encoder_of(shape, context, seed).float()
    utterance = noise(1, length, seed=seed).float()
    lengths = torch.tensor([length, *neighbours])
    batch = noise(len(lengths), int(lengths.max()) + padding, seed=seed + 1, scale=loudness).float()
    batch[0, :length] = utterance  # beyond it, the padding is loud too
    with torch.no_grad():
        alone = encoder(utterance, torch.tensor([length]))
        together = encoder(batch, lengths)
        reversed_order = encoder(batch.flip(0), lengths.flip(0))
    for own, among, last in zip(alone, together, reversed_order, strict=True):
        frames = own.frames.shape[2]
        assert int(among.lengths[0]) == frames
        assert (among.frames[0, :, :frames] - own.frames[0]).abs().max() < 1e-4
        assert (last.frames[-1, :, :frames] - own.frames[0]).abs().max() < 1e-4


def test_padding_may_hold_anything() -> None:
    encoder = encoder_of("stepped")
    waveform = noise(2, 500)
    lengths = torch.tensor([500, 123])
    clean = encoder(waveform, lengths)[-1].frames
    for filler in (math.nan, math.inf, -1e30):
        waveform[1, 123:] = filler
        assert torch.equal(encoder(waveform, lengths)[-1].frames[:, :, :3], clean[:, :, :3])


@every_shape
def test_no_gradient_flows_into_padding(shape: str) -> None:
    encoder = encoder_of(shape)
    waveform = noise(2, 400).requires_grad_()
    features = encoder(waveform, torch.tensor([400, 90]))[-1]
    features.frames[1, :, : int(features.lengths[1])].square().sum().backward()
    assert waveform.grad is not None
    assert waveform.grad[0].abs().sum() == 0
    assert waveform.grad[1, 90:].abs().sum() == 0
    assert waveform.grad[1, :90].abs().min() > 0


# The parts ------------------------------------------------------------------------------------------------------------


def test_gate_and_its_gradient() -> None:
    hidden = noise(2, 6, 5, scale=3.0).requires_grad_()
    f, g = hidden.chunk(2, dim=1)
    assert torch.allclose(gate(hidden), torch.tanh(f / 2) * torch.sigmoid(g), atol=1e-14)
    assert torch.autograd.gradcheck(gate, (hidden,))
    upstream = noise(2, 3, 5, seed=1)
    (fast,) = torch.autograd.grad(gate(hidden), hidden, upstream)
    (plain,) = torch.autograd.grad(torch.tanh(f / 2) * torch.sigmoid(g), hidden, upstream)
    assert torch.allclose(fast, plain, atol=1e-14)


def test_gate_saturates_without_nan() -> None:
    hidden = torch.tensor([[[1e4, -1e4, 0.0]], [[1e4, -1e4, 0.0]]]).reshape(1, 2, 3).requires_grad_()
    gate(hidden).sum().backward()
    assert gate(hidden)[0, 0].tolist() == [1.0, -0.0, 0.0]
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_frame_norm_and_its_gradient() -> None:
    x = noise(2, 5, 7, scale=2.0).requires_grad_()
    mask = (torch.rand(2, 1, 7, generator=torch.Generator().manual_seed(0)) < 0.7).double()

    def plain(x: Tensor) -> Tensor:
        return x * mask / torch.sqrt(x.square().mean(dim=1, keepdim=True) + NORM_FLOOR)

    assert torch.allclose(normalise_frames(x, mask), plain(x), atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: normalise_frames(x, mask), (x,))
    upstream = noise(2, 5, 7, seed=1)
    (fast,) = torch.autograd.grad(normalise_frames(x, mask), x, upstream)
    (expected,) = torch.autograd.grad(plain(x), x, upstream)
    assert torch.allclose(fast, expected, atol=1e-14)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e15])
def test_frame_norm_of_silence_and_of_din(scale: float) -> None:
    x = (noise(1, 4, 3, scale=1.0) * scale).float().requires_grad_()
    normed = normalise_frames(x, torch.ones(1, 1, 3))
    normed.sum().backward()
    assert torch.isfinite(normed).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_frame_norm_in_half_precision() -> None:
    x = noise(2, 64, 9, scale=3.0)
    exact = normalise_frames(x, torch.ones(2, 1, 9))
    rough = normalise_frames(x.bfloat16(), torch.ones(2, 1, 9))
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().max() < 0.03


def test_autocast_trains() -> None:
    encoder = encoder_of("stepped").float().train()
    waveform = noise(2, 900).float()
    with torch.autocast("cpu", torch.bfloat16):
        frames = encoder(waveform, torch.tensor([900, 300]))[-1].frames
    frames.float().square().sum().backward()
    gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    # The last block's residual half leads nowhere, but shares its weights with the skip half.
    assert len(gradients) == len(list(encoder.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


# The level ------------------------------------------------------------------------------------------------------------


def test_twenty_decibels_change_only_the_level_channel() -> None:
    encoder = encoder_of("stepped")
    waveform = noise(1, 1200)
    with torch.no_grad():
        quiet = encoder(waveform, whole(waveform), stages=1)[1].frames
        loud = encoder(10 * waveform, whole(waveform), stages=1)[1].frames
    assert (loud[:, :-1] - quiet[:, :-1]).abs().max() < 1e-4
    # The logarithm of the level, in half units.
    assert torch.allclose(loud[:, -1] - quiet[:, -1], torch.tensor(math.log(10) / 2, dtype=torch.float64), atol=1e-4)


def test_level_of_a_constant_and_of_silence() -> None:
    level = Level(frames=4, causal=False)
    divided, logarithm = level(torch.full((1, 2, 9), 0.5, dtype=torch.float64))
    assert torch.allclose(divided[:, :, 2:-2], torch.ones(1, 2, 5, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(logarithm[:, :, 2:-2].exp(), torch.full((1, 1, 5), 0.5, dtype=torch.float64), atol=1e-6)
    divided, logarithm = level(torch.zeros(1, 2, 9))
    assert divided.abs().sum() == 0
    assert torch.allclose(logarithm, torch.tensor(math.log(LEVEL_FLOOR) / 2))


def test_floors_are_those_of_the_shipped_ears() -> None:
    # Weights are trained with them: another value changes every model's output.
    assert (LEVEL_FLOOR, ENERGY_FLOOR, NORM_FLOOR) == (1e-8, 1e-5, 1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_silence_and_din_stay_finite(scale: float) -> None:
    encoder = encoder_of("stepped").float()
    waveform = (noise(1, 700, scale=1.0) * scale).float().requires_grad_()
    frames = encoder(waveform, whole(waveform))[-1].frames
    frames.sum().backward()
    assert torch.isfinite(frames).all()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()


# Dropout --------------------------------------------------------------------------------------------------------------


def test_dropout_spares_the_front_end_and_evaluation() -> None:
    config = dataclasses.replace(config_of("stepped", "noncausal"), dropout=0.5)
    assert config.front_end_stages == 1  # 20 samples at 2 kHz are 10 ms
    torch.manual_seed(0)
    encoder = Encoder(config)
    waveform = noise(1, 1000).float()

    def outputs() -> list[Features]:
        found: list[Features] = encoder(waveform, whole(waveform))
        return found

    first, second = outputs(), outputs()
    assert torch.equal(first[1].frames, second[1].frames)
    assert not torch.equal(first[2].frames, second[2].frames)
    encoder.eval()
    assert torch.equal(outputs()[-1].frames, outputs()[-1].frames)


# The filter bank ------------------------------------------------------------------------------------------------------


def test_a_filter_bank_starts_as_a_log_mel_spectrum() -> None:
    """Tones that rise and fall: the energies of each band's two filters together follow the spectrum's band."""
    bands, rate = 48, 16000
    stage = StageConfig(2 * bands, window=400, stride=20, filter_bank=True, dilations=(1, 2), pool=8, pooling="energy")
    encoder = Encoder(EncoderConfig(stages=(stage,)))
    times = torch.arange(2 * rate) / rate
    hz = 200 + 3000 * (times - 1).square()
    tone = (0.1 + 0.2 * times) * torch.sin(2 * torch.pi * torch.cumsum(hz, 0) / rate)
    waveform = (tone + 0.1 * noise(2 * rate).float())[None]
    with torch.no_grad():
        frames = encoder(waveform, whole(waveform))[-1].frames[0]
    ours = frames[2 * bands :].exp().view(bands, 2, -1).mean(1)[:, :190]
    theirs = log_mel(waveform, rate, bands)[0].exp()[:, :190]
    # Over tenths of a second, in which the noise of both averages out, and but for each band's constant.
    ours, theirs = (x.view(bands, -1, 10).mean(2).log() for x in (ours, theirs))
    pair = torch.stack([(x - x.mean(1, keepdim=True)).flatten() for x in (ours, theirs)])
    assert torch.corrcoef(pair)[0, 1] > 0.85
