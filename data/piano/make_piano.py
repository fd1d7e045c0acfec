"""Piano music to learn from: scores as MIDI files, rendered by fluidsynth with a free sound font.

    apt install fluidsynth fluid-soundfont-gm         # the font: Fluid (R3) by Frank Wen, MIT
    python data/piano/make_piano.py --output data/piano/recordings

The tunes are in the public domain and were typed in for this file; exercises (scales, broken chords, leaps over all 88
keys) fill up what they leave out. `test/` holds tunes that are not among those in `train/`. The same command writes the
same scores.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import soundfile
import soxr

FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
RATE, FONT_RATE = 16000, 44100
LEVEL = 0.08  # root mean square of all recordings together
TICKS = 480  # of a quarter note
_LOWEST, _HIGHEST = 21, 108
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Tone(NamedTuple):
    """A note: its MIDI key, its beginning and length in quarter notes, its velocity from 0 to 127."""

    key: int
    start: float
    length: float
    velocity: int = 80


def key_of(name: str) -> int:
    """The MIDI key of a name such as C4 (60), F#5 or Bb3."""
    return _STEPS[name[0]] + name.count("#") - name[1:].count("b") + 12 * (int(name[-1]) + 1)


def line(text: str, velocity: int = 80, start: float = 0.0) -> list[Tone]:
    """A voice: notes in turn, each with its quarters where they change: "E4:1 F4 G4:.5"; - is a rest."""
    tones: list[Tone] = []
    length = 1.0
    for word in text.split():
        name, _, given = word.partition(":")
        length = float(given) if given else length
        if name != "-":
            tones.append(Tone(key_of(name), start, length, velocity))
        start += length
    return tones


def broken(chords: str, pattern: Sequence[int], quarter: float) -> list[Tone]:
    """Each chord ("C4 E4 G4 | ...") broken by a pattern of its notes, twice."""
    tones: list[Tone] = []
    start = 0.0
    for chord in chords.split("|"):
        keys = [key_of(name) for name in chord.split()]
        for _ in range(2):
            for index in pattern:
                tones.append(Tone(keys[index], start, quarter * 1.8, 72))
                start += quarter
    return tones


def prelude() -> list[Tone]:
    """Bach, prelude in C, BWV 846."""
    chords = (
        "C4 E4 G4 C5 E5|C4 D4 A4 D5 F5|B3 D4 G4 D5 F5|C4 E4 G4 C5 E5|C4 E4 A4 E5 A5|C4 D4 F#4 A4 D5|B3 D4 G4 D5 G5|"
        "B3 C4 E4 G4 C5|A3 C4 E4 G4 C5|D3 A3 D4 F#4 C5|G3 B3 D4 G4 B4|G3 Bb3 E4 G4 C#5|F3 A3 D4 A4 D5|F3 Ab3 D4 F4 B4|"
        "E3 G3 C4 G4 C5|E3 F3 A3 C4 F4|D3 F3 A3 C4 F4|G2 D3 G3 B3 F4|C3 E3 G3 C4 E4|C3 G3 Bb3 C4 E4|F2 F3 A3 C4 E4|"
        "F#2 C3 A3 C4 Eb4|Ab2 F3 B3 C4 D4|G2 F3 G3 B3 D4|G2 E3 G3 C4 E4|G2 D3 G3 C4 F4|G2 D3 G3 B3 F4|G2 Eb3 A3 C4 F#4|"
        "G2 E3 G3 C4 G4|G2 D3 G3 C4 F4|G2 D3 G3 B3 F4|C2 C3 G3 Bb3 E4"
    )
    return broken(chords, (0, 1, 2, 3, 4, 2, 3, 4), 0.25)


def minuet() -> list[Tone]:
    """Petzold, minuet in G (BWV Anh. 114), first part."""
    upper = (
        "D5:1 G4:.5 A4 B4 C5 D5:1 G4 G4 E5 C5:.5 D5 E5 F#5 G5:1 G4 G4 C5 D5:.5 C5 B4 A4 B4:1 C5:.5 B4 A4 G4 "
        "F#4:1 G4:.5 A4 B4 G4 B4:1 A4:2 "
        "D5:1 G4:.5 A4 B4 C5 D5:1 G4 G4 E5 C5:.5 D5 E5 F#5 G5:1 G4 G4 C5 D5:.5 C5 B4 A4 B4:1 C5:.5 B4 A4 G4 "
        "A4:1 B4:.5 A4 G4 F#4 G4:3"
    )
    lower = (
        "G3:2 A3:1 B3:3 C4 B3 A3 G3 D4:1 B3 G3 D4 D3:.5 C4 B3 A3 B3:2 A3:1 G3 B3 G3 C4:3 B3:1 C4:.5 B3 A3 G3 "
        "A3:2 F#3:1 G3:2 B3:1 C4 D4 D3 G3:2 G2:1"
    )
    return line(upper, 84) + line(lower, 66)


