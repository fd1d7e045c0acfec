"""CMU AN4: an4/etc/an4_{train,test}.{fileids,transcription}, an4/wav/an4_clstk/<speaker>/<utterance>.{sph,wav,raw}."""

from __future__ import annotations

import re
import wave
from pathlib import Path

from wavasr.corpora.base import Corpus, Draft, build, hold_out, read_lines, search, with_suffix_of
from wavasr.errors import CorpusError
from wavasr.files import atomic_bytes

LAYOUT = "an4/etc/an4_train.fileids, an4_train.transcription, and an4/wav"
SAMPLE_RATE = 16000
UTTERANCES = {"train": 948, "test": 130}

# "<s> YES </s> (an251-fash-b)"
_TRANSCRIPT = re.compile(r"^(?P<text>.*?)\s*\((?P<id>[^()\s]+)\)\s*$")


def read(root: Path, *, dev_share: float = 0.1, converted: Path | None = None, progress: bool = True) -> Corpus:
    """Read the official train and test sets, with some of the training speakers held out as "dev".

    Args:
        root: the folder an4, or one that holds it.
        dev_share: share of the training utterances to hold out, whole speakers at a time; 0 for none.
        converted: where headerless recordings (*.raw, either byte order) are written as WAV files; without it they
            are named as problems.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: the lists are missing or do not match, or a split has no usable utterance.
    """
    home = search(root, lambda folder: (folder / "etc" / "an4_train.fileids").is_file(), LAYOUT)
    problems: list[str] = []
    train, test = (_split(home, split, converted, problems) for split in ("train", "test"))
    notes = [
        f"{split}: {len(drafts)} of the {UTTERANCES[split]} utterances of the corpus are listed"
        for split, drafts in (("train", train), ("test", test))
        if len(drafts) != UTTERANCES[split]
    ]
    held, note = hold_out(train, dev_share)
    return build("an4", held | {"test": test}, problems=problems, notes=notes + note, progress=progress)


def _split(home: Path, split: str, converted: Path | None, problems: list[str]) -> list[Draft]:
    lists = home / "etc" / f"an4_{split}.fileids", home / "etc" / f"an4_{split}.transcription"
    files = [line.strip() for line in read_lines(lists[0]) if line.strip()]
    lines = [line for line in read_lines(lists[1]) if line.strip()]
    if len(files) != len(lines):
        raise CorpusError(
            f"{lists[1]}: {len(lines)} lines; expected one for each of the {len(files)} in {lists[0].name}"
        )
    drafts = []
    for number, (file, line) in enumerate(zip(files, lines, strict=True), start=1):
        match = _TRANSCRIPT.match(line)
        name = Path(file).name
        if match is None or match["id"] != name:
            raise CorpusError(
                f"{lists[1]}:{number}: {line.strip()!r} found; expected <text> ({name}) as in {lists[0].name}"
            )
        text = re.sub(r"</?s>|<sil>", " ", match["text"])
        audio = with_suffix_of(home / "wav" / file, (".sph", ".wav", ".flac", ".opus", ".raw"))
        if audio.suffix == ".raw":
            if converted is None:
                problems.append(f"{audio}: headerless samples; `wavasr prepare an4` converts them")
                continue
            audio = _convert(audio, converted / f"{file}.wav")
        drafts.append(Draft(name, audio, text, speaker=Path(file).parent.name))
    return drafts


def _convert(raw: Path, wav: Path) -> Path:
    """Write headerless 16-bit samples as a WAV file, unless that was done before.

    AN4 is distributed in both byte orders and the files do not say which. In the right one neighbouring samples are
    close to each other; in the wrong one they are noise.
    """
    import numpy as np

    if wav.is_file() and wav.stat().st_mtime >= raw.stat().st_mtime:
        return wav
    content = raw.read_bytes()
    both = [np.frombuffer(content[: len(content) // 2 * 2], dtype=order) for order in (">i2", "<i2")]
    samples = min(both, key=lambda s: float(np.abs(np.diff(s.astype(np.float64))).mean()) if len(s) > 1 else 0.0)
    with atomic_bytes(wav) as file, wave.open(file, "wb") as stream:
        stream.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        stream.writeframes(samples.astype("<i2").tobytes())
    return wav
