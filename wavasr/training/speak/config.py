"""Everything that decides how a voice learns to read text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wavasr.config import SEEDS, check, require
from wavasr.network.config import SpeechConfig
from wavasr.training.generate.config import StepsConfig


@dataclass(frozen=True)
class ReadingConfig:
    """Which recordings are learnt, with their texts, and how they are aligned.

    Attributes:
        root: folder that the names in `train` are relative to.
        train: manifests (JSON lines) with audio and text.
        speakers: only these speakers of the manifests; empty: all.
        names: shorter names of speakers, by the manifest's.
        dev_share: share of each speaker's recordings, the last ones, that is held out.
        aligner: model that finds when each phone was said.
        least_confidence: recordings whose aligned text is less probable than this are left out.
        batch: recordings in a step.
        sources: name, licence and attribution of the recordings; the model file carries them.
    """

    root: Path = Path()
    train: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    dev_share: float = 0.03
    aligner: str = "default"
    least_confidence: float = 0.3
    batch: int = 6
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.train) > 0, "data.train is empty; expected manifests with audio and text")
        check(self, "data.", dev_share="(0, 1)", batch="[1, inf)", least_confidence="[0, 1]")


@dataclass(frozen=True)
class SpeakConfig:
    """Everything that decides the training except the machine it runs on (`trainer.*`).

    Attributes:
        run_dir: where logs, checkpoints and the model go.
        data: the recordings.
        voice: the vocoder that will speak: a generator's model file, or the name of a shipped one. The model file that
            is written holds both.
        seed: start of every random choice.
        speech: the network.
        optim: its steps.
    """

    run_dir: Path
    data: ReadingConfig
    voice: str = ""
    seed: int = 0
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    optim: StepsConfig = field(default_factory=lambda: StepsConfig(lr=1.5e-3, betas=(0.9, 0.98), decay_share=0.5))

    def __post_init__(self) -> None:
        require(bool(self.voice), "voice is not set; give the model file of a vocoder, or the name of a shipped one")
        check(self, "", seed=SEEDS)
