"""Everything that decides how a generator is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wavasr.config import SEEDS, check, require
from wavasr.network.config import GeneratorConfig, ImproviserConfig
from wavasr.training.config import LoggerName


@dataclass(frozen=True)
class RecordingsConfig:
    """Which recordings are learnt.

    Attributes:
        root: folder that the names in `train` are relative to.
        train: manifests (JSON lines), or folders of recordings without transcripts.
        speakers: only these speakers of the manifests; empty: all.
        names: shorter names of speakers, by the manifest's.
        dev_share: share of each speaker's recordings, the last ones, that is held out.
        sources: name, licence and attribution of the recordings; the model file carries them.
    """

    root: Path = Path()
    train: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    dev_share: float = 0.03
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.train) > 0, "data.train is empty; expected manifests or folders of recordings")
        check(self, "data.", dev_share="(0, 1)")


@dataclass(frozen=True)
class CropsConfig(RecordingsConfig):
    """Which recordings are learnt, and how they are cut.

    Attributes:
        crop_frames: frames of 10 ms in a crop.
        crops_per_recording: crops that are cut from a recording while it is at hand.
        epoch_crops: crops between two validations.
        batch: crops in a step; several processes share them.
        dev_crops: crops that are validated on, always the same.
        workers: processes that prepare crops; 0 does it in the training process.
    """

    crop_frames: int = 24
    crops_per_recording: int = 4
    epoch_crops: int = 250
    batch: int = 1
    dev_crops: int = 40
    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("crops_per_recording", "epoch_crops", "batch", "dev_crops")
        check(self, "data.", crop_frames="[8, inf)", workers="[0, inf)", **dict.fromkeys(counts, "[1, inf)"))


@dataclass(frozen=True)
class StepsConfig:
    """Adam's steps, their length over the training, and the average of the weights that is kept.

    Attributes:
        lr: highest learning rate.
        betas: decay of Adam's two moments.
        warmup_steps: steps over which the learning rate rises to `lr`.
        decay_share: share of the steps, the last ones, over which it falls to `final_lr_scale` of that.
        final_lr_scale: where it ends.
        average_decay: weight of the past in the moving average of the weights, which is what is validated and saved.
    """

    lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 100
    decay_share: float = 0.3
    final_lr_scale: float = 0.03
    average_decay: float = 0.998

    def __post_init__(self) -> None:
        shares = {"decay_share": "[0, 1]", "final_lr_scale": "[0, 1]", "betas": "[0, 1)", "average_decay": "[0, 1)"}
        check(self, "optim.", lr="(0, inf)", warmup_steps="[0, inf)", **shares)

    def scale(self, step: int, steps: int) -> float:
        """The learning rate at a step of so many, as a share of `lr`."""
        rising = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = 1 - step / max(1, steps)
        if self.decay_share == 0 or left >= self.decay_share:
            return rising
        return rising * max(self.final_lr_scale, left / self.decay_share)


@dataclass(frozen=True)
class ImproviseConfig:
    """How a vocoder is taught, after its own training, to make up frames.

    Attributes:
        steps: of the frames' network; 0: none, the vocoder only speaks recordings again.
        minutes: of each speaker, at most, that it learns from.
        network: its shape.
    """

    steps: int = 0
    minutes: float = 10.0
    network: ImproviserConfig = field(default_factory=ImproviserConfig)

    def __post_init__(self) -> None:
        check(self, "improviser.", steps="[0, inf)", minutes="(0, inf)")


@dataclass(frozen=True)
class GenerateConfig:
    """Everything that decides a generator's training except the machine it runs on (`trainer.*`).

    Attributes:
        run_dir: where logs, checkpoints, the model, its samples and its report go.
        seed: start of every random choice.
        start: a generator's model file to go on from; its speakers may be others.
        logger: where losses go beside metrics.csv.
    """

    run_dir: Path
    data: CropsConfig
    seed: int = 0
    start: str = ""
    logger: LoggerName = "tensorboard"
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    optim: StepsConfig = field(default_factory=StepsConfig)
    improviser: ImproviseConfig = field(default_factory=ImproviseConfig)

    def __post_init__(self) -> None:
        require(
            self.improviser.steps == 0 or self.generator.condition == "mel",
            f"improviser.steps is {self.improviser.steps}, but generator.condition {self.generator.condition}: only a "
            "vocoder is told frames; set generator.condition to mel",
        )
        check(self, "", seed=SEEDS)
