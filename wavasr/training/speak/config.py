"""Everything that decides how a voice learns to read text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wavasr.config import SEEDS, check, require
from wavasr.network.config import SpeechConfig
from wavasr.training.config import LoggerName
from wavasr.training.generate.config import RecordingsConfig, StepsConfig


@dataclass(frozen=True)
class ReadingConfig(RecordingsConfig):
    """Which recordings are learnt, with their texts, and how they are aligned.

    Attributes:
        aligner: model that finds when each phone was said.
        least_confidence: recordings whose aligned text is less probable than this are left out.
        batch: recordings in a step; several processes share them.
    """

    aligner: str = "default"
    least_confidence: float = 0.3
    batch: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "data.", batch="[1, inf)", least_confidence="[0, 1]")


@dataclass(frozen=True)
class SpeakConfig:
    """Everything that decides the training except the machine it runs on (`trainer.*`).

    Attributes:
        run_dir: where logs, checkpoints and the model go.
        data: the recordings.
        voice: the vocoder that will speak: a generator's model file, or the name of a shipped one. The model file that
            is written holds both.
        seed: start of every random choice.
        logger: where losses go beside metrics.csv.
        speech: the network.
        optim: its steps.
    """

    run_dir: Path
    data: ReadingConfig
    voice: str = ""
    seed: int = 0
    logger: LoggerName = "tensorboard"
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    optim: StepsConfig = field(default_factory=lambda: StepsConfig(lr=1.5e-3, betas=(0.9, 0.98), decay_share=0.5))

    def __post_init__(self) -> None:
        require(bool(self.voice), "voice is not set; give the model file of a vocoder, or the name of a shipped one")
        check(self, "", seed=SEEDS)
