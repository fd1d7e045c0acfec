"""What the generative loss has learnt, to be heard and seen: hidden spans filled in, and the likelihood of each sample.

The encoder and the likelihood's layers stand in a file of their own beside the model, `model.likelihood.safetensors`: a
recogniser needs its averaged encoder alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wavasr.audio.features import mu_law_decode
from wavasr.config import from_dict, to_dict
from wavasr.errors import ConfigError, ModelError, WavasrError
from wavasr.files import write_whole
from wavasr.network.config import AuxiliaryConfig, EncoderConfig
from wavasr.network.likelihood import AuxiliaryLoss, Hidden, past_of
from wavasr.network.wavenet import Encoder

SUFFIX = ".likelihood.safetensors"
_KEY = "wavasr-likelihood"


class SampleLikelihood(nn.Module):
    """An encoder and the likelihood of the samples that are hidden from it."""

    def __init__(self, encoder: Encoder, likelihood: AuxiliaryLoss) -> None:
        super().__init__()
        self.encoder = encoder
        self.likelihood = likelihood

    def save(self, path: Path) -> None:
        """Write the weights with the configurations that they belong to."""
        header = {"encoder": to_dict(self.encoder.config), "auxiliary": to_dict(self.likelihood.config)}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_whole(path, save(weights, metadata={_KEY: json.dumps(header)}))


def likelihood_path(model: Path) -> Path:
    """Where the likelihood of a model file stands."""
    return model.with_suffix(SUFFIX)


def load_likelihood(path: Path) -> SampleLikelihood:
    """The likelihood beside a model file, or the file itself.

    Raises:
        ModelError: there is none, or it can not be read.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; expected a model file")
    path = path if path.name.endswith(SUFFIX) else likelihood_path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; training writes it where auxiliary.weight is more than 0")
    try:
        with safe_open(path, "pt") as stream:
            header = json.loads(stream.metadata()[_KEY])
            encoder = from_dict(EncoderConfig, header["encoder"])
            likelihood = AuxiliaryLoss(encoder, from_dict(AuxiliaryConfig, header["auxiliary"]))
            model = SampleLikelihood(Encoder(encoder), likelihood)
            names = list(stream.keys())
            model.load_state_dict({name: stream.get_tensor(name) for name in names})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, WavasrError) as error:
        raise ModelError(f"{path}: is no likelihood of samples ({str(error).splitlines()[0]})") from error
    return model.eval()


@torch.inference_mode()
def sample_nats(model: SampleLikelihood, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """-log P of each sample given what is not hidden with it: (S,) -> (S,), NaN where it is not asked for.

    A causal encoder is asked for every sample at once. For a non-causal one every span is hidden in turn, as many at a
    time as in training. The last samples, and the first of a causal encoder, are no whole step and not asked for.
    """
    loss, samples = model.likelihood, torch.from_numpy(waveform)[None]
    whole, steps = len(waveform) // loss.stride, -(-len(waveform) // loss.stride)
    passes = 1 if loss.causal else max(2, round(1 / loss.config.hidden_share))
    nats = np.full(steps * loss.stride, np.nan, np.float32)
    place = torch.arange(steps)
    for number in range(passes):
        asked = (place // loss.span_steps % passes == number) & (place < whole) & (place > (0 if loss.causal else -1))
        hidden = loss.hide_steps(samples, asked[None])
        if len(hidden.steps):
            scores = _scores(model, hidden).log_softmax(-1)
            found = -scores.gather(2, hidden.classes[..., None])[..., 0]
            nats.reshape(-1, loss.stride)[hidden.steps.numpy()] = found.numpy()
    return nats[: len(waveform)]


@torch.inference_mode()
def inpaint(
    model: SampleLikelihood, waveform: NDArray[np.float32], start_s: float, end_s: float, seed: int = 0
) -> NDArray[np.float32]:
    """The recording with a span sampled anew from the trained likelihood, given both sides of it: (S,) -> (S,).

    Args:
        model: of a non-causal encoder, the one kind that fills in from both sides.
        waveform: at the encoder's sample rate.
        start_s: where the span begins; it is widened to whole steps of the encoder.
        end_s: where it ends.
        seed: of the samples that are drawn.

    Raises:
        ConfigError: the encoder is causal, nothing was hidden in training, or the span does not lie inside the
            recording.
    """
    loss, rate = model.likelihood, model.encoder.config.sample_rate
    if loss.causal:
        raise ConfigError("a causal encoder knows one side only; inpaint with a model of encoder.context: noncausal")
    if loss.bottleneck is not None:
        raise ConfigError("with auxiliary.bottleneck nothing was hidden; inpaint with a model trained without it")
    if not 0 <= start_s < end_s <= len(waveform) / rate:
        raise ConfigError(f"--hide {start_s:g}-{end_s:g}: expected a span within the {len(waveform) / rate:.2f} s")
    samples = torch.from_numpy(waveform.copy())[None]
    first = int(start_s * rate) // loss.stride
    end = min(max(-(-round(end_s * rate) // loss.stride), first + 1), len(waveform) // loss.stride)
    if first >= end:
        raise ConfigError(
            f"--hide {start_s:g}-{end_s:g}: expected a span that begins before {end * loss.stride / rate:g} s; "
            "what follows is no whole step of the encoder"
        )
    place = torch.arange(-(-len(waveform) // loss.stride))
    hidden = loss.hide_steps(samples, ((place >= first) & (place < end))[None])
    generator = torch.Generator().manual_seed(seed)
    if loss.wavenet is None:
        classes = torch.multinomial(_scores(model, hidden).flatten(0, 1).softmax(-1), 1, generator=generator)
        filled = mu_law_decode(classes[:, 0], loss.config.levels)
    else:
        filled = _one_by_one(model, hidden, generator)
    samples[0, first * loss.stride : end * loss.stride] = filled
    return samples[0].numpy()


def _scores(model: SampleLikelihood, hidden: Hidden) -> Tensor:
    lengths = torch.tensor([hidden.waveform.shape[1]])
    return model.likelihood.logits(model.encoder(hidden.waveform, lengths), hidden).float()


def _one_by_one(model: SampleLikelihood, hidden: Hidden, generator: torch.Generator) -> Tensor:
    """A span sample by sample, each from those before it: (N * stride,)."""
    loss, wavenet = model.likelihood, model.likelihood.wavenet
    assert wavenet is not None
    features = model.encoder(hidden.waveform, torch.tensor([hidden.waveform.shape[1]]))
    context = torch.relu(loss.context(features, hidden))
    clean, levels = hidden.clean.clone(), loss.config.levels
    utterance = torch.zeros(1, dtype=torch.int64)
    for number, step in enumerate(hidden.steps.tolist()):
        begin = torch.tensor([(step - wavenet.past_steps) * loss.stride - 1])
        for sample in range(loss.stride):
            past = past_of(clean, utterance, begin, (wavenet.past_steps + 1) * loss.stride, levels)
            scores = wavenet.scores(past, context[None, number : number + 1])[0, sample].float()
            drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)
            clean[0, step * loss.stride + sample] = mu_law_decode(drawn, levels)[0]
    first = int(hidden.steps[0]) * loss.stride
    return clean[0, first : first + len(hidden.steps) * loss.stride]
