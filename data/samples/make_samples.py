"""Make the sample clips and the demo's training speech with two free speech synthesisers.

Nothing here was recorded: espeak-ng and flite (Debian packages of those names) speak texts that this script states.
Run `python data/samples/make_samples.py`; the files land beside it:

- `*.flac`, `*.ogg`, `*.wav`, `*.mp3` and `samples.jsonl`: clips to transcribe, each in another format;
- `demo/*/*.opus` and `demo/{train,dev,test}.jsonl`: short utterances of digits and commands by voices that differ in
  sex, accent, speed and pitch; no voice is in two splits.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

HERE = Path(__file__).resolve().parent
Waveform = npt.NDArray[np.float32]

WORDS = "zero one two three four five six seven eight nine yes no go stop start left right up down on off".split()


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker: `espeak` voices are named by accent+variant, `flite` voices by name."""

    program: str
    name: str
    speed: int = 150
    pitch: int = 50

    @property
    def speaker(self) -> str:
        """A name that is also a folder name."""
        return f"{self.program}-{self.name.replace('+', '-').lower()}-{self.speed}-{self.pitch}"

    def command(self, text: str) -> list[str]:
        """The command line that writes a WAV file to standard output."""
        if self.program == "espeak":
            return ["espeak-ng", "-v", self.name, "-s", str(self.speed), "-p", str(self.pitch), "--stdout", text]
        stretch = f"duration_stretch={150 / self.speed:.2f}"
        return ["flite", "-voice", self.name, "--setf", stretch, "-t", text, "-o", "/dev/stdout"]


@dataclass(frozen=True)
class Clip:
    """One sample: what is said, by whom, and in which format it is stored."""

    file: str
    text: str
    voice: Voice
    sample_rate: int = 16000
    channels: int = 1
    subtype: str | None = None
    spoken: str = ""


SLT, RMS, AWB = (Voice("flite", name) for name in ("slt", "rms", "awb"))

CLIPS = (
    Clip("yes.wav", "yes", Voice("flite", "rms", 135)),
    Clip("stop.flac", "stop", SLT),
    Clip("enter-six-seven.flac", "enter six seven", SLT),
    Clip("rubout.ogg", "rubout g m e f three nine", RMS, subtype="VORBIS", spoken="rubout, g, m, e, f, three, nine"),
    Clip("spelled-name.flac", "r o b e r t", AWB, channels=2, spoken="r, o, b, e, r, t."),
    Clip("telephone-number.wav", "four one two six eight five nine", SLT, 8000, subtype="ULAW"),
    Clip("date.flac", "january twenty third nineteen eighty five", RMS, 44100, subtype="PCM_24"),
    Clip("street.opus", "forbes avenue", Voice("flite", "slt", 140), 48000, subtype="OPUS"),
    Clip("robot-digits.mp3", "one three five seven nine", Voice("espeak", "en-us", 130, 45), 22050),
    Clip("go-left.flac", "go left", RMS, 96000),
    Clip("six-microphones.flac", "three no erase", AWB, 16000, 6),
    Clip("plain-sentence.flac", "the old man walked slowly down to the river", SLT),
    Clip("plain-sentence-2.mp3", "she opened the letter and began to read", RMS, 44100, 2),
)

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc")
VARIANTS = {
    "train": (
        "m1 m2 m3 m5 m7 m8 f1 f2 f3 f5 Alex Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Marco Mario Michael "
        "adam belinda benjamin boris caleb david edward gustave iven john linda marcelo pablo paul quincy steph zac"
    ).split(),
    "dev": "m4 Andrea Lee victor".split(),
    "test": "m6 f4 Alicia max robert shelby".split(),
}
UTTERANCES_PER_VOICE = {"train": 13, "dev": 12, "test": 14}


def synthesise(voice: Voice, text: str, sample_rate: int = 16000) -> Waveform:
    """The text spoken by a voice, (S,) float32 at `sample_rate`, silence at the ends cut to 100 ms."""
    done = subprocess.run(voice.command(text), capture_output=True, check=True)
    raw = bytearray(done.stdout)
    raw[4:8] = (len(raw) - 8).to_bytes(4, "little")  # a WAV written to a pipe does not know its length
    start = raw.index(b"data")
    raw[start + 4 : start + 8] = (len(raw) - start - 8).to_bytes(4, "little")
    waveform, rate = soundfile.read(io.BytesIO(bytes(raw)), dtype="float32")
    loud = np.flatnonzero(np.abs(waveform) > 0.01)
    margin = rate // 10
    waveform = waveform[max(0, loud[0] - margin) : loud[-1] + margin]
    resampled: Waveform = soxr.resample(waveform, rate, sample_rate).astype(np.float32)
    return resampled * (0.5 / float(np.abs(resampled).max()))


def write_samples() -> None:
    """The clips to transcribe, and the manifest that says what is in them."""
    lines = []
    for clip in CLIPS:
        waveform = synthesise(clip.voice, clip.spoken or clip.text, clip.sample_rate)
        shaped = np.repeat(waveform[:, None], clip.channels, axis=1) if clip.channels > 1 else waveform
        if clip.file == "spelled-name.flac":
            shaped[:, 1] *= 0.3  # a speaker who sits left of the microphones
        soundfile.write(HERE / clip.file, shaped, clip.sample_rate, clip.subtype, **container(clip.file))
        lines.append(manifest_line(clip.file, waveform.size / clip.sample_rate, clip.text, clip.voice.speaker))
    (HERE / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def write_demo() -> None:
    """The training speech of the demo."""
    shutil.rmtree(HERE / "demo", ignore_errors=True)
    for split, variants in VARIANTS.items():
        rng = random.Random(f"demo {split}")
        lines = []
        for index, variant in enumerate(variants):
            accent = ACCENTS[index % len(ACCENTS)]
            voice = Voice("espeak", f"{accent}+{variant}", rng.randrange(125, 190, 5), rng.randrange(30, 75, 5))
            folder = HERE / "demo" / voice.speaker
            folder.mkdir(parents=True)
            for number in range(UTTERANCES_PER_VOICE[split]):
                words = rng.sample(WORDS, rng.choice((1, 1, 1, 2, 2, 3, 4)))
                path = folder / f"{number:02}.opus"
                waveform = synthesise(voice, " ".join(words))
                waveform += np.float32(0.001) * np.random.default_rng(number).standard_normal(waveform.size, np.float32)
                soundfile.write(path, waveform, 16000, "OPUS", compression_level=0.96, **container(path.name))
                name = path.relative_to(HERE / "demo").as_posix()
                lines.append(manifest_line(name, waveform.size / 16000, " ".join(words), voice.speaker))
        (HERE / "demo" / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def container(name: str) -> dict[str, str]:
    """What soundfile cannot tell from the suffix."""
    return {"format": "OGG"} if name.endswith(".opus") else {}


def manifest_line(file: str, duration_s: float, text: str, speaker: str) -> str:
    """One line of a JSON-lines manifest."""
    entry = {"audio_filepath": file, "duration": round(duration_s, 3), "text": text, "speaker": speaker}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def main() -> int:
    """Write everything; exit code 2 when a synthesiser is missing."""
    missing = [program for program in ("espeak-ng", "flite") if shutil.which(program) is None]
    if missing:
        remedy = f"on Debian: apt-get install {' '.join(missing)}"
        print(f"{' and '.join(missing)}: not on the PATH; {remedy}", file=sys.stderr)
        return 2
    write_samples()
    write_demo()
    return 0


if __name__ == "__main__":
    sys.exit(main())
