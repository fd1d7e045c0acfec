"""Adaptation to a speaker, a room, a microphone: a model learns from recordings that nobody has transcribed.

    recordings -> recognised thoroughly -> labels of the words -> biases that make these labels likelier than others

Some recognised words are wrong; but lexicon and language model have corrected much of what the network got wrong,
and all mistakes together say how a voice differs from those that the model knows. Only the biases move, few
of its numbers: they can follow a voice, and hardly learn single mistakes by heart.

Source: the loss is that of `wavasr.network.crf`, on the recogniser's own output as in Veselý et al. 2013,
"Semi-supervised training of deep neural networks", ASRU; biases alone after Swietojanski and Renals 2014, "Learning
hidden unit contributions for unsupervised speaker adaptation", SLT.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from wavasr.audio.reading import Samples
from wavasr.decoding.config import DEFAULT, DecodingConfig
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.greedy import Hypothesis
from wavasr.errors import ConfigError, ModelError
from wavasr.language.text import ctc_frames_needed
from wavasr.network.crf import MOST_LABELS, Competitors
from wavasr.network.recognizer import Recognizer, load_model, weights_sha256
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.models import opened
from wavasr.recognition.transcribe import decoded
from wavasr.recognition.workers import Workers, usable_processes

METADATA_KEY = "adapted"
_SENTENCES, _WORDS_EACH = 5000, 12  # drawn for the competitors
_LITTLE_S = 20.0

log = logging.getLogger("wavasr")


@dataclass(frozen=True)
class AdaptationConfig:
    """How far a model is moved. Chosen on dev speech, see docs/ablations.md.

    Attributes:
        epochs: passes over all stretches.
        batch_s: seconds of audio for one step, at least.
        learning_rate: of the first step; it falls to zero in a straight line. AdamW.
        seed: of the order.
    """

    epochs: int = 4
    batch_s: float = 15.0
    learning_rate: float = 6e-3
    seed: int = 0


DEFAULT_CONFIG = AdaptationConfig()


class Understood(NamedTuple):
    """A stretch of a recording, (S,) at the model's rate, and the labels of what it is taken to say."""

    waveform: Samples
    ids: tuple[int, ...]


def adapt(
    waveforms: Sequence[Samples],
    model: str | Path = "default",
    decoding: DecodingConfig = DEFAULT,
    config: AdaptationConfig = DEFAULT_CONFIG,
    progress: bool = False,
) -> Recognizer:
    """A model adapted to the voices and places of some recordings; no transcripts are needed.

    Args:
        waveforms: the recordings, (S,) float32 each, at the model's rate.
        model: a model file or shipped name.
        decoding: how the recordings are recognised; the model's own language model and words where it names none.
        config: how far the model is moved.
        progress: show a bar on stderr.

    Raises:
        ModelError: the model cannot be loaded, or adaptation diverged.
        ConfigError: the model has no words to understand by, or too many units; or nothing was understood.
        TextError: the language model is damaged.
    """
    recognizer, acoustic = load_model(model), opened(model)
    decode = decoder_of(replace(decoding, thorough=True, vad=False), acoustic)
    if not decode.words:
        raise ConfigError(f"{model}: has no words to understand recordings by; give --lm or --lexicon")
    if len(recognizer.units) > MOST_LABELS:
        raise ConfigError(f"{model}: has {len(recognizer.units)} units; only models of up to {MOST_LABELS} can adapt")
    stretches = list(understood(waveforms, acoustic, decode))
    if not stretches:
        raise ConfigError("no words were understood; give recordings in which somebody speaks")
    seconds = sum(len(one.waveform) for one in stretches) / recognizer.sample_rate
    if seconds < _LITTLE_S:
        log.warning("%.0f s of speech are little to adapt to; a minute or more is better", seconds)
    competitors = Competitors(sentences(decode, config.seed), len(recognizer.units))
    start = weights_sha256(recognizer)
    losses = _train(recognizer, stretches, competitors, config, progress)
    recognizer.metadata[METADATA_KEY] = {
        "from_sha256": start,
        **asdict(config),
        "understood_s": round(seconds, 1),
        "nats_per_label": losses,
    }
    return recognizer


