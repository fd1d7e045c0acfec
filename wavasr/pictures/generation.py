"""A page about a generator: its measures, and recordings beside what it makes of them, to see and to hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.scores import read_midi
from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.evaluation.generation import (
    Likeness,
    Measure,
    MusicResult,
    Result,
    VocoderResult,
    compare,
)
from wavasr.evaluation.notes import NotesResult
from wavasr.files import atomic_text
from wavasr.generation.frames import active_gain, frames_of
from wavasr.generation.notes import stretch
from wavasr.generation.reader import Reader
from wavasr.generation.voice import Voice
from wavasr.pictures.page import embedded, render
from wavasr.pictures.voices import spectrograms

PAGE_NAME = "report.html"
_SHOWN = 6  # recordings
_SHOWN_S = 10.0  # of music


@dataclass(frozen=True)
class Example:
    """Sounds (S,) float32 that belong together, by what they are, e.g. "natural" and "spoken again"."""

    name: str
    text: str
    sounds: Mapping[str, NDArray[np.float32]]


def write_page(
    folder: Path,
    *,
    title: str,
    verdict: str,
    measures: Sequence[Measure],
    examples: Sequence[Example],
    sample_rate: int,
    about: str = "",
) -> Path:
    """Write report.html into a folder, which is made; the page stands alone.

    Raises:
        OSError: it cannot be written.
    """
    from wavasr.evaluation.report.render import sound_address

    shown = [
        (
            example,
            embedded(spectrograms(example.sounds, sample_rate), drawn=False),
            {name: sound_address(sound, sample_rate) for name, sound in example.sounds.items()},
        )
        for example in examples
    ]
    content = {"title": title, "verdict": verdict, "measures": measures, "examples": shown, "about": about}
    path = folder / PAGE_NAME
    with atomic_text(path) as stream:
        stream.write(render("generation.html.j2", content))
    return path


def generator_page(
    voice: Voice,
    reader: Reader | None,
    utterances: Sequence[Utterance],
    results: Sequence[Result],
    folder: Path,
    model: str,
) -> Path:
    """The page of an evaluated generator, with some of the recordings beside what it makes of them.

    Raises:
        AudioError: a recording cannot be read.
        OSError: the page cannot be written.
    """
    examples: list[Example] = []
    for result in results:
        if isinstance(result, VocoderResult):
            examples += _spoken_again(voice, utterances)
        elif isinstance(result, NotesResult):
            examples += _played(voice, utterances)
        elif isinstance(result, MusicResult):
            examples.append(_improvised(voice, utterances))
        elif reader is not None:
            examples += _read(reader, utterances)
    return write_page(
        folder,
        title=f"Evaluation of {Path(model).name}",
        verdict=f"{'. '.join(result.verdict for result in results)}.",
        measures=[measure for result in results for measure in result.measures],
        examples=examples,
        sample_rate=voice.config.sample_rate,
        about="These figures say what they measure, and no more: nobody listened. report.json has them all.",
    )


def _read(reader: Reader, utterances: Sequence[Utterance]) -> list[Example]:
    found = []
    for u in utterances[:_SHOWN]:
        speaker = u.speaker if u.speaker in reader.speakers else None
        said = np.concatenate(list(reader.blocks(u.text.lower(), speaker)))
        found.append(
            Example(f"{u.id}, read", f"“{u.text}”", {"natural": load_utterance(u, reader.sample_rate), "read": said})
        )
    return found


def _played(voice: Voice, utterances: Sequence[Utterance]) -> list[Example]:
    rate, found = voice.config.sample_rate, []
    for u in utterances[:_SHOWN]:
        notes = stretch(read_midi(u.audio.with_suffix(".mid")), 0.0, _SHOWN_S)
        played = np.concatenate(list(voice.play_blocks(notes)))[: round(_SHOWN_S * rate)]
        natural = load_utterance(u, rate, to_end=True)[: len(played)]
        found.append(Example(u.id, f"{len(notes)} notes", {"recording": natural, "the model": played}))
    return found


def _spoken_again(voice: Voice, utterances: Sequence[Utterance]) -> list[Example]:
    rate, shown = voice.config.sample_rate, utterances[:_SHOWN]
    sounds = [load_utterance(u, rate) for u in shown]
    sounds = [np.asarray(sound * active_gain(sound), dtype=np.float32) for sound in sounds]
    speakers = [u.speaker if u.speaker in voice.config.speakers else None for u in shown]
    made = voice.render_all([frames_of(sound, voice.config) for sound in sounds], speakers, [0] * len(shown))
    return [
        Example(
            u.id,
            f"“{u.text}” {_likeness(compare(sound[: len(again)], again, rate))}",
            {"natural": sound, "spoken again": again},
        )
        for u, sound, again in zip(shown, sounds, made, strict=True)
    ]


def _likeness(found: Likeness) -> str:
    kept = f"Pitch kept in {found.pitch_hits} of {found.voiced_frames} voiced frames, "
    return f"{kept}distortion {found.distortion_db:.2f} dB."


def _improvised(voice: Voice, utterances: Sequence[Utterance]) -> Example:
    rate = voice.config.sample_rate
    natural = load_utterance(replace(utterances[0], duration_s=_SHOWN_S), rate)
    natural = np.asarray(natural * active_gain(natural), dtype=np.float32)
    made = voice.improvise(_SHOWN_S)
    return Example("Improvised", "A recording, and the model on its own.", {"natural": natural, "the model": made})
