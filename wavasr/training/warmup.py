"""The front end's warm-up: without labels, the stages down to 10 ms learn to predict the log-mel spectrum.

It is a plain regression on visible input, run on any audio with random gain, noise and rooms. A warm front end spares
the hours that a raw-waveform network otherwise needs before it recognises anything.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from wavasr.audio.augment import Augmenter
from wavasr.audio.config import AugmentConfig
from wavasr.audio.features import log_mel
from wavasr.config import to_dict
from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.errors import ConfigError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig
from wavasr.network.recognizer import Recognizer, load_front_end, save_front_end
from wavasr.training.dataset import AudioStore

BANDS = 80
CROP_S = 1.5
LOG_MEL_SCALE = (-6.0, 4.0)  # about the mean and deviation of speech's log-mel, so that the targets have unit range
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmupConfig:
    """How long and on what the front end is warmed up.

    Attributes:
        preset: whose front end (`EncoderConfig.preset`).
        context: "noncausal" or "causal".
        minutes: wall-clock time; the learning rate falls to zero over it.
        batch: crops of 1.5 s a step.
        learning_rate: the highest; AdamW.
        seed: of the start, the crops and the augmentation.
        init: "random", or a front end to go on from.
    """

    preset: str = "base"
    context: str = "noncausal"
    minutes: float = 15.0
    batch: int = 16
    learning_rate: float = 2e-3
    seed: int = 0
    init: str = "random"

    def __post_init__(self) -> None:
        for key in ("minutes", "batch", "learning_rate"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"--{key.replace('_', '-')} is {getattr(self, key)}; expected more than 0")


class Crops(IterableDataset[Tensor]):
    """Endless random crops (CROP_S,) of the stored audio, augmented."""

    def __init__(self, store: AudioStore, augmenter: Augmenter, sample_rate: int, seed: int) -> None:
        self.store, self.augmenter, self.seed = store, augmenter, seed
        self.size = round(CROP_S * sample_rate)

    def __iter__(self) -> Iterator[Tensor]:
        rng = np.random.default_rng(self.seed)
        ends = np.cumsum(self.store.lengths)
        while True:
            # A random second of the store: long utterances are chosen as often as they are long.
            waveform = self.store[int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))]
            start = int(rng.integers(max(1, len(waveform) - self.size + 1)))
            crop = self.augmenter(waveform[start : start + self.size], rng)[: self.size]
            yield torch.from_numpy(np.pad(crop, (0, self.size - len(crop))))


class FrontEndTask(nn.Module):
    """The front end and a linear map from its 10 ms frames to log-mel bands."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        # The recogniser's top is never run here; its front end is what is trained and written.
        self.recognizer = Recognizer(config, Units.characters(["a"]), TextConfig())
        self.bands = nn.Conv1d(config.stages[config.front_end_stages - 1].output_channels, BANDS, 1)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) -> standardised log-mel (B, BANDS, T)."""
        lengths = torch.full((len(waveform),), waveform.shape[1], dtype=torch.int64)
        features = self.recognizer.encoder(waveform, lengths, stages=self.recognizer.encoder_config.front_end_stages)
        predicted: Tensor = self.bands(features[-1].frames)
        return predicted

    def target(self, waveform: Tensor) -> Tensor:
        """The standardised log-mel that `forward` is to predict."""
        mean, deviation = LOG_MEL_SCALE
        return (log_mel(waveform, self.recognizer.sample_rate, BANDS) - mean) / deviation


def explained_variance(task: FrontEndTask, waveforms: Sequence[Tensor]) -> float:
    """Share of the log-mel's variance over time that the front end predicts, averaged over bands; 1 is perfect."""
    residual = torch.zeros(BANDS, dtype=torch.float64)
    moments = torch.zeros(3, BANDS, dtype=torch.float64)
    with torch.no_grad():
        for waveform in waveforms:
            target = task.target(waveform[None])[0].double()  # (BANDS, T)
            predicted = task(waveform[None])[0, :, : target.shape[1]].double()
            residual += (predicted - target).square().sum(1)
            moments += torch.stack([torch.full((BANDS,), target.shape[1]), target.sum(1), target.square().sum(1)])
    count, total, square = moments
    return float((1 - residual / (square - total.square() / count)).mean())


