"""A network as a picture: layers, paths from samples to one output, and which samples that output sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import ModelError
from wavasr.network.config import EncoderConfig, GeneratorConfig, StageConfig
from wavasr.network.files import FORMAT, GENERATOR_FORMAT, read_header
from wavasr.network.geometry import dilated_reach, receptive_field
from wavasr.pictures.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, label, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWS = 4  # noise that the gradient is averaged over
_SHOWN_BLOCKS = 5  # of the tree of paths
_COLOURS = (BLUE, GREEN, ORANGE, SKY)

Floats = NDArray[np.float64]


@styled
def network(model: str | Any = "default") -> Figure:
    """A figure of a recogniser or a generator.

    Args:
        model: a model file, the name of a shipped model, or the loaded module.

    Raises:
        ModelError: the model cannot be loaded.
    """
    named = isinstance(model, str) or hasattr(model, "__fspath__")
    module: Any = _loaded(model) if named else model
    config = module.encoder.config if hasattr(module, "encoder") else module.config
    stages, rate = _stages(config)
    figure = new_figure(11.0, 0.9 + 0.42 * len(stages) + 5.8)
    upper, middle, lower = figure.subplots(3, 1, height_ratios=[0.5 + 0.42 * len(stages), 3.0, 2.4])
    _layers(upper, stages, rate)
    deepest = max(range(len(stages)), key=lambda i: len(stages[i].dilations))
    stage = stages[deepest]
    shown = stage.dilations[: _SHOWN_BLOCKS if stage.kernel == 2 else _SHOWN_BLOCKS - 1]
    paths(middle, stage.kernel, shown, causal=_is_causal(config))
    ending = f", the first {len(shown)} blocks" if len(stage.dilations) > len(shown) else ""
    middle.set_title(f"Paths to one output of stage {deepest + 1}{ending}: dilations {', '.join(map(str, shown))}")
    _reach(lower, module, config, rate)
    name = Path(model).stem if named else module.__class__.__name__
    parameters = sum(p.numel() for p in module.parameters())
    figure.suptitle(f"{name}: {parameters:,} parameters, {rate / 1000:g} kHz", fontweight="bold")
    return figure


def _loaded(model: Any) -> Any:
    from wavasr.network.generator import load_generator
    from wavasr.network.recognizer import load_model

    if str(model).lower().endswith(".onnx"):
        raise ModelError(f"{model}: an exported graph has no gradients; give the .wavasr file that it was made of")
    return load_generator(model) if is_generator(model) else load_model(model)


def is_generator(model: str | Path) -> bool:
    """Whether a model file holds a generator; else it holds a recogniser.

    Raises:
        ModelError: neither, or damaged.
    """
    return bool(read_header(model, FORMAT, GENERATOR_FORMAT)["format"] == GENERATOR_FORMAT)


def _is_causal(config: EncoderConfig | GeneratorConfig) -> bool:
    return isinstance(config, GeneratorConfig) or config.context == "causal"


def _stages(config: EncoderConfig | GeneratorConfig) -> tuple[Sequence[StageConfig], int]:
    if isinstance(config, EncoderConfig):
        return config.stages, config.sample_rate
    stage = StageConfig(
        channels=config.channels,
        skip_channels=config.skip_channels,
        kernel=config.kernel,
        dilations=config.dilations,
    )
    return [stage], config.sample_rate


def _layers(axes: Axes, stages: Sequence[StageConfig], rate: int) -> None:
    """A row a stage, a box a block with its dilation."""
    plain(axes)
    step_hz = rate / stages[0].stride
    widest = max(len(stage.dilations) for stage in stages)
    for row, stage in enumerate(stages):
        y = len(stages) - row - 1
        pooled = f", pooled by {stage.pool}" if stage.pool > 1 else ""
        text = f"stage {row + 1}: {stage.channels} channels, kernel {stage.kernel}, {step_hz:g} Hz{pooled}"
        axes.text(-0.15, y + 0.4, text, ha="right", va="center")
        width = min(1.0, 20 / widest)
        for i, dilation in enumerate(stage.dilations):
            left = i * width
            axes.fill_between([left, left + 0.9 * width], y, y + 0.8, color=_COLOURS[row % 4], alpha=0.35, linewidth=0)
            size = min(9.0, 9.0 * width * 20 / 12)
            axes.text(left + 0.45 * width, y + 0.4, str(dilation), ha="center", va="center", color=INK, size=size)
        step_hz /= stage.pool
    axes.set_xlim(-9.5, 20)
    axes.set_ylim(-0.1, len(stages) - 0.1)
    axes.set_title("Gated residual blocks, with their dilations")


def paths(axes: Axes, kernel: int, dilations: Sequence[int], *, causal: bool, outputs: int = 8) -> int:
    """Draw dilated convolutions as dots and lines; those that lead to the last (or middle) output are marked.

    Returns:
        How many inputs that output depends on.
    """
    reaches = [dilated_reach(kernel, dilation, causal) for dilation in dilations]
    before, after = (sum(reach[side] for reach in reaches) for side in (0, 1))
    positions = np.arange(before + after + 1 + (outputs if causal else 2))
    chosen = {before + (outputs if causal else 1)}
    for layer in range(len(dilations), -1, -1):
        marked = np.isin(positions, sorted(chosen))
        axes.plot(positions, np.full(len(positions), layer), "o", color="#cccccc", markersize=3.5, zorder=2)
        axes.plot(positions[marked], np.full(marked.sum(), layer), "o", color=BLUE, markersize=5, zorder=3)
        if layer:
            taps = np.arange(kernel) * dilations[layer - 1] - reaches[layer - 1][0]
            for place in sorted(chosen):
                for tap in taps:
                    axes.plot(
                        [place, int(place + tap)], [layer, layer - 1], color=BLUE, linewidth=0.7, alpha=0.7, zorder=1
                    )
            chosen = {int(place + tap) for place in chosen for tap in taps}
    axes.set_yticks(range(len(dilations) + 1), ["input", *(f"dilation {d}" for d in dilations)])
    axes.tick_params(length=0)
    axes.set_xticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xlim(-1, len(positions))
    axes.set_xlabel(f"one output depends on {len(chosen)} inputs")
    return len(chosen)


def _reach(axes: Axes, module: Any, config: EncoderConfig | GeneratorConfig, rate: int) -> None:
    """The size of the gradient of one output with respect to each sample, beside what the pure function says."""
    if isinstance(config, GeneratorConfig):
        gradient, own = generator_gradient(module), 1
        before, after = config.receptive_samples, 0
    else:
        gradient, own = recognizer_gradient(module), config.hop_samples
        before, after = receptive_field(config)
    times_ms = 1000 * (np.arange(len(gradient)) - len(gradient) // 2) / rate
    axes.semilogy(times_ms, np.where(gradient > 0, gradient / gradient.max(), np.nan), color=BLUE, linewidth=0.7)
    low, high = -1000 * before / rate, 1000 * (own + after) / rate
    for edge in (low, high):
        axes.axvline(edge, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.axvspan(0, 1000 * own / rate, color=GREY, alpha=0.25, linewidth=0)
    axes.set_xlim(1.1 * low, max(1.1 * high, -0.1 * low))
    axes.set_ylim(1e-7, 3)
    seen = f"{before:,} samples before, {own:,} of its own, {after:,} after: {high - low:.1f} ms"
    axes.set_title(f"Receptive field of one output: {seen} (dashed)")
    label(axes, "time from the output's first sample (ms)", "|d output / d sample|\n(relative)")


def recognizer_gradient(module: Any) -> Floats:
    """How much frame log-probabilities change with each sample, from the middle frame on noise: (S,), odd."""
    import torch

    before, after = module.receptive_field
    hop = module.hop_samples
    frames = 2 * ((max(before, after) + hop) // hop + 2)
    length = frames * hop
    total = np.zeros(length)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_DRAWS):
        waveform = (0.1 * torch.randn(1, length, generator=generator)).requires_grad_()
        log_probs, _ = module(waveform, torch.tensor([length]))
        weights = torch.randn(log_probs.shape[2], generator=generator)
        (gradient,) = torch.autograd.grad((log_probs[0, frames // 2] * weights).sum(), waveform)
        total += gradient[0].abs().double().numpy()
    return total


def generator_gradient(module: Any) -> Floats:
    """How much the logits at one time change with each input, on noise: (T,); the last input is in the middle."""
    import torch

    config: GeneratorConfig = module.config
    frames = 2 * (config.receptive_samples // config.hop_samples + 2)
    length = frames * config.hop_samples
    total = np.zeros(length)
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(config.dilations), 2 * config.channels, frames)
    for _ in range(_DRAWS):
        inputs = torch.randn(1, config.inputs, length, generator=generator).requires_grad_()
        logits = module(inputs, 0.1 * torch.randn(*shape, generator=generator))
        weights = torch.randn(logits.shape[1], generator=generator)
        (gradient,) = torch.autograd.grad((logits[0, :, length // 2] * weights).sum(), inputs)
        total += gradient[0].abs().sum(dim=0).double().numpy()
    # The input at t holds sample t - 1, and what the output predicts is sample t.
    return np.concatenate([total[1:], [0.0]])
