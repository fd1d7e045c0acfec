"""When known words were said: forced alignment of a text, or of phones, to a recording.

The recording's log-probabilities (T, V) and the labels (L,) of the normalised text meet in the most probable path of
these labels, which gives the times of units and words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wavasr.alignment import Word, forced_align, unit_times, word_times
from wavasr.audio import Source, stream_audio
from wavasr.config import TextConfig
from wavasr.decoding import Hypothesis
from wavasr.errors import TextError
from wavasr.lexicon import PHONE_SETS, fold
from wavasr.runtime import Listener
from wavasr.text import Units, ctc_frames_needed, normalise
from wavasr.transcribe import PIECE_S, Meter, Transcript, file_name, load_listener, name_of, stream_log_probs


@dataclass(frozen=True)
class AlignedText(Transcript):
    """A text and when it was said.

    Confidences are mean probabilities of the labels at their place: low ones show where text and recording differ.

    Attributes:
        text: as the model spells it.
        words: each with its times (with phone units: the phones).
        units: the labels of the words, spaces left out.
        unit_kind: "characters", "phones", "sentencepiece" or "words".
    """

    units: tuple[Word, ...] = ()
    unit_kind: str = "characters"

    @property
    def tiers(self) -> Mapping[str, tuple[Word, ...]]:
        """What a TextGrid shows: words and units, or the units alone where they are the words."""
        if self.unit_kind in ("phones", "words"):
            return {self.unit_kind: self.words}
        return {"words": self.words, self.unit_kind: self.units}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: that of a transcript, with unit_kind and units (unit, start_s, end_s, confidence)."""
        values = super().to_dict()
        values["unit_kind"] = values.pop("unit_kind")
        values["units"] = [
            {"unit": unit.pop("word"), **{key: round(value, 4) for key, value in unit.items()}}
            for unit in values.pop("units")
        ]
        return values


def align(
    source: Source,
    text: str,
    model: Listener | str | Path = "default",
    *,
    model_name: str = "",
) -> AlignedText:
    """Find when each word of a text was said.

    Exact for recordings of any length; see `forced_align` for what long ones cost.

    Args:
        source: a path, "-" for standard input, the bytes of a file, or a binary stream.
        text: what was said; for a phone model phones separated by spaces (TIMIT's are folded into the model's set).
        model: a loaded model, a model file, or the name of a shipped model.
        model_name: what the result calls the model; by default its file or shipped name.

    Raises:
        TextError: the text is empty, has a symbol that the model lacks, or is too long for the recording.
        AudioError: the recording cannot be read.
        ModelError: the model cannot be loaded, or its output is not a number.
    """
    listener = load_listener(model) if isinstance(model, str | Path) else model
    name = file_name(source)
    ids = labels_of(text, listener.units, listener.text, name)
    meter = Meter(stream_audio(source, listener.sample_rate, PIECE_S))
    parts = [np.asarray(part) for part in stream_log_probs(listener, meter)]
    log_probs = np.concatenate(parts) if parts else np.zeros((0, len(listener.units)), np.float32)
    frame_s, duration_s = listener.hop_samples / listener.sample_rate, meter.samples / listener.sample_rate
    if not meter.audible:
        raise TextError(f"{name}: is silent, so no text can be aligned; check the recording")
    if (needed := ctc_frames_needed(ids)) > len(log_probs):
        raise TextError(
            f"{name}: the text takes at least {needed * frame_s:.2f} s and the recording has {duration_s:.2f} s; "
            "check that they belong together"
        )
    starts, ends, means = zip(*forced_align(log_probs, ids), strict=True)
    found = Hypothesis(tuple(ids), 0.0, tuple(zip(starts, ends, strict=True)), means, len(log_probs))
    words = tuple(word_times(found, listener.units, frame_s))
    return AlignedText(
        file=name,
        duration_s=duration_s,
        text=listener.units.decode(ids),
        confidence=sum(word.confidence for word in words) / len(words),
        words=words,
        model=model_name or name_of(model),
        units=tuple(unit_times(found, listener.units, frame_s)),
        unit_kind=listener.units.kind,
    )


def labels_of(text: str, units: Units, config: TextConfig, name: str = "the text") -> list[int]:
    """The labels of a text as a model spells it; `name` is what errors begin with.

    Raises:
        TextError: nothing is left of it, or it has a symbol that the model lacks.
    """
    try:
        if units.is_phones:
            set_of = next((size for size in (39, 48, 61) if set(units.symbols[1:]) <= set(PHONE_SETS[size])), None)
            spelled = " ".join(fold(text.split(), set_of) if set_of else text.split())
        else:
            spelled = normalise(text, config)
        ids = units.encode(spelled)
    except TextError as error:
        problem = str(error).rpartition(";")[0] or str(error)
        raise TextError(f"{name}: {problem}; write the text with the units that wavasr info MODEL lists") from error
    if not ids:
        raise TextError(f"{name}: there is nothing to say in the text {text[:40]!r}; give the words of the recording")
    return ids