def bagatelle() -> list[Tone]:
    """Beethoven, Fuer Elise, its theme."""
    upper = (
        "E5:.5 D#5 E5 D#5 E5 B4 D5 C5 A4:1 -:.5 C4 E4 A4 B4:1 -:.5 E4 G#4 B4 C5:1 -:.5 E4 "
        "E5 D#5 E5 D#5 E5 B4 D5 C5 A4:1 -:.5 C4 E4 A4 B4:1 -:.5 E4 C5 B4 A4:2"
    )
    lower = (
        "-:4 A2:.5 E3 A3 -:1.5 E2:.5 E3 G#3 -:1.5 A2:.5 E3 A3 -:4.5 A2:.5 E3 A3 -:1.5 E2:.5 E3 G#3 -:1.5 A2:.5 E3 A3"
    )
    return line(upper, 76) + line(lower, 58)


def joy() -> list[Tone]:
    """Bach, Jesu bleibet meine Freude, BWV 147, the triplets of its beginning."""
    upper = (
        "G4:.5 A4 B4 D5 C5 C5 E5 D5 D5 G5 F#5 G5 D5 B4 G4 A4 B4 C5 D5 E5 D5 C5 B4 A4 B4 G4 F#4 G4 A4 D4 F#4 A4 C5 B4 "
        "A4 B4 G4 A4 B4 D5 C5 C5 E5 D5 D5 G5 F#5 G5 D5 B4 G4 A4 B4 E4 D5 C5 B4 A4 G4 D4 G4 F#4 G4:2"
    )
    lower = "G3:1.5 E3 C3 B2 G2 E3 G3 C3 D3 G2 F#3 D3 E3 G3 E3 C3 B2 G2 C3 D3 D3 G2:2"
    return line(upper, 78) + line(lower, 62)


def grace() -> list[Tone]:
    """New Britain (Amazing Grace), in thirds and with a bass."""
    upper = (
        "D4:1 G4:2 B4:.5 G4 B4:2 A4:1 G4:2 E4:1 D4:2 D4:1 G4:2 B4:.5 G4 B4:2 A4:1 D5:5 "
        "B4:1 D5:2 B4:.5 G4 B4:2 A4:1 G4:2 E4:1 D4:2 D4:1 G4:2 B4:.5 G4 B4:2 A4:1 G4:3"
    )
    lower = "-:1 G3:3 G3 C3 G3 G3 G3 D3 D3:2 -:1 G3:3 G3 C3 G3 G3 D3 G2"
    return line(upper, 82) + line(lower, 60)


def shepherds() -> list[Tone]:
    """Ah vous dirai-je, maman, with a broken bass."""
    upper = (
        "C5:1 C5 G5 G5 A5 A5 G5:2 F5:1 F5 E5 E5 D5 D5 C5:2 G5:1 G5 F5 F5 E5 E5 D5:2 G5:1 G5 F5 F5 E5 E5 D5:2 "
        "C5:1 C5 G5 G5 A5 A5 G5:2 F5:1 F5 E5 E5 D5 D5 C5:2"
    )
    half = "C3:.5 G3 E3 G3 C3 G3 E3 G3 C3 A3 F3 A3 C3 G3 E3 G3 B2 G3 D3 G3 C3 G3 E3 G3 G2 F3 D3 F3 C3 G3 E3 G3"
    middle = "C3 G3 E3 G3 B2 G3 D3 G3 C3 G3 E3 G3 G2 F3 B2 F3 " * 2
    return line(upper, 86) + line(f"{half} {middle} {half}", 60)


def ode() -> list[Tone]:
    """Beethoven, theme of the ninth symphony's last movement, with chords."""
    upper = (
        "E4:1 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 E4:1.5 D4:.5 D4:2 E4:1 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 D4:1.5 C4:.5 "
        "C4:2 D4:1 D4 E4 C4 D4 E4:.5 F4 E4:1 C4 D4 E4:.5 F4 E4:1 D4 C4 D4 G3:2"
    )
    chords = "C3:4 G2 C3 G2 C3 G2 C3 C3 G2 G2 G2 G2"
    return line(upper, 84) + line(chords, 60)


def greensleeves() -> list[Tone]:
    """Greensleeves, its melody."""
    return line(
        "A4:1 C5:2 D5:1 E5:1.5 F5:.5 E5:1 D5:2 B4:1 G4:1.5 A4:.5 B4:1 C5:2 A4:1 A4:1.5 G#4:.5 A4:1 B4:2 G#4:1 E4:2 "
        "A4:1 C5:2 D5:1 E5:1.5 F5:.5 E5:1 D5:2 B4:1 G4:1.5 A4:.5 B4:1 C5:1.5 B4:.5 A4:1 G#4:1.5 F#4:.5 G#4:1 A4:3",
        82,
    )


def brother() -> list[Tone]:
    """Frere Jacques, its melody."""
    verse = "F4:1 G4 A4 F4 F4 G4 A4 F4 A4 Bb4 C5:2 A4:1 Bb4 C5:2 "
    return line(verse + "C5:.5 D5 C5 Bb4 A4:1 F4 C5:.5 D5 C5 Bb4 A4:1 F4 F4 C4 F4:2 F4:1 C4 F4:2", 82)


