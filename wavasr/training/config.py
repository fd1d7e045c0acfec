"""Everything that decides a training run: data, optimiser, and the configurations of the other rooms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wavasr.audio.config import AugmentConfig
from wavasr.config import SEEDS, check, require
from wavasr.language.config import TextConfig, UnitsConfig
from wavasr.network.config import AuxiliaryConfig, EncoderConfig

LoggerName = Literal["tensorboard", "wandb", "mlflow", "csv"]


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are trained on, and how they become batches.

    Attributes:
        root: folder that the manifests are relative to.
        train: manifests (JSON lines) to train on.
        dev: manifests that choose the best epoch; empty: a part of `train` is held out.
        test: manifests that the finished model is evaluated on, once.
        dev_speakers: hold out this many speakers of `train`, the first in the order of a hash of their names, as
            `wavasr prepare` does.
        dev_every: hold out every n-th utterance of `train`; only where the test set has the same speakers too.
        unlabelled: manifests or folders of recordings that train by the generative loss alone, without their texts.
        unlabelled_share: of the batches; 1 is pre-training by the generative loss alone.
        align: the manifests hold words; the start model makes phones of them, once, before training.
        batch_s: seconds of audio in a batch, padding included; several processes share each batch.
        buckets: how many different batch lengths; each new shape costs CPU convolutions a new plan.
        short_first_epochs: in the first epochs short utterances come first: CTC finds their letters sooner
            (SortaGrad, Amodei et al. 2016, arXiv 1512.02595).
        max_s: training utterances longer than this are left out and counted; 0 for no limit.
        piece_s: training utterances with time-aligned phones are cut between phones into pieces of about so many
            seconds: from a random start many short steps teach sooner; 0 leaves them whole.
        workers: processes that augment and pad; 0 does it in the training process.
        cache_mb: so much audio is decoded once, before training, and kept by each process (115 MB an hour at 16 kHz);
            what is more is read from its files at each use.
        infeasible: what an utterance does whose frames are too few for its labels: an "error" that names it, or "drop".
        sources: name, licence and attribution of the recordings; the model file carries them, `wavasr info` tells them.
    """

    root: Path = Path()
    train: tuple[str, ...] = ("train.jsonl",)
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    dev_speakers: int = 0
    dev_every: int = 0
    unlabelled: tuple[str, ...] = ()
    unlabelled_share: float = 0.5
    align: bool = False
    batch_s: float = 60.0
    buckets: int = 8
    short_first_epochs: int = 0
    max_s: float = 0.0
    piece_s: float = 0.0
    workers: int = 1
    cache_mb: float = 2000.0
    infeasible: Literal["error", "drop"] = "error"
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.train) > 0, "data.train is empty; expected at least one manifest")
        counts = ("short_first_epochs", "dev_speakers", "dev_every", "workers", "max_s", "piece_s", "cache_mb")
        check(
            self,
            "data.",
            unlabelled_share="(0, 1]",
            batch_s="(0, inf)",
            buckets="[1, inf)",
            **dict.fromkeys(counts, "[0, inf)"),
        )
        require(self.dev_every != 1, "data.dev_every is 1, which leaves nothing to train on; expected 0 or 2 and more")
        require(
            bool(self.dev) + bool(self.dev_speakers) + bool(self.dev_every) == 1,
            f"data.dev is {list(self.dev)}, data.dev_speakers {self.dev_speakers}, data.dev_every {self.dev_every}; "
            "set exactly one of them: without speech to validate on there is no best epoch",
        )


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its learning rate over the steps, and the average of the weights that is kept.

    Attributes:
        method: "muon": steps equally long in all directions for the encoder's kernels, AdamW for the rest; or "adamw".
        lr: highest learning rate; about 3e-3 for muon, 1e-3 for adamw.
        weight_decay: of matrices and kernels; vectors (gains, biases) have none.
        warmup_steps: steps over which the learning rate rises from 0 to `lr`; after that a cosine takes it to 2 % of
            that at the last step of `trainer.max_epochs`.
        average_decay: weight of the past in the exponential moving average of the weights, which is what is validated
            and saved; it starts low, so that the average always covers about the last tenth of training. 0: no average.
        front_end_frozen_epochs: first epochs, in which only the layers above the front end learn (much faster).
        front_end_copies: while the front end is frozen, frames of so many augmented versions of the speech are computed
            once and kept in files (185 MB for an hour and version); each epoch masks the next version anew. The
            generative loss, which needs samples, starts after that. 0: they are computed in every epoch.
        front_end_lr_scale: learning rate of the front end after that, as a share of the others'.
    """

    method: Literal["muon", "adamw"] = "muon"
    lr: float = 3e-3
    weight_decay: float = 0.01
    warmup_steps: int = 200
    average_decay: float = 0.999
    front_end_frozen_epochs: int = 0
    front_end_copies: int = 0
    front_end_lr_scale: float = 0.3

    def __post_init__(self) -> None:
        counts = ("weight_decay", "warmup_steps", "front_end_frozen_epochs", "front_end_copies")
        check(
            self,
            "optim.",
            lr="(0, inf)",
            average_decay="[0, 1)",
            front_end_lr_scale="[0, 1]",
            **dict.fromkeys(counts, "[0, inf)"),
        )


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a training run except the machine it runs on (`trainer.*`).

    Attributes:
        run_dir: where logs, checkpoints, the model and its reports go.
        seed: start of every random choice: weights, batches, augmentation, dropout.
        start: a model file to go on from (fine-tuning) instead of `encoder.init`: its encoder, and the outputs of the
            units that it shares.
        checkpoint_minutes: a checkpoint to resume from is written this often, and after every epoch.
        patience: stop after this many validations without a better one; 0 trains all epochs.
        logger: where losses and error rates go beside metrics.csv: "tensorboard", "wandb", "mlflow" or "csv" (nowhere).
    """

    run_dir: Path
    seed: int = 0
    start: str = ""
    checkpoint_minutes: float = 10.0
    patience: int = 0
    logger: LoggerName = "tensorboard"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    text: TextConfig = field(default_factory=TextConfig)
    units: UnitsConfig = field(default_factory=UnitsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(dev=("dev.jsonl",)))
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        check(self, "", checkpoint_minutes="(0, inf)", patience="[0, inf)", seed=SEEDS)
        require(
            not self.data.unlabelled or self.auxiliary.weight > 0,
            "data.unlabelled is given, and auxiliary.weight is 0; recordings without text train by the generative loss "
            "alone, so set auxiliary.weight",
        )
