"""The training and validation sets of a recipe, encoded, checked and decoded, and the loaders over them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from wavasr.audio.augment import Augmenter
from wavasr.config import to_dict
from wavasr.corpora.manifest import Utterance
from wavasr.errors import CorpusError
from wavasr.network.recognizer import Recognizer, weights_sha256
from wavasr.training.config import FitConfig
from wavasr.training.dataset import Batch, FrameLabels, SpeechDataset, SpeechLoader, collate
from wavasr.training.frame_cache import CachedFrames, Version
from wavasr.training.plan import Plan, RankBatches
from wavasr.training.processes import connected
from wavasr.training.splits import Split, Splits, encode_split, infeasible, refuse_overlap
from wavasr.training.unlabelled import MixedLoader, UnlabelledBatches, read_unlabelled
from wavasr.training.workers import loaded, worker_context


class SpeechData(pl.LightningDataModule):
    """Everything that a trainer reads.

    Raises:
        WavasrError: a text, a recording or an alignment cannot be used, or nothing is left to train or validate on.
    """

    def __init__(self, config: FitConfig, splits: Splits, recognizer: Recognizer) -> None:
        super().__init__()
        self.config = config
        self._loader_state: dict[str, int] | None = None
        self._train_loader: SpeechLoader | MixedLoader | None = None
        self.frame_labels: FrameLabels | None = None
        if config.auxiliary.frame_weight:
            self.frame_labels = FrameLabels(splits.train.utterances, config.units.phone_set, recognizer.hop_samples)
            if not self.frame_labels.phones:
                raise CorpusError(
                    "auxiliary.frame_weight needs time-aligned phones, and the training manifests have none"
                )
        augmenter = Augmenter(config.augment, recognizer.sample_rate)
        self.unlabelled = read_unlabelled(config.data)
        refuse_overlap(self.unlabelled, [*splits.dev.utterances, *splits.test.utterances])
        self._augmenter, self._sample_rate = augmenter, recognizer.sample_rate
        self.train = self._dataset(splits.train, recognizer, augmenter)
        self.dev = self._dataset(splits.dev, recognizer, None)

    def cache_front_end(self, recognizer: Recognizer, device: torch.device, autocast: bool) -> None:
        """Compute and keep the frozen front end's frames of `optim.front_end_copies` augmented versions of the speech.

        What is there when a run is resumed is used. Of several processes each computes its part, and all wait for the
        others.

        Args:
            recognizer: its front end stays on `device` afterwards.
            device: where to compute.
            autocast: compute in bfloat16.
        """
        optim, augment = self.config.optim, self.config.augment
        if not optim.front_end_copies or (self._loader_state or {}).get("epoch", 0) >= optim.front_end_frozen_epochs:
            return
        rate, hop = recognizer.sample_rate, recognizer.front_end_hop_samples
        recognizer.to(device).eval()
        # The frames are masked anew in every epoch, the samples need not be.
        unmasked = dataclasses.replace(augment, time_masks=0.0)
        channels = recognizer.encoder_config.stages[recognizer.encoder_config.front_end_stages - 1].output_channels
        front_end = json.dumps(
            [weights_sha256(recognizer.front_end), to_dict(unmasked), rate, autocast, self.config.seed]
        )
        folders = [
            self.front_end_folder / hashlib.sha256(f"{front_end} {version}".encode()).hexdigest()[:16]
            for version in range(optim.front_end_copies)
        ]
        for number, folder in enumerate(folders):
            version = Version(folder, channels)
            missing = {index for index, utterance in enumerate(self.train.utterances) if utterance not in version}
            if missing:
                with self.train.augmented_by(Augmenter(unmasked, rate)):
                    version.write(self._computed(recognizer, device, autocast, number, missing))
        if connected():
            torch.distributed.barrier()
        recognizer.train()
        versions = [Version(folder, channels) for folder in folders]
        self.train.cached = CachedFrames(versions, optim.front_end_frozen_epochs, hop, augment, rate / hop)

    @property
    def front_end_folder(self) -> Path:
        """Where the frames of the frozen front end lie."""
        return self.config.run_dir / "front-end-frames"

    def _computed(
        self, recognizer: Recognizer, device: torch.device, autocast: bool, version: int, missing: set[int]
    ) -> Iterator[tuple[Utterance, Tensor, int]]:
        """Utterances that are not cached yet, with their frames (C, T) and their samples."""
        planned = self._batches(self.train, self.config.augment.speed[0], shuffle=True).batches(version)
        batches = [draws for draws in planned if any(draw.utterance in missing for draw in draws)]
        workers = self.config.data.workers

        def begin(number: int) -> Iterator[Batch]:
            left = DataLoader(
                self.train,
                batch_sampler=batches[number:],
                num_workers=workers,
                collate_fn=collate,
                multiprocessing_context=worker_context(workers),
            )
            return iter(left)

        bar = f"frames of the frozen front end, version {version + 1}"
        for batch in tqdm(loaded(begin, workers), bar, total=len(batches), disable=None):
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                features = recognizer.front_end_frames(batch.waveform.to(device), batch.lengths.to(device))
            for row, place in enumerate(batch.places):
                frames = features.frames[row, :, : int(features.lengths[row])].to("cpu", torch.float16)
                yield self.train.utterances[place], frames, int(batch.lengths[row])

    def _dataset(self, split: Split, recognizer: Recognizer, augmenter: Augmenter | None) -> SpeechDataset:
        config = self.config
        utterances, labels = encode_split(split, recognizer.units, config.units)
        dataset = SpeechDataset(
            utterances,
            labels,
            recognizer.sample_rate,
            augment=augmenter,
            frame_labels=self.frame_labels if augmenter else None,
            seed=config.seed,
            cache_mb=config.data.cache_mb,
        )
        fastest = config.augment.speed[1] if augmenter else 1.0
        shortest = torch.from_numpy(dataset.samples / fastest).floor().long()
        frames = recognizer.frame_lengths(shortest).numpy()
        dataset.drop(infeasible(utterances, labels, frames, config.data))
        if not len(dataset):
            raise CorpusError(
                f"no {'training' if augmenter else 'validation'} utterance is left; see the messages above"
            )
        return dataset

    def train_dataloader(self) -> SpeechLoader | MixedLoader:
        """Augmented batches, in a new order each epoch; with `data.unlabelled`, others between them."""
        loader = self._loader(self.train, self.config.augment.speed[0], shuffle=True)
        self._train_loader = self._mixed(loader) if self.unlabelled else loader
        if self._loader_state:
            self._train_loader.load_state_dict(self._loader_state)
        return self._train_loader

    def _mixed(self, labelled: SpeechLoader) -> MixedLoader:
        data = self.config.data
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = UnlabelledBatches(
            self.unlabelled, self._sample_rate, data.batch_s, self._augmenter, self.config.seed, rank, world_size
        )
        return MixedLoader(labelled, batches, data.unlabelled_share)

    def state_dict(self) -> dict[str, Any]:
        """The position in the data. Lightning restores loaders too late, when their first batches are on their way."""
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """For the loader that will be made."""
        self._loader_state = state_dict

    def val_dataloader(self) -> SpeechLoader:
        """The dev set as it is."""
        return self._loader(self.dev, 1.0, shuffle=False)

    def _loader(self, dataset: SpeechDataset, slowest: float, *, shuffle: bool) -> SpeechLoader:
        batches = self._batches(dataset, slowest, shuffle=shuffle)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return SpeechLoader(dataset, batches, self.config.data.workers if shuffle else 0, pin_memory=on_gpu)

    def plan(self) -> Plan:
        """The batches that are trained on."""
        return self._plan(self.train, self.config.augment.speed[0], shuffle=True)

    def _plan(self, dataset: SpeechDataset, slowest: float, *, shuffle: bool) -> Plan:
        data = self.config.data
        return Plan(
            (dataset.samples / slowest + 1) / dataset.sample_rate,
            data.batch_s,
            dataset.sample_rate,
            buckets=data.buckets,
            seed=self.config.seed,
            shuffle=shuffle,
            short_first_epochs=data.short_first_epochs,
        )

    def _batches(self, dataset: SpeechDataset, slowest: float, *, shuffle: bool) -> RankBatches:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return RankBatches(self._plan(dataset, slowest, shuffle=shuffle), rank, world_size)