LEARNT = (prelude, minuet, bagatelle, joy, grace, shepherds)
HELD_OUT = (ode, greensleeves, brother)


def exercise(kind: int, rng: np.random.Generator, beats: float = 60.0) -> list[Tone]:
    """Scales, broken and whole chords, leaps: a minute of quarters from random keys, up to four notes together."""
    tones: list[Tone] = []
    start, key = 0.0, int(rng.integers(40, 88))
    scale = [0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 11]
    while start < beats:
        velocity = int(rng.integers(35, 115))
        length = float(rng.choice([0.25, 0.5, 0.5, 1.0, 2.0]))
        if kind == 0:  # leaps over the whole keyboard
            key = int(rng.integers(_LOWEST, _HIGHEST + 1)) if rng.random() < 0.4 else int(rng.normal(66, 12))
            keys = [key]
        elif kind == 1:  # a scale, up and down
            root = int(rng.integers(33, 84))
            for step in [*range(8), *range(6, -1, -1)]:
                tone = root + scale[step % 7] + 12 * (step // 7)
                tones.append(Tone(tone, start, 0.5 * length, velocity))
                start += 0.5 * length
            continue
        else:  # chords of two to four notes
            root, count = int(rng.integers(36, 76)), int(rng.integers(2, 5))
            shape = [0, *sorted(rng.choice([3, 4, 5, 7, 8, 9, 10, 12, 15, 16, 19], count - 1, replace=False).tolist())]
            keys = [root + step for step in shape]
        tones += [Tone(key, start, length * float(rng.choice([0.6, 1.0])), velocity) for key in keys]
        start += length
    return tones


def varied(tones: Iterable[Tone], transposed: int, rng: np.random.Generator) -> list[Tone]:
    """Transposed, with the unevenness of a player's hands."""
    found = []
    for tone in tones:
        start, length = max(0.0, tone.start + float(rng.normal(0, 0.01))), tone.length * float(rng.uniform(0.75, 1.0))
        velocity = int(np.clip(tone.velocity + rng.normal(0, 9), 20, 120))
        found.append(Tone(tone.key + transposed, start, length, velocity))
    return found


def write_midi(path: Path, tones: Iterable[Tone], tempo: float) -> None:
    """A score at so many quarters a minute."""
    events = []
    for tone in tones:
        if _LOWEST <= tone.key <= _HIGHEST:
            events.append((round(tone.start * TICKS), 1, tone.key, tone.velocity))
            events.append((round((tone.start + tone.length) * TICKS), 0, tone.key, 0))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    before = 0
    for tick, on, key, velocity in sorted(events):
        kind = "note_on" if on else "note_off"
        track.append(mido.Message(kind, note=key, velocity=velocity, time=tick - before))
        before = tick
    file = mido.MidiFile(type=0, ticks_per_beat=TICKS)
    file.tracks.append(track)
    file.save(path)


def render(path: Path, font: Path) -> np.ndarray:
    """The sound of a score at `RATE`, one channel, without reverberation."""
    sound = path.with_suffix(".full.wav")
    command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(FONT_RATE)]
    options = ["-o", "synth.dynamic-sample-loading=1", "-T", "wav", "-O", "float"]
    subprocess.run([*command, *options, "-F", str(sound), str(font), str(path)], check=True)
    samples = soundfile.read(sound, dtype="float32", always_2d=True)[0].mean(axis=1)
    sound.unlink()
    return soxr.resample(samples, FONT_RATE, RATE)


def write_scores(output: Path) -> list[Path]:
    """All scores; the same every time."""
    rng = np.random.default_rng(0)
    found: list[Path] = []

    def add(folder: str, name: str, tones: Iterable[Tone], tempo: float) -> None:
        path = output / folder / f"{name}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_midi(path, tones, tempo)
        found.append(path)

    for tune in LEARNT:
        for index, transposed in enumerate((0, -5, 7)):
            add("train", f"{tune.__name__}-{index}", varied(tune(), transposed, rng), float(rng.uniform(75, 125)))
    for index in range(21):
        add("train", f"exercise-{index:02d}", exercise(index % 3, rng), float(rng.uniform(90, 130)))
    for tune in HELD_OUT:
        add("test", tune.__name__, tune(), 100.0)
    return found


def main() -> None:
    """Write the scores and their sound."""
    parser = argparse.ArgumentParser(description="Make piano recordings with their notes.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--font", type=Path, default=FONT)
    args = parser.parse_args()
    if not args.font.is_file():
        raise SystemExit(f"{args.font}: no such sound font; apt install fluid-soundfont-gm")
    scores = write_scores(args.output)
    sounds = [render(path, args.font) for path in scores]
    gain = LEVEL / np.sqrt(np.mean(np.square(np.concatenate(sounds))))
    for path, sound in zip(scores, sounds, strict=True):
        soundfile.write(path.with_suffix(".wav"), np.clip(sound * gain, -1, 1), RATE, subtype="PCM_16")
    print(f"{len(scores)} recordings, {sum(map(len, sounds)) / RATE / 60:.1f} min, gain {gain:.3f}")


if __name__ == "__main__":
    main()