def warm_up(
    config: WarmupConfig, utterances: Sequence[Utterance], unseen: Sequence[Utterance], augment: AugmentConfig
) -> tuple[FrontEndTask, dict[str, float]]:
    """Train a front end on `utterances`; report its explained variance on `unseen` speakers.

    Raises:
        AudioError: a file cannot be read.
    """
    torch.manual_seed(config.seed)
    task = FrontEndTask(EncoderConfig(preset=config.preset, context=config.context))  # type: ignore[arg-type]
    load_front_end(task.recognizer, config.init)
    rate = task.recognizer.sample_rate
    crops = Crops(AudioStore(utterances, rate), Augmenter(augment, rate), rate, config.seed)
    loader = iter(DataLoader(crops, batch_size=config.batch, num_workers=1, prefetch_factor=8))
    front_end_and_bands = [*task.recognizer.front_end.parameters(), *task.bands.parameters()]
    optimizer = torch.optim.AdamW(front_end_and_bands, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    started, done, steps, loss = time.monotonic(), 0.0, 0, torch.zeros(())
    with tqdm(total=100, unit="%", desc="warming up the front end") as bar:
        while done < 1.0:
            rise = min(1.0, (steps + 1) / 50)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rise * (0.5 * (1 + math.cos(math.pi * done)) + 1e-3)
            waveform = next(loader)
            with torch.autocast("cpu", torch.bfloat16):
                predicted = task(waveform)
            loss = (predicted.float() - task.target(waveform)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(front_end_and_bands, 1.0)
            optimizer.step()
            steps += 1
            done = (time.monotonic() - started) / (60 * config.minutes)
            bar.set_postfix(loss=f"{loss.item():.4f}", steps=steps, refresh=False)
            bar.update(min(100, round(100 * done)) - bar.n)
    store = AudioStore(unseen, rate)
    explained = explained_variance(task.eval(), [torch.from_numpy(store[i]) for i in range(len(unseen))])
    return task, {"explained_variance": explained, "steps": steps, "loss": loss.item(), "minutes": config.minutes}


def main(arguments: Sequence[str]) -> int:
    """`wavasr warmup`: manifests in, a front end file out.

    Raises:
        WavasrError: a manifest, a recording, a setting or the place of the front end file cannot be used.
    """
    options = _parser().parse_args(arguments)
    config = WarmupConfig(
        preset=options.preset,
        context=options.context,
        minutes=options.minutes,
        batch=options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
        init=options.init,
    )
    if options.output.is_dir():
        raise ConfigError(f"--output: {options.output} is a folder; give the front end file's name in it")
    utterances = [utterance for manifest in options.train for utterance in read_manifest(manifest)]
    unseen = [utterance for manifest in options.dev for utterance in read_manifest(manifest)]
    overlap = {u.speaker for u in utterances if u.speaker} & {u.speaker for u in unseen}
    if overlap:
        raise ConfigError(f"--dev: speaker {min(overlap)} is in --train too; give speakers that are not in training")
    if options.noise:
        noises = sorted(path for path in Path(options.noise).rglob("*") if path.suffix in {".opus", ".flac", ".wav"})
        utterances += [Utterance(path.stem, path, 1.0, "") for path in noises]
    augment = AugmentConfig(
        gain_db=(-25.0, 10.0),
        noise_dir=options.noise,
        noise_probability=0.25 if options.noise else 0.0,
        room_dir=options.rooms,
        room_probability=0.25 if options.rooms else 0.0,
    )
    task, figures = warm_up(config, utterances, unseen, augment)
    save_front_end(task.recognizer, options.output, record_of(config, augment, figures))
    _log.info("explained variance of log-mel on %d unseen utterances: %.4f", len(unseen), figures["explained_variance"])
    print(options.output)
    return 0


def record_of(config: WarmupConfig, augment: AugmentConfig, figures: Mapping[str, float]) -> dict[str, Any]:
    """What the front end file says of its making. Folders by their names only: the file goes to other machines."""
    noises, rooms = (folder and Path(folder.name) for folder in (augment.noise_dir, augment.room_dir))
    return {
        "warmup": {**to_dict(config), "init": Path(config.init).name},
        "augment": to_dict(replace(augment, noise_dir=noises, room_dir=rooms)),
        "figures": dict(figures),
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        allow_abbrev=False,
        prog="wavasr warmup",
        description="Warm up an encoder's front end without labels, by predicting the log-mel spectrum.",
        epilog="example: wavasr warmup --train train.jsonl --dev dev.jsonl --output front-end.safetensors",
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, metavar="JSONL", help="audio")
    parser.add_argument("--dev", type=Path, nargs="+", required=True, metavar="JSONL", help="unseen speakers, to score")
    parser.add_argument("--noise", type=Path, metavar="DIR", help="noise recordings, mixed in and used alone")
    parser.add_argument("--rooms", type=Path, metavar="DIR", help="room impulse responses")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the front end file to write")
    defaults = WarmupConfig()
    parser.add_argument("--preset", default=defaults.preset)
    parser.add_argument("--context", choices=["noncausal", "causal"], default=defaults.context)
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--init", default=defaults.init, help='"random" or a front end to go on from')
    return parser
