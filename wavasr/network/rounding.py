"""Weights rounded so that what the network makes of real speech changes least.

The nearest step is the best for a weight alone. But a kernel's inputs go together, and where one weight has been
rounded up, others can make up for it. Here the weights of an output are rounded input after input, and the error of
each is spread over those that are still free, as the inputs' second moments on real speech say. So a third of the steps
do that 8-bit products have (`wavasr.network.onnx`), which therefore compute with exactly these weights.

Source: Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained transformers", ICLR;
Hassibi and Stork 1993, "Second order derivatives for network pruning: optimal brain surgeon", NeurIPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.errors import ModelError
from wavasr.network.files import Rounded, is_packed, steps_of
from wavasr.network.recognizer import Recognizer, load_model
from wavasr.network.wavenet import GatedBlock, normalise_frames

STEPS = 21  # to either side of zero
_MOST_HEARD = 120  # utterances; more change nothing
_DAMPING = 0.01  # of the mean second moment, added to each: what was not heard may come too


def round_to_speech(model: str | Path, speech: Sequence[Utterance]) -> dict[str, Rounded]:
    """The arrays of a model that a packed file has in bytes, rounded by what the network hears in real speech.

    Args:
        model: a model file or a shipped name.
        speech: some of it, evenly spread, is heard.

    Raises:
        ModelError: the model cannot be read, or its weights are not numbers.
        AudioError: a recording cannot be read.
    """
    recognizer = load_model(model)
    heard = speech[:: -(-len(speech) // _MOST_HEARD) or 1]
    result = {}
    for name, moments in second_moments(recognizer, heard).items():
        weights = recognizer.get_parameter(name).detach()
        if not (moments.isfinite().all() and weights.isfinite().all()):
            raise ModelError(f"{model}: {name} or what it hears is not all numbers; train the model again")
        step = steps_of(weights.numpy(), STEPS)
        values = rounded(weights.flatten(1).double(), moments, torch.from_numpy(step).flatten(1).double())
        result[name] = Rounded(values.to(torch.int8).reshape(weights.shape).numpy(), step)
    return result


def rounded(weights: Tensor, moments: Tensor, step: Tensor) -> Tensor:
    """Whole numbers of steps: (N, K), (K, K), (N, 1) float64 -> (N, K), none above `STEPS`.

    The loudest input comes first, while most of the others are free to make up for it.
    """
    damping = _DAMPING * moments.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    order = torch.argsort(moments.diagonal(), descending=True)
    damped = (moments + damping * torch.eye(len(moments), dtype=moments.dtype))[order][:, order]
    # The rows of this factor tell how the inputs still free make up for one: Frantar et al., section 3.3.
    spread = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    left, values = weights[:, order], torch.zeros_like(weights)
    for i, column in enumerate(order.tolist()):
        value = (left[:, i : i + 1] / step).round().clamp(-STEPS, STEPS)
        values[:, column] = value[:, 0]
        left[:, i:] -= (left[:, i : i + 1] - value * step) / spread[i, i] * spread[i, i:]
    return values


def second_moments(recognizer: Recognizer, speech: Sequence[Utterance]) -> dict[str, Tensor]:
    """Of every kernel that a packed file has in bytes, the sum over frames of x x', x (K,) its inputs at all taps, in
    the order of the kernel's weights; (K, K) float64.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, kernel: nn.Conv1d, frames: Tensor) -> None:
        (taps,), (dilation,) = kernel.kernel_size, kernel.dilation
        count = frames.shape[2] - (taps - 1) * dilation
        x = torch.cat([frames[0, :, None, tap * dilation :][..., :count] for tap in range(taps)], dim=1).flatten(0, 1)
        sums[name] = sums.get(name, 0) + (x @ x.T).double()

    def watch(name: str, module: nn.Module) -> Any:
        if isinstance(module, GatedBlock):  # it convolves by itself where the reach is the same to both sides

            def block(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
                add(f"{name}.dilated.weight", module.dilated, F.pad(normalise_frames(*inputs), module.padding))

            return module.register_forward_pre_hook(block)

        def convolution(kernel: nn.Module, inputs: tuple[Tensor]) -> None:
            assert isinstance(kernel, nn.Conv1d)
            add(f"{name}.weight", kernel, inputs[0])

        return module.register_forward_pre_hook(convolution)

    watched = []
    for name, module in recognizer.named_modules():
        kernel = module.dilated if isinstance(module, GatedBlock) else module
        if isinstance(kernel, nn.Conv1d) and not name.endswith(".dilated") and is_packed(name, kernel.weight.shape):
            watched.append(watch(name, module))
    for utterance in tqdm(speech, "hearing", disable=None):
        waveform = torch.from_numpy(load_utterance(utterance, recognizer.sample_rate))[None]
        with torch.inference_mode():
            recognizer(waveform, torch.tensor([waveform.shape[1]]))
    for hook in watched:
        hook.remove()
    return sums
