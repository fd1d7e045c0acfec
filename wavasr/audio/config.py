"""What is done to training audio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wavasr.config import check, require


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training audio (never to validation audio); probabilities are per utterance.

    Attributes:
        speed: tempo factors, drawn uniformly from (low, high): 1.1 makes speech faster and higher.
        gain_db: random gain in dB, uniform in (low, high).
        noise_dir: folder of noise recordings (searched recursively); None for no noise.
        noise_probability: share of utterances that get noise.
        snr_db: signal-to-noise ratio in dB, uniform in (low, high).
        room_dir: folder of room impulse responses; None for none.
        room_probability: share of utterances convolved with a room.
        equaliser_db: most dB by which parts of the spectrum are raised or lowered, smoothly, as microphones differ.
        time_masks: most spans set to silence per second of audio.
        time_mask_s: longest masked span in seconds.
        band_masks: most frequency bands removed per utterance.
        band_mask_mel: widest removed band, as a share of the mel axis.
        telephone_probability: share of utterances limited to 300-3400 Hz.
    """

    speed: tuple[float, float] = (1.0, 1.0)
    gain_db: tuple[float, float] = (0.0, 0.0)
    noise_dir: Path | None = None
    noise_probability: float = 0.0
    snr_db: tuple[float, float] = (5.0, 30.0)
    room_dir: Path | None = None
    room_probability: float = 0.0
    equaliser_db: float = 0.0
    time_masks: float = 0.0
    time_mask_s: float = 0.1
    band_masks: int = 0
    band_mask_mel: float = 0.15
    telephone_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("speed", "gain_db", "snr_db"):
            low, high = getattr(self, name)
            require(low <= high, f"augment.{name} is ({low}, {high}); expected (low, high)")
        share = "[0, 1]"
        check(
            self,
            "augment.",
            speed="(0, inf)",
            equaliser_db="[0, inf)",
            noise_probability=share,
            room_probability=share,
            telephone_probability=share,
        )
