"""A page about a generator: its measures, and recordings beside what it makes of them, to see and to hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.reading import load_audio
from wavasr.audio.scores import read_midi
from wavasr.corpora.manifest import Utterance
from wavasr.evaluation.generation import Likeness, MusicResult, VocoderResult, compare
from wavasr.evaluation.notes import NotesResult
from wavasr.files import atomic_text
from wavasr.generation.frames import active_gain, frames_of
from wavasr.generation.notes import stretch
from wavasr.generation.voice import Voice
from wavasr.pictures.page import embedded, render
from wavasr.pictures.voices import spectrograms

PAGE_NAME = "report.html"
_SHOWN = 6  # recordings
_SHOWN_S = 10.0  # of music


@dataclass(frozen=True)
class Measure:
    """A figure of the model beside that of natural sound ("" where there is none), in words that can be read alone."""

    name: str
    value: str
    natural: str = ""
    meaning: str = ""


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
    utterances: Sequence[Utterance],
    result: VocoderResult | MusicResult | NotesResult,
    folder: Path,
    model: str,
) -> Path:
    """The page of an evaluated generator, with some of the recordings beside what it makes of them.

    Raises:
        AudioError: a recording cannot be read.
        OSError: the page cannot be written.
    """
    if isinstance(result, VocoderResult):
        (verdict, measures), examples = _vocoder_measures(result), _spoken_again(voice, utterances)
    elif isinstance(result, NotesResult):
        (verdict, measures), examples = _notes_measures(result), _played(voice, utterances)
    else:
        (verdict, measures), examples = _music_measures(result), [_improvised(voice, utterances)]
    return write_page(
        folder,
        title=f"Evaluation of {Path(model).name}",
        verdict=verdict,
        measures=measures,
        examples=examples,
        sample_rate=voice.config.sample_rate,
        about="These figures say what they measure, and no more: nobody listened. report.json has them all.",
    )


def _vocoder_measures(result: VocoderResult) -> tuple[str, list[Measure]]:
    kept, own, natural = (
        result.f0_within_6_percent,
        result.voiced_autocorrelation,
        result.natural_voiced_autocorrelation,
    )
    measures = [
        Measure("pitch kept", f"{100 * kept:.1f} %", "", "voiced frames whose pitch is within 6 % of the recording's"),
        Measure("periodicity", f"{own:.3f}", f"{natural:.3f}", "autocorrelation of voiced frames; 1 is a clean tone"),
        Measure("mel-cepstral distortion", f"{result.mcd_db:.2f} dB", "", "distance of the spectra; 0 dB is the same"),
    ]
    verdict = (
        f"{result.recordings:,} recordings ({result.audio_s:.0f} s) spoken again by the model: the pitch is right in "
        f"{100 * kept:.0f} of 100 voiced frames."
    )
    return verdict, measures


def _music_measures(result: MusicResult) -> tuple[str, list[Measure]]:
    flat, natural = result.spectral_flatness, result.natural_spectral_flatness
    measures = [
        Measure("spectral flatness", f"{flat:.4f}", f"{natural:.4f}", "0 is a tone, 0.56 white noise"),
        Measure(
            "periodicity", f"{result.autocorrelation:.3f}", f"{result.natural_autocorrelation:.3f}", "1 is a clean tone"
        ),
        Measure("level drift", f"{result.level_drift_db:+.1f} dB", "", "level of the last fifth over the first's"),
    ]
    return f"{result.audio_s:.0f} s made by the model out of nothing, beside recordings.", measures


def _notes_measures(result: NotesResult) -> tuple[str, list[Measure]]:
    found, natural = f"{100 * result.within_50_cents:.1f} %", f"{100 * result.natural_within_50_cents:.1f} %"
    verdict = f"{result.recordings:,} recordings ({result.audio_s:.0f} s) played from their notes by the model."
    return verdict, [Measure("notes found", found, natural, f"of {result.notes}, within 50 cents, by their spectra")]


def _played(voice: Voice, utterances: Sequence[Utterance]) -> list[Example]:
    rate, found = voice.config.sample_rate, []
    for u in utterances[:_SHOWN]:
        notes = stretch(read_midi(u.audio.with_suffix(".mid")), 0.0, _SHOWN_S)
        played = np.concatenate(list(voice.play_blocks(notes)))[: round(_SHOWN_S * rate)]
        natural = load_audio(u.audio, rate)[: len(played)]
        found.append(Example(u.id, f"{len(notes)} notes", {"recording": natural, "the model": played}))
    return found


def _spoken_again(voice: Voice, utterances: Sequence[Utterance]) -> list[Example]:
    rate, shown = voice.config.sample_rate, utterances[:_SHOWN]
    sounds = [load_audio(u.audio, rate, u.offset_s, u.duration_s) for u in shown]
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
    natural = load_audio(utterances[0].audio, rate, utterances[0].offset_s, _SHOWN_S)
    natural = np.asarray(natural * active_gain(natural), dtype=np.float32)
    made = voice.improvise(_SHOWN_S)
    return Example("Improvised", "A recording, and the model on its own.", {"natural": natural, "the model": made})