def understood(waveforms: Sequence[Samples], model: AcousticModel, decode: Decoder) -> Iterator[Understood]:
    """The stretches of recordings in which words were recognised."""
    with Workers[Hypothesis](decode, usable_processes()) as workers:
        results = decoded(model, waveforms, decode, workers)
    for waveform, parts in zip(waveforms, results, strict=True):
        start = 0
        for part in parts:
            frames = part.frames or 0
            end = start + frames * model.hop_samples
            if part.ids and ctc_frames_needed(part.ids) <= frames:  # at another speed there may have been room for more
                yield Understood(waveform[start:end], part.ids)
            start = end


def sentences(decode: Decoder, seed: int) -> list[list[int]]:
    """Labels of words drawn as often as the language model has them: what is common in any speech."""
    spellings, unigrams = decode.spellings(), decode.unigrams()
    words = [word for word in spellings if not unigrams or word in unigrams]
    weights = np.array([unigrams.get(word, 1.0) for word in words])
    drawn = np.random.default_rng(seed).choice(len(words), (_SENTENCES, _WORDS_EACH), p=weights / weights.sum())
    between = decode.separator
    spelled = [[label for number in row for label in (*between, *spellings[words[number]])] for row in drawn.tolist()]
    return [labels[len(between) :] for labels in spelled]


def _train(
    model: Recognizer,
    stretches: Sequence[Understood],
    competitors: Competitors,
    config: AdaptationConfig,
    progress: bool,
) -> tuple[float, float]:
    """Move the model's biases; the loss of the first and of the last pass in nats per label."""
    rng = np.random.default_rng(config.seed)
    model.requires_grad_(False)
    biases = [parameter.requires_grad_() for name, parameter in model.named_parameters() if name.endswith("bias")]
    optimizer = torch.optim.AdamW(biases, lr=config.learning_rate, weight_decay=0.0)
    passes = [_batches(stretches, config.batch_s * model.sample_rate, rng) for _ in range(config.epochs)]
    steps, done, losses = sum(map(len, passes)), 0, []
    with tqdm(total=steps, desc="adapting", unit="step", disable=not progress, leave=False) as bar:
        for batches in passes:
            total = 0.0
            for batch in batches:
                optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - done / steps)
                optimizer.zero_grad()
                labels = sum(len(one.ids) for one in batch)
                for one in batch:
                    loss = nats(model, competitors, one)
                    (loss / labels).backward()  # type: ignore[no-untyped-call]
                    total += float(loss.detach())
                optimizer.step()
                done += 1
                bar.update()
            losses.append(total / sum(len(one.ids) for one in stretches))
            if not math.isfinite(losses[-1]):
                raise ModelError("adaptation diverged; give other recordings")
    model.requires_grad_(True)
    return round(losses[0], 4), round(losses[-1], 4)


def nats(model: Recognizer, competitors: Competitors, one: Understood) -> Tensor:
    """The CRF loss of one stretch in nats, a scalar: CTC and its denominator."""
    samples = len(one.waveform)
    # Padded to whole seconds, since convolutions on a CPU plan each length anew.
    waveform = torch.from_numpy(np.pad(one.waveform, (0, -samples % model.sample_rate)))
    log_probs, frames = model(waveform[None], torch.tensor([samples]))
    targets, lengths = torch.tensor([one.ids]), torch.tensor([len(one.ids)])
    ctc = F.ctc_loss(log_probs.transpose(0, 1), targets, frames, lengths, reduction="sum")
    return cast(Tensor, ctc + competitors(log_probs, frames, targets, lengths).sum())


def _batches(stretches: Sequence[Understood], samples: float, rng: np.random.Generator) -> list[list[Understood]]:
    """All stretches in random order, in batches of at least so many samples, but for the last."""
    batches: list[list[Understood]] = [[]]
    for index in rng.permutation(len(stretches)).tolist():
        if sum(len(one.waveform) for one in batches[-1]) >= samples:
            batches.append([])
        batches[-1].append(stretches[index])
    return batches
