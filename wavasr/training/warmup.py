"""The front end's warm-up: without labels, the stages down to 10 ms learn to predict the log-mel spectrum.

It is a plain regression on visible input, run on any audio with random gain, noise and rooms. A warm front end spares
the hours that a raw-waveform network otherwise needs before it recognises anything.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from wavasr.audio.augment import Augmenter
from wavasr.audio.config import AugmentConfig
from wavasr.audio.features import log_mel
from wavasr.audio.reading import audio_duration_s
from wavasr.config import SEEDS, check, to_dict
from wavasr.corpora.manifest import Utterance
from wavasr.errors import ConfigError
from wavasr.files import check_writable, is_standard_output
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig
from wavasr.network.recognizer import Recognizer, load_front_end, save_front_end
from wavasr.training.dataset import AudioStore
from wavasr.training.recipe import add_groups, new_parser, read
from wavasr.training.splits import read_manifests
from wavasr.training.workers import loaded, worker_context

BANDS = 80
CROP_S = 1.5
_NOISE_S = 1.0  # of each noise recording, which is used alone too, not only mixed in
LOG_MEL_SCALE = (-6.0, 4.0)  # about the mean and deviation of speech's log-mel, so that the targets have unit range
_log = logging.getLogger("wavasr")


@dataclass(frozen=True)
class WarmupDataConfig:
    """Which recordings are learnt from; their texts are not used.

    Attributes:
        root: folder that the manifests are relative to.
        train: manifests (JSON lines) to train on.
        dev: manifests of other speakers, to score the front end on.
    """

    root: Path = Path()
    train: tuple[str, ...] = ("train.jsonl",)
    dev: tuple[str, ...] = ("dev.jsonl",)


@dataclass(frozen=True)
class WarmupConfig:
    """How long and on what the front end is warmed up.

    Attributes:
        minutes: wall-clock time; the learning rate falls to zero over it.
        batch: crops of 1.5 s in a step.
        lr: highest learning rate of AdamW.
        seed: start of every random choice.
    """

    minutes: float = 15.0
    batch: int = 16
    lr: float = 2e-3
    seed: int = 0
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(init="random"))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: WarmupDataConfig = field(default_factory=WarmupDataConfig)

    def __post_init__(self) -> None:
        check(self, "", minutes="(0, inf)", batch="[1, inf)", lr="(0, inf)", seed=SEEDS)


_GROUPS = {"encoder": EncoderConfig, "augment": AugmentConfig, "data": WarmupDataConfig}
_DEFAULTS = {
    "encoder.init": "random",
    "augment.gain_db": (-25.0, 10.0),
    "augment.noise_probability": 0.25,
    "augment.room_probability": 0.25,
}


class RandomCrops(IterableDataset[Tensor]):
    """Endless random crops (CROP_S,) of the stored audio, augmented."""

    def __init__(self, store: AudioStore, augmenter: Augmenter, sample_rate: int, seed: int) -> None:
        self.store, self.augmenter, self.seed = store, augmenter, seed
        self.size = round(CROP_S * sample_rate)

    def batches(self, size: int) -> Callable[[int], Iterator[Tensor]]:
        """From a number on, others for each number: (`size`, CROP_S) by a process of its own."""

        def begin(number: int) -> Iterator[Tensor]:
            crops = copy.copy(self)
            crops.seed += number
            context = worker_context(1)
            return iter(
                DataLoader(crops, batch_size=size, num_workers=1, prefetch_factor=8, multiprocessing_context=context)
            )

        return begin

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
    config: WarmupConfig, utterances: Sequence[Utterance], unseen: Sequence[Utterance]
) -> tuple[FrontEndTask, dict[str, float]]:
    """Train a front end on `utterances`; report its explained variance on `unseen` speakers.

    Raises:
        AudioError: a file cannot be read.
    """
    torch.manual_seed(config.seed)
    task = FrontEndTask(config.encoder)
    load_front_end(task.recognizer, config.encoder.init)
    rate = task.recognizer.sample_rate
    crops = RandomCrops(AudioStore(utterances, rate), Augmenter(config.augment, rate), rate, config.seed)
    loader = loaded(crops.batches(config.batch), workers=1)
    front_end_and_bands = [*task.recognizer.front_end.parameters(), *task.bands.parameters()]
    optimizer = torch.optim.AdamW(front_end_and_bands, lr=config.lr, betas=(0.9, 0.98), weight_decay=1e-4)
    started, done, steps, loss = time.monotonic(), 0.0, 0, torch.zeros(())
    with tqdm(total=100, unit="%", desc="warming up the front end") as bar:
        while done < 1.0:
            rise = min(1.0, (steps + 1) / 50)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * rise * (0.5 * (1 + math.cos(math.pi * done)) + 1e-3)
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
    config, output = parse(arguments)
    data = config.data
    utterances, unseen = ([*read_manifests(data.root, names)] for names in (data.train, data.dev))
    overlap = {u.speaker for u in utterances if u.speaker} & {u.speaker for u in unseen}
    if overlap:
        raise ConfigError(f"data.dev: speaker {min(overlap)} is in data.train too; give speakers that are not")
    noises = Augmenter(config.augment, config.encoder.sample_rate).noises.files
    utterances += [Utterance(path.stem, path, min(_NOISE_S, audio_duration_s(path)), "") for path in noises]
    task, figures = warm_up(config, utterances, unseen)
    save_front_end(task.recognizer, output, record_of(config, figures))
    _log.info("explained variance of log-mel on %d unseen utterances: %.4f", len(unseen), figures["explained_variance"])
    if not is_standard_output(output):
        print(output)
    return 0


def parse(arguments: Sequence[str]) -> tuple[WarmupConfig, Path]:
    """Read the command line of `wavasr warmup`, as that of `wavasr fit`; also the file to write.

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, a file that is missing, no place for the result.
    """
    parser = new_parser("Warm up a front end without labels.", prog="wavasr warmup")
    parser.add_argument("--output", type=Path | None, default=None, help="the front end file to write")
    parser.add_argument("--minutes", type=float, default=WarmupConfig.minutes, help="how long to train")
    parser.add_argument("--batch", type=int, default=WarmupConfig.batch, help="crops of 1.5 s in a step")
    parser.add_argument("--lr", type=float, default=WarmupConfig.lr, help="highest learning rate of AdamW")
    add_groups(parser, _GROUPS)
    parser.set_defaults(_DEFAULTS)
    found = read(arguments, parser)
    values = found.values
    if values.output is None:
        raise ConfigError("--output is not given; name the front end file to write")
    if values.output.is_dir():
        raise ConfigError(f"--output: {values.output} is a folder; give the front end file's name in it")
    check_writable(values.output)
    made = {name: found.made[name] for name in _GROUPS}
    return WarmupConfig(values.minutes, values.batch, values.lr, values.seed, **made), values.output


def record_of(config: WarmupConfig, figures: Mapping[str, float]) -> dict[str, Any]:
    """What the front end file says of its making. Folders by their names only: the file goes to other machines."""
    augment, encoder, data = config.augment, config.encoder, config.data
    noises, rooms = (folder and Path(folder.name) for folder in (augment.noise_dir, augment.room_dir))
    train, dev = (tuple(Path(name).name for name in names) for names in (data.train, data.dev))
    portable = replace(
        config,
        augment=replace(augment, noise_dir=noises, room_dir=rooms),
        encoder=replace(encoder, init=Path(encoder.init).name),
        data=WarmupDataConfig(Path(data.root.name), train, dev),
    )
    return {"warmup": to_dict(portable), "figures": dict(figures)}
