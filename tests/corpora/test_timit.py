from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr.corpora import timit
from wavasr.corpora.timit import CORE_TEST_SPEAKERS, DEV_SPEAKERS, Expected
from wavasr.errors import CorpusError
from wavasr.language.lexicon import fold

PHN = "0 800 h#\n800 1600 dcl\n1600 2400 ix\n2400 3000 q\n3000 4800 ax-h\n4800 5600 h#\n"
WRD = "800 2400 did\n3000 4800 a\n"
TXT = "0 5600 Did a.\n"


def speak(disc: Path, part: str, speaker: str, *sentences: str, lower: bool = False, suffix: str = "WAV") -> Path:
    """One speaker's folder on a miniature of the disc."""
    folder = disc / part / "DR1" / speaker
    folder = Path(str(folder).lower().replace(str(disc).lower(), str(disc))) if lower else folder
    folder.mkdir(parents=True, exist_ok=True)
    for sentence in sentences:
        for ending, text in (("PHN", PHN), ("WRD", WRD), ("TXT", TXT)):
            name = f"{sentence}.{ending}"
            (folder / (name.lower() if lower else name)).write_text(text, encoding="utf-8")
        name = f"{sentence}.{suffix}"
        with (folder / (name.lower() if lower else name)).open("wb") as stream:
            soundfile.write(stream, np.zeros(5600, np.int16), 16000, format="NIST", subtype="PCM_16")
    return folder


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A disc with all evaluation speakers, three others, and the SA sentences."""
    for speaker in sorted(DEV_SPEAKERS | CORE_TEST_SPEAKERS | {"MABC0"}):
        speak(tmp_path / "TIMIT", "TEST", speaker, "SX1", "SA1")
    for speaker in ("FTRA0", "MTRA0"):
        speak(tmp_path / "TIMIT", "TRAIN", speaker, "SA1", "SA2", "SI3", "SX4")
    return tmp_path


def test_the_official_split(disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"train": Expected(2, 4), "dev": Expected(50, 50, 250), "test": Expected(24, 24, 120)}
    monkeypatch.setattr(timit, "EXPECTED", expected)
    corpus = timit.read(disc)
    assert {split: len(group) for split, group in corpus.splits.items()} == {"train": 4, "dev": 50, "test": 24}
    assert {u.speaker for u in corpus.splits["dev"]} == DEV_SPEAKERS
    assert {u.speaker for u in corpus.splits["test"]} == CORE_TEST_SPEAKERS
    assert not [u.id for group in corpus.splits.values() for u in group if "SA" in u.id.split("_")[1]]
    assert corpus.problems == []
    assert "official split" in corpus.notes[0]


def test_the_speaker_lists_are_whole() -> None:
    assert (len(DEV_SPEAKERS), len(CORE_TEST_SPEAKERS)) == (50, 24)
    assert not DEV_SPEAKERS & CORE_TEST_SPEAKERS
    assert sum(speaker.startswith("F") for speaker in CORE_TEST_SPEAKERS) == 8


def test_counts_that_differ_from_the_protocol_are_problems(disc: Path) -> None:
    problems = timit.read(disc).problems
    assert "train: 2 speakers found, the protocol has 462; results will not compare" in problems
    assert "dev: 50 utterances found, the protocol has 400; results will not compare" in problems
    assert "test: 120 reference phones (39 set) found, the protocol has 7,215; results will not compare" in problems


def test_phones_and_their_times(disc: Path) -> None:
    utterance = timit.read(disc).splits["train"][0]
    assert utterance.id == "FTRA0_SI3"
    assert utterance.duration_s == 0.35
    assert utterance.text == "sil vcl ix ax sil"
    assert [tuple(phone) for phone in utterance.alignment] == [
        ("sil", 0.0, 0.05), ("vcl", 0.05, 0.1), ("ix", 0.1, 0.15), ("ax", 0.1875, 0.3), ("sil", 0.3, 0.35),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"phone_set": 61}, "h# dcl ix q ax-h h#"),
        ({"phone_set": 48}, "sil vcl ix ax sil"),
        ({"phone_set": 39}, "sil sil ih ah sil"),
        ({"labels": "words"}, "did a"),
        ({"labels": "sentences"}, "Did a."),
    ],
)
def test_labels(disc: Path, options: dict, text: str) -> None:
    corpus = timit.read(disc, **options)
    assert {u.text for group in corpus.splits.values() for u in group} == {text}
    assert all(u.alignment for group in corpus.splits.values() for u in group)


def test_any_letter_case_and_converted_copies(tmp_path: Path) -> None:
    speak(tmp_path / "timit", "train", "ftra0", "sx1", lower=True)
    speak(tmp_path / "timit", "test", "fels0", "sx1", suffix="wav.wav", lower=True)
    lower = timit.read(tmp_path)
    speak(tmp_path / "upper" / "TIMIT", "TRAIN", "FTRA0", "SX1")
    speak(tmp_path / "upper" / "TIMIT", "TEST", "FELS0", "SX1", suffix="WAV;1")
    upper = timit.read(tmp_path / "upper" / "TIMIT")
    for split in ("train", "test"):
        assert [(u.id, u.text) for u in lower.splits[split]] == [(u.id, u.text) for u in upper.splits[split]]


def test_a_part_of_the_disc_is_not_called_official(tmp_path: Path) -> None:
    for speaker in ("FA0", "FB0", "FC0", "FD0", "FE0", "FF0"):
        speak(tmp_path, "TRAIN", speaker, "SX1", "SX2")
    speak(tmp_path, "TEST", "MDAB0", "SX1")
    corpus = timit.read(tmp_path)
    assert {split: len(group) for split, group in corpus.splits.items()} == {"train": 12, "test": 1}
    assert corpus.notes[0].startswith("not the official split: 1 of the 74")
    assert corpus.problems == []
    with_dev = timit.read(tmp_path, dev_share=0.3).splits
    assert {split: len(group) for split, group in with_dev.items()} == {"train": 8, "dev": 4, "test": 1}
    assert not {u.speaker for u in with_dev["train"]} & {u.speaker for u in with_dev["dev"]}


def test_every_unusable_sentence_is_named(tmp_path: Path) -> None:
    good = "SX1 SX2 SX3 SX4 SX5 SX6 SX7".split()
    folder = speak(tmp_path, "TRAIN", "FTRA0", *good)
    speak(tmp_path, "TEST", "MTES0", "SX1")
    (folder / "SX2.WAV").unlink()
    (folder / "SX3.PHN").unlink()
    (folder / "SX4.PHN").write_text("0 800 h#\n800 900 xx\n", encoding="utf-8")
    (folder / "SX5.PHN").write_text("0 800²\n", encoding="utf-8")
    (folder / "SX6.WAV").write_bytes((folder / "SX6.WAV").read_bytes()[:5000])
    (folder / "SX7.PHN").write_text("0 800 h#\n700 900 b\n", encoding="utf-8")
    corpus = timit.read(tmp_path)
    assert [u.id for u in corpus.splits["train"]] == ["FTRA0_SX1"]
    messages = [
        "SX2: no .WAV beside SX2.PHN", "SX3.WAV: no .PHN with its phones", "SX4.PHN:2: 'xx' is no phone of TIMIT",
        "SX5.PHN:1: '0 800²' found", "SX7.PHN:2: begins at sample 700", "SX6.WAV: is cut off",
    ]  # fmt: skip
    assert len(corpus.problems) == len(messages)
    assert all(message in problem for message, problem in zip(messages, corpus.problems, strict=True))
    words = timit.read(tmp_path, labels="words")
    assert "FTRA0_SX3" in {u.id for u in words.splits["train"]}


def test_what_is_no_disc_is_refused(tmp_path: Path) -> None:
    (tmp_path / "TRAIN").mkdir()
    with pytest.raises(CorpusError, match=r"expected TIMIT/\{TRAIN,TEST\}"):
        timit.read(tmp_path)
    with pytest.raises(CorpusError, match="no such folder"):
        timit.read(tmp_path / "none")
    with pytest.raises(CorpusError, match=r"phones\|words\|sentences"):
        timit.read(tmp_path, labels="letters")


def test_the_real_sample(shared_data: Path) -> None:
    corpus = timit.read(shared_data / "timit-sample")
    assert {split: len(group) for split, group in corpus.splits.items()} == {"train": 96, "test": 32}
    assert {split: len({u.speaker for u in group}) for split, group in corpus.splits.items()} == {
        "train": 12,
        "test": 4,
    }
    assert corpus.problems == []
    whole = timit.read(shared_data / "timit-sample", phone_set=61)
    for split, group in corpus.splits.items():
        for folded, full in zip(group, whole.splits[split], strict=True):
            assert folded.text.split() == fold(full.text.split(), 48) == [phone.phone for phone in folded.alignment]
            assert folded.alignment[-1].end_s <= folded.duration_s + 0.05
    words = timit.read(shared_data / "timit-sample", labels="words").splits["test"]
    sentences = timit.read(shared_data / "timit-sample", labels="sentences").splits["test"]
    letters = str.maketrans("-", " ", '.,?!;:"')
    assert [u.text for u in words] == [" ".join(u.text.lower().translate(letters).split()) for u in sentences]
