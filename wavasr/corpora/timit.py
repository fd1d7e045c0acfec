"""TIMIT in the layout of its disc: TIMIT/{TRAIN,TEST}/DR1..DR8/<sex><speaker>/<sentence>.{WAV,PHN,WRD,TXT}.

The protocol of phone recognition (Lee and Hon 1989; Halberstadt 1998 for the development set): train on the 462
training speakers, tune on 50 speakers of the complete test set, report on the 24 speakers of the core test set; the
two SA sentences, which everybody reads, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wavasr.corpora.base import Corpus, Draft, build, folders, hold_out, read_lines, search
from wavasr.corpora.manifest import AlignedPhone
from wavasr.errors import CorpusError, TextError
from wavasr.language.lexicon import PHONE_SETS, fold, fold_phone

LAYOUT = "TIMIT/{TRAIN,TEST}/DR1..DR8/<speaker>/<sentence>.{WAV,PHN,WRD,TXT}"
SAMPLE_RATE = 16000

# Table 1 of the disc's TESTSET.DOC.
CORE_TEST_SPEAKERS = frozenset(
    """MDAB0 MWBT0 FELC0 MTAS1 MWEW0 FPAS0 MJMP0 MLNT0 FPKT0 MLLL0 MTLS0 FJLM0
    MBPM0 MKLT0 FNLP0 MCMJ0 MJDH0 FMGD0 MGRT0 MNJM0 FDHC0 MJLN0 MPAM0 FMLD0""".split()
)
# Halberstadt, "Heterogeneous acoustic measurements and multiple classifiers for speech recognition", 1998.
DEV_SPEAKERS = frozenset(
    """FAKS0 FDAC1 FJEM0 MGWT0 MJAR0 MMDB1 MMDM2 MPDF0 FCMH0 FKMS0 MBDG0 MBWM0 MCSH0 FADG0 FDMS0 FEDW0 MGJF0
    MGLB0 MRTK0 MTAA0 MTDT0 MTHC0 MWJG0 FNMR0 FREW0 FSEM0 MBNS0 MMJR0 MDLS0 MDLF0 MDVC0 MERS0 FMAH0 FDRW0
    MRCS0 MRJM4 FCAL1 MMWH0 FJSJ0 MAJC0 MJSW0 MREB0 FGJD0 FJMG0 MROA0 MTEB0 MJFC0 MRJR0 FMML0 MRWS1""".split()
)


@dataclass(frozen=True)
class Expected:
    """What a split of the whole corpus holds; `phones` are reference tokens in the 39 set, without `q`."""

    speakers: int
    utterances: int
    phones: int | None = None


EXPECTED: Mapping[str, Expected] = {
    "train": Expected(462, 3696),
    "dev": Expected(50, 400, 15057),
    "test": Expected(24, 192, 7215),
}


@dataclass(frozen=True)
class _Sentence:
    """The files of one sentence, by suffix in lower case."""

    speaker: str
    name: str
    in_test: bool
    files: Mapping[str, Path]


def read(
    root: Path,
    *,
    labels: Literal["phones", "words", "sentences"] = "phones",
    phone_set: Literal[61, 48, 39] = 48,
    dev_share: float = 0.0,
    progress: bool = True,
) -> Corpus:
    """Read TIMIT; folders and files may be in any letter case.

    With all 74 evaluation speakers on the disc the splits are the official ones, and their counts are checked. On a
    part of the disc TRAIN becomes "train" and TEST becomes "test", and a note says that they are not official.

    Args:
        root: the folder TIMIT or one that holds it.
        labels: the transcripts: "phones" (.PHN, separated by spaces), "words" (.WRD: lower case, no punctuation) or
            "sentences" (.TXT, as they are written). Of "words" and "sentences" the other serves where a file lacks.
        phone_set: the phones of the labels and of `Utterance.alignment`: 61 as on the disc, 48 as usual in training
            (scoring folds on to 39), or 39. In 48 and 39 `q` is deleted, and its time belongs to no phone.
        dev_share: on a part of the disc, the share of the training utterances held out as "dev", whole speakers at a
            time; the official split has its own.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no TRAIN and TEST folders, or nothing usable in them, or an unknown option.
    """
    if labels not in ("phones", "words", "sentences") or phone_set not in PHONE_SETS:
        raise CorpusError(f"labels={labels!r}, phone_set={phone_set!r}: expected phones|words|sentences and 61|48|39")
    train, test = _disc(root)
    sentences = [*_sentences(train, in_test=False), *_sentences(test, in_test=True)]
    kept = [sentence for sentence in sentences if not sentence.name.startswith("SA")]
    groups, notes = _split(kept)
    if len(kept) < len(sentences):
        notes.append(f"{len(sentences) - len(kept)} SA sentences left out, as the protocol asks")
    problems: list[str] = []
    drafts: dict[str, list[Draft]] = {}
    for split, group in groups.items():
        made = [_draft(sentence, labels, phone_set, problems) for sentence in group]
        drafts[split] = [draft for draft in made if draft is not None]
    official = "dev" in groups
    if not official:
        held, note = hold_out(drafts.pop("train"), dev_share)
        drafts, notes = held | drafts, notes + note
    notes.append(f"labels: {labels}" + (f" in the set of {phone_set}" if labels == "phones" else ""))
    corpus = build("timit", drafts, problems=problems, notes=notes, progress=progress)
    if official:
        corpus.problems.extend(_miscounts(corpus))
    return corpus


def _disc(root: Path) -> tuple[Path, Path]:
    """The folders TRAIN and TEST."""

    def parts(folder: Path) -> dict[str, Path]:
        return {child.name.upper(): child for child in folders(folder)}

    def is_disc(folder: Path) -> bool:
        inside = parts(folder)
        return "TRAIN" in inside and "TEST" in inside and any(_sentences(inside["TRAIN"], in_test=False))

    inside = parts(search(root, is_disc, LAYOUT))
    return inside["TRAIN"], inside["TEST"]


def _sentences(part: Path, *, in_test: bool) -> Iterator[_Sentence]:
    for region in folders(part):
        for speaker in folders(region):
            files: dict[str, dict[str, Path]] = {}
            for path in sorted(speaker.iterdir()):
                # ISO 9660 mounts may append ";1"; copies converted to RIFF are often called SX1.WAV.wav.
                name, _, suffix = path.name.upper().split(";")[0].partition(".")
                if name.startswith(("SA", "SI", "SX")):
                    files.setdefault(name, {})[suffix.lower()] = path
            for name, found in files.items():
                yield _Sentence(speaker.name.upper(), name, in_test, found)


def _split(sentences: Sequence[_Sentence]) -> tuple[dict[str, list[_Sentence]], list[str]]:
    in_test = {s.speaker for s in sentences if s.in_test}
    in_train = {s.speaker for s in sentences if not s.in_test}
    official = DEV_SPEAKERS | CORE_TEST_SPEAKERS
    if official <= in_test and not official & in_train:
        chosen: dict[str, Callable[[_Sentence], bool]] = {
            "train": lambda s: not s.in_test,
            "dev": lambda s: s.in_test and s.speaker in DEV_SPEAKERS,
            "test": lambda s: s.in_test and s.speaker in CORE_TEST_SPEAKERS,
        }
        note = "official split: 50 development and 24 core-test speakers, both under TEST"
    else:
        chosen = {"train": lambda s: not s.in_test, "test": lambda s: s.in_test}
        present = len(official & in_test)
        note = (
            f"not the official split: {present} of the 74 development and core-test speakers are under TEST; "
            f"train is the {len(in_train)} speakers under TRAIN, test the {len(in_test)} under TEST"
        )
    return {split: [s for s in sentences if belongs(s)] for split, belongs in chosen.items()}, [note]


def _draft(sentence: _Sentence, labels: str, phone_set: int, problems: list[str]) -> Draft | None:
    audio = next((sentence.files[s] for s in ("wav", "wav.wav", "flac", "sph", "nist") if s in sentence.files), None)
    any_file = next(iter(sentence.files.values()))
    if audio is None:
        problems.append(f"{any_file.parent / sentence.name}: no .WAV beside {any_file.name}")
        return None
    try:
        aligned = _alignment(sentence.files["phn"], phone_set) if "phn" in sentence.files else ()
        text = " ".join(phone.phone for phone in aligned) if labels == "phones" else _words(sentence, labels)
    except CorpusError as error:
        problems.append(str(error))
        return None
    if not text:
        problems.append(f"{audio}: no {'.PHN' if labels == 'phones' else '.WRD or .TXT'} with its {labels}")
        return None
    return Draft(f"{sentence.speaker}_{sentence.name}", audio, text, sentence.speaker, alignment=aligned)


def _alignment(path: Path, phone_set: int) -> tuple[AlignedPhone, ...]:
    """The phones of a .PHN file, in seconds; `q` leaves a gap where the set has none."""
    spans: list[AlignedPhone] = []
    for number, (start, end, label) in _rows(path):
        try:
            phone = fold_phone(label.lower(), phone_set)
        except TextError as error:
            raise CorpusError(f"{path}:{number}: {error}") from error
        if spans and start / SAMPLE_RATE < spans[-1].end_s - 1e-5:
            raise CorpusError(f"{path}:{number}: begins at sample {start}, before the phone above ends; copy it again")
        if phone is not None:
            spans.append(AlignedPhone(phone, round(start / SAMPLE_RATE, 6), round(end / SAMPLE_RATE, 6)))
    return tuple(spans)


def _words(sentence: _Sentence, labels: str) -> str:
    for suffix in ("wrd", "txt") if labels == "words" else ("txt", "wrd"):
        if suffix in sentence.files:
            return " ".join(text for _, (_, _, text) in _rows(sentence.files[suffix]))
    return ""


def _rows(path: Path) -> Iterator[tuple[int, tuple[int, int, str]]]:
    """Line number, first sample, end sample and text of each line of a .PHN, .WRD or .TXT file."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        start, end, text = (*line.split(maxsplit=2), "", "", "")[:3]
        if not (start.isdecimal() and end.isdecimal() and text.strip()) or int(start) > int(end):
            raise CorpusError(f"{path}:{number}: {line.strip()!r} found; expected <first sample> <end sample> <text>")
        yield number, (int(start), int(end), text.strip())


def _miscounts(corpus: Corpus) -> Iterator[str]:
    for split, expected in EXPECTED.items():
        utterances = corpus.splits.get(split, [])
        phones = [phone.phone for u in utterances for phone in u.alignment]
        counts = {
            "speakers": (len({u.speaker for u in utterances}), expected.speakers),
            "utterances": (len(utterances), expected.utterances),
            "reference phones (39 set)": (len(fold(phones, 39)), expected.phones),
        }
        for what, (found, due) in counts.items():
            if due is not None and found != due and (phones or "phones" not in what):
                yield f"{split}: {found:,} {what} found, the protocol has {due:,}; results will not compare"
