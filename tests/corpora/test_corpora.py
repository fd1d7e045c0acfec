import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr import corpora
from wavasr.audio.reading import audio_duration_s
from wavasr.corpora.base import Draft, build, hold_out
from wavasr.corpora.manifest import read_manifest
from wavasr.corpora.speech_commands import split_of
from wavasr.errors import AudioError, CorpusError


def sound(path: Path, seconds: float = 0.1, rate: int = 16000, **options: str) -> Path:
    """A sound file of a quiet hum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hum = 0.1 * np.sin(np.arange(round(seconds * rate)) / 5)
    soundfile.write(path, hum, rate, **options)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def texts(corpus: corpora.Corpus) -> dict[str, dict[str, str]]:
    return {split: {u.id: u.text for u in group} for split, group in corpus.splits.items()}


def sizes(corpus: corpora.Corpus) -> dict[str, int]:
    return {split: len(group) for split, group in corpus.splits.items()}


# --- each layout in miniature -----------------------------------------------------------------------------------


def test_librispeech(tmp_path: Path) -> None:
    for subset, speaker in (("train-clean-5", "19"), ("dev-clean-2", "84")):
        chapter = tmp_path / "LibriSpeech" / subset / speaker / "198"
        text(chapter / f"{speaker}-198.trans.txt", f"{speaker}-198-0000 ONE TWO\n{speaker}-198-0001 THREE\n")
        for number in range(2):
            sound(chapter / f"{speaker}-198-000{number}.flac")
    sound(chapter / "84-198-0002.flac")
    corpus = corpora.read("librispeech", tmp_path)
    assert texts(corpus) == {
        "dev-clean-2": {"84-198-0000": "ONE TWO", "84-198-0001": "THREE"},
        "train-clean-5": {"19-198-0000": "ONE TWO", "19-198-0001": "THREE"},
    }
    assert {u.speaker for u in corpus.splits["dev-clean-2"]} == {"84"}
    assert corpus.problems == [f"{chapter / '84-198-0002.flac'}: not in its chapter's .trans.txt"]
    subset = corpora.read("librispeech", tmp_path / "LibriSpeech" / "dev-clean-2")
    assert sizes(subset) == {"dev-clean-2": 2}


def an4(root: Path, speakers: int, suffix: str) -> Path:
    files = [f"an4_clstk/s{i:02}/an{i}-s{i:02}-b" for i in range(speakers)]
    text(root / "etc/an4_train.fileids", "\n".join(files) + "\n")
    lines = [f"<s> RUBOUT M{i} </s> ({Path(file).name})" for i, file in enumerate(files)]
    text(root / "etc/an4_train.transcription", "\n".join(lines) + "\n")
    text(root / "etc/an4_test.fileids", "an4test_clstk/fcaw/an406-fcaw-b\n")
    text(root / "etc/an4_test.transcription", "RUBOUT G (an406-fcaw-b)\n")
    for file in [*files, "an4test_clstk/fcaw/an406-fcaw-b"]:
        sound(root / "wav" / f"{file}{suffix}", format="NIST" if suffix == ".sph" else "WAV")
    return root


@pytest.mark.parametrize("suffix", [".sph", ".wav"])
def test_an4(tmp_path: Path, suffix: str) -> None:
    root = an4(tmp_path / "an4", 20, suffix)
    corpus = corpora.read("an4", tmp_path)
    assert sizes(corpus) == {"train": 18, "dev": 2, "test": 1}
    assert texts(corpus)["test"] == {"an406-fcaw-b": "RUBOUT G"}
    assert corpus.splits["test"][0].speaker == "fcaw"
    train = corpus.splits["train"][0]
    assert train.text == f"RUBOUT M{int(train.speaker[1:])}"
    assert "train: 20 of the 948 utterances of the corpus are listed" in corpus.notes
    assert sizes(corpora.read("an4", root, dev_share=0)) == {"train": 20, "test": 1}


@pytest.mark.parametrize("order", [">i2", "<i2"])
def test_an4_raw_of_either_byte_order_is_converted(tmp_path: Path, order: str) -> None:
    root = an4(tmp_path / "an4", 5, ".wav")
    originals = {}
    for wav in sorted(root.rglob("*.wav")):
        originals[wav.stem], _ = soundfile.read(wav, dtype="int16")
        wav.with_suffix(".raw").write_bytes(originals[wav.stem].astype(order).tobytes())
        wav.unlink()
    with pytest.raises(CorpusError, match="headerless samples"):
        corpora.read("an4", root)
    corpus = corpora.prepare("an4", root, tmp_path / "out", dev_share=0)
    for utterance in (u for group in corpus.splits.values() for u in group):
        assert utterance.audio.is_relative_to(tmp_path / "out" / "audio")
        samples, rate = soundfile.read(utterance.audio, dtype="int16")
        assert rate == 16000
        np.testing.assert_array_equal(samples, originals[utterance.id])


def test_an4_lists_that_do_not_match_are_refused(tmp_path: Path) -> None:
    root = an4(tmp_path, 5, ".wav")
    text(root / "etc/an4_test.transcription", "RUBOUT G (an407-fcaw-b)\n")
    with pytest.raises(CorpusError, match=r"an4_test\.transcription:1: .* expected <text> \(an406-fcaw-b\)"):
        corpora.read("an4", root)
    text(root / "etc/an4_test.transcription", "")
    with pytest.raises(CorpusError, match="0 lines; expected one for each of the 1"):
        corpora.read("an4", root)


def test_ljspeech(tmp_path: Path) -> None:
    home = tmp_path / "LJSpeech-1.1"
    rows = [f'LJ001-{i:04}|"No. {i}|"Number {i}' for i in range(1, 21)]
    text(home / "metadata.csv", "\n".join(rows) + "\n")
    for row in rows:
        sound(home / "wavs" / f"{row[:10]}.wav", rate=22050)
    corpus = corpora.read("ljspeech", tmp_path)
    assert sizes(corpus) == {"train": 18, "dev": 1, "test": 1}
    assert texts(corpus)["test"] == {"LJ001-0020": '"Number 20'}
    assert texts(corpora.read("ljspeech", home, normalised=False))["dev"] == {"LJ001-0019": '"No. 19'}
    assert sizes(corpora.read("ljspeech", home, held_out=0.0)) == {"train": 20}
    text(home / "metadata.csv", "LJ001-0001|one\n")
    with pytest.raises(CorpusError, match=r"metadata\.csv:1: 2 fields"):
        corpora.read("ljspeech", home)


def common_voice(home: Path, splits: str = "train dev test") -> None:
    columns = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"
    for number, split in enumerate(splits.split()):
        row = f'{str(number) * 128}\tcommon_voice_{number}.mp3\tx\tShe said "no" to \u2028 me.\t2\n'
        text(home / f"{split}.tsv", columns + row)
        sound(home / "clips" / f"common_voice_{number}.mp3", rate=32000)


def test_common_voice(tmp_path: Path) -> None:
    common_voice(tmp_path / "cv-corpus-17.0" / "cy")
    corpus = corpora.read("commonvoice", tmp_path / "cv-corpus-17.0")
    assert texts(corpus) == {
        split: {f"common_voice_{i}": 'She said "no" to me.'} for i, split in enumerate(("train", "dev", "test"))
    }
    assert corpus.splits["dev"][0].speaker == "1" * 16
    common_voice(tmp_path / "cv-corpus-17.0" / "br", "validated")
    with pytest.raises(CorpusError, match="expected one of br, cy"):
        corpora.read("commonvoice", tmp_path / "cv-corpus-17.0")
    options = {"language": "br", "splits": "validated"}
    assert sizes(corpora.read("commonvoice", tmp_path / "cv-corpus-17.0", **options)) == {"validated": 1}
    with pytest.raises(CorpusError, match=r"train\.tsv: no such file"):
        corpora.read("commonvoice", tmp_path / "cv-corpus-17.0" / "br")


def test_common_voice_converted_and_malformed(tmp_path: Path) -> None:
    common_voice(tmp_path, "train")
    (tmp_path / "clips" / "common_voice_0.mp3").unlink()
    sound(tmp_path / "clips" / "common_voice_0.wav")
    corpus = corpora.read("commonvoice", tmp_path)
    assert corpus.splits["train"][0].audio.suffix == ".wav"
    assert corpus.notes == ["no dev.tsv here, so no split 'dev'", "no test.tsv here, so no split 'test'"]
    text(tmp_path / "train.tsv", "client_id\tpath\n")
    with pytest.raises(CorpusError, match=r"train\.tsv:1: no column 'sentence'"):
        corpora.read("commonvoice", tmp_path)
    text(tmp_path / "train.tsv", "path\tsentence\na.mp3\n")
    with pytest.raises(CorpusError, match=r"train\.tsv:2: 1 columns"):
        corpora.read("commonvoice", tmp_path)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_fsdd(tmp_path: Path, suffix: str) -> None:
    for digit in (0, 7):
        for index in range(12):
            sound(tmp_path / "recordings" / f"{digit}_jackson_{index}{suffix}", rate=8000)
    sound(tmp_path / "recordings" / f"seven{suffix}")
    corpus = corpora.read("fsdd", tmp_path)
    assert sizes(corpus) == {"train": 4, "dev": 10, "test": 10}
    assert texts(corpus)["train"]["7_jackson_11"] == "seven"
    assert set(texts(corpus)["test"]) == {f"{digit}_jackson_{index}" for digit in (0, 7) for index in range(5)}
    assert corpus.problems == [
        f"{tmp_path / 'recordings' / f'seven{suffix}'}: expected a name like 7_jackson_32{suffix}"
    ]
    assert "speakers of test who are also in train: 1; it does not measure new voices" in corpus.notes
    assert sizes(corpora.read("fsdd", tmp_path, dev_indices=0)) == {"train": 14, "test": 10}


def test_speech_commands_by_list(tmp_path: Path) -> None:
    for word in ("yes", "no", "_background_noise_"):
        for speaker in ("0a0b0c0d", "1a1b1c1d", "2a2b2c2d"):
            sound(tmp_path / word / f"{speaker}_nohash_0.wav")
    text(tmp_path / "validation_list.txt", "yes/1a1b1c1d_nohash_0.wav\nno/1a1b1c1d_nohash_0.wav\n")
    text(tmp_path / "testing_list.txt", "yes/2a2b2c2d_nohash_0.wav\nno/2a2b2c2d_nohash_0.wav\n")
    corpus = corpora.read("speech-commands", tmp_path)
    assert texts(corpus) == {
        split: {f"{word}_{speaker}_nohash_0": word for word in ("no", "yes")}
        for split, speaker in (("train", "0a0b0c0d"), ("dev", "1a1b1c1d"), ("test", "2a2b2c2d"))
    }
    assert sizes(corpora.read("speech-commands", tmp_path, words="yes")) == {"train": 1, "dev": 1, "test": 1}


def test_speech_commands_without_lists_follow_the_official_rule(tmp_path: Path) -> None:
    # The first speakers of the official validation_list.txt and testing_list.txt.
    listed = {"dev": ("026290a7", "060cd039", "099d52ad"), "test": ("0c40e715", "0ea0e2f4", "105a0eea")}
    for split, speakers in listed.items():
        assert {split_of(speaker) for speaker in speakers} == {split}
    for speaker in ("026290a7", "0c40e715", "00176480"):
        sound(tmp_path / "up" / f"{speaker}_nohash_0.wav")
    corpus = corpora.read("speech-commands", tmp_path)
    assert sizes(corpus) == {"train": 1, "dev": 1, "test": 1}
    assert corpus.splits["test"][0].speaker == "0c40e715"
    assert corpus.notes == ["no split lists here: split by the official rule, a hash of the speaker"]


def kaldi(folder: Path) -> Path:
    text(folder / "wav.scp", "rec1 audio/one.wav\nrec2 audio/two.flac\n")
    text(folder / "text", "rec1 ONE\nrec2 TWO TWO\n")
    text(folder / "utt2spk", "rec1 anna\nrec2 bert\n")
    sound(folder.parent.parent / "audio" / "one.wav", 1.0)
    sound(folder.parent.parent / "audio" / "two.flac", 2.0)
    return folder


def test_kaldi_directories(tmp_path: Path) -> None:
    train = kaldi(tmp_path / "s5" / "data" / "train")
    text(train / "segments", "utt1 rec1 0.25 0.75\nutt2 rec2 0.5 -1\nutt3 rec2 1.5 2.25\n")
    text(train / "text", "utt1 ONE\nutt2 TWO\nutt3 TWO\nutt4 GONE\n")
    text(train / "utt2spk", "utt1 anna\nutt2 bert\nutt3 bert\n")
    kaldi(tmp_path / "s5" / "data" / "test")
    corpus = corpora.read("kaldi", tmp_path / "s5" / "data")
    spans = {u.id: (u.offset_s, u.duration_s, u.speaker) for u in corpus.splits["train"]}
    assert spans == {"utt1": (0.25, 0.5, "anna"), "utt2": (0.5, 1.5, "bert"), "utt3": (1.5, 0.5, "bert")}
    assert texts(corpus)["test"] == {"rec1": "ONE", "rec2": "TWO TWO"}
    assert corpus.problems == [f"{train / 'text'}: 'utt4' has a text and no recording"]
    assert "1 utterance of train cut at the end of the file, by 0.5 s at most" in corpus.notes
    assert sizes(corpora.read("kaldi", train)) == {"train": 3}


def test_kaldi_commands_are_refused_and_not_run(tmp_path: Path) -> None:
    folder = kaldi(tmp_path / "data" / "train")
    text(folder / "wav.scp", f"rec1 touch {tmp_path}/ran |\nrec2 audio/two.flac\n")
    with pytest.raises(CorpusError, match=r"1 of 2 lines are commands, e\.g\. rec1 .*commands are not run"):
        corpora.read("kaldi", folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("text", "rec1 ONE\nrec1 TWO\n", r"text:2: 'rec1' for the second time"),
        ("wav.scp", "rec1\n", r"wav\.scp:1: 'rec1' stands alone"),
        ("segments", "utt1 rec1 0.5\n", r"segments: utt1 .* expected <utterance>"),
        ("segments", "utt1 rec1 0.75 0.25\n", "lies from 0.75 to 0.25 s"),
        ("segments", "utt1 rec1 nan 1\n", "lies from nan"),
        ("segments", "utt1 rec9 0 1\n", "'utt1' is of recording 'rec9', which is not in wav.scp"),
        ("text", "rec8 ONE\n", "no text for 'rec2'"),
    ],
)
def test_malformed_kaldi_files_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = kaldi(tmp_path / "data" / "train")
    text(folder / file, content)
    with pytest.raises(CorpusError, match=message):
        corpora.read("kaldi", folder)


def test_folders(tmp_path: Path) -> None:
    for speaker in "abcdef":
        for number in range(2):
            text(sound(tmp_path / speaker / f"{number}.wav").with_suffix(".txt"), f"hello\n{speaker}{number}\n")
    sound(tmp_path / "a" / "alone.wav")
    sound(tmp_path / ".trash" / "old.wav")
    corpus = corpora.read("folder", tmp_path, dev_share=0.2)
    assert sizes(corpus) == {"train": 8, "dev": 4}
    assert (texts(corpus)["train"] | texts(corpus)["dev"])["b/1"] == "hello b1"
    assert corpus.problems == [f"{tmp_path / 'a' / 'alone.wav'}: no transcript; expected alone.txt beside it"]
    assert sizes(corpora.read("folder", tmp_path, dev_share=0)) == {"train": 12}


def test_folders_with_splits(tmp_path: Path) -> None:
    for part in ("train", "valid", "test", "extra"):
        text(sound(tmp_path / part / "anna" / "1.wav").with_suffix(".txt"), part)
    corpus = corpora.read("folder", tmp_path)
    assert texts(corpus) == {
        "train": {"train/anna/1": "train"}, "dev": {"valid/anna/1": "valid"}, "test": {"test/anna/1": "test"},
    }  # fmt: skip
    assert corpus.splits["test"][0].speaker == "anna"
    assert any(note.startswith("1 recording outside") for note in corpus.notes)
    text(sound(tmp_path / "val" / "1.wav").with_suffix(".txt"), "x")
    with pytest.raises(CorpusError, match="val and valid are both 'dev'"):
        corpora.read("folder", tmp_path)


def test_manifests_are_checked_and_copied(tmp_path: Path) -> None:
    sound(tmp_path / "in" / "a.wav", 0.5)
    rows = [
        {"audio_filepath": "a.wav", "duration": 0.52, "text": "whole", "speaker": "anna", "extra": 1},
        {"audio_filepath": "a.wav", "duration": 0.2, "offset": 0.1, "text": "part", "alignment": [["a", 0, 0.1]]},
        {"audio_filepath": "a.wav", "duration": 9, "text": "wrong", "id": "wrong"},
        {"audio_filepath": "none.wav", "duration": 1, "text": "missing"},
        {"audio_filepath": "a.wav", "duration": 0.1, "offset": 0.2, "text": " ", "id": "silent"},
    ]
    text(tmp_path / "in" / "train.jsonl", "\n".join(json.dumps(row) for row in rows))
    corpus = corpora.prepare("jsonl", tmp_path / "in", tmp_path / "out")
    written = read_manifest(tmp_path / "out" / "train.jsonl")
    assert written == corpus.splits["train"]
    assert [(u.text, u.duration_s, u.offset_s) for u in written] == [("whole", 0.5, 0.0), ("part", 0.2, 0.1)]
    assert written[1].alignment[0].phone == "a"
    assert corpus.problems == [
        f"{tmp_path / 'in' / 'none.wav'}: no such file; check the path",
        f"{tmp_path / 'in' / 'a.wav'}: utterance 'wrong' lies from 0 to 9 s, but the file has 0.5 s",
        f"{tmp_path / 'in' / 'a.wav'}: the text of utterance 'silent' is empty; write what is said",
    ]
    with pytest.raises(CorpusError, match="give another folder"):
        corpora.prepare("jsonl", tmp_path / "in" / "train.jsonl", tmp_path / "in")


# --- what they share --------------------------------------------------------------------------------------------


def test_durations_are_those_of_the_files(tmp_path: Path) -> None:
    formats = {
        "a.wav": {}, "b.flac": {}, "c.ogg": {"subtype": "VORBIS"}, "d.opus": {"format": "OGG", "subtype": "OPUS"},
        "e.mp3": {}, "f.sph": {"format": "NIST"}, "g.aiff": {},
    }  # fmt: skip
    for name, options in formats.items():
        assert audio_duration_s(sound(tmp_path / name, 1.25, **options)) == pytest.approx(1.25, abs=1e-9)
    assert audio_duration_s(sound(tmp_path / "h.wav", 1.25, rate=8000)) == 1.25


@pytest.mark.parametrize("name", ["a.wav", "b.flac", "c.ogg", "d.opus", "e.mp3", "f.sph"])
def test_files_cut_short_are_found(tmp_path: Path, name: str) -> None:
    kind = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".sph": {"format": "NIST"}}.get(Path(name).suffix, {})
    path = sound(tmp_path / name, 1.0, **kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(AudioError, match=name):
        audio_duration_s(path)


def test_wav_headers_of_streaming_writers_are_whole(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", 1.0)
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert audio_duration_s(path) == 1.0


def test_unusable_files_are_named(tmp_path: Path) -> None:
    text(tmp_path / "text.wav", "this is no sound, though it says so")
    text(tmp_path / "empty.wav", "")
    sound(tmp_path / "header.wav", 0.0)
    for name, message in (
        ("text.wav", "text file"), ("empty.wav", "file is empty"), ("header.wav", "no samples"),
        ("none.wav", "no such file"), ("", "is a folder"),
    ):  # fmt: skip
        with pytest.raises(AudioError, match=message) as caught:
            audio_duration_s(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_speakers_are_held_out_whole_and_always_the_same() -> None:
    drafts = [Draft(f"{s}{i}", Path(f"{s}{i}.wav"), "x", f"s{s}") for s in range(20) for i in range(5)]
    splits, notes = hold_out(drafts, 0.2)
    assert (len(splits["train"]), len(splits["dev"])) == (80, 20)
    assert not {d.speaker for d in splits["train"]} & {d.speaker for d in splits["dev"]}
    again, _ = hold_out(drafts[::-1], 0.2)
    assert {d.id for d in again["dev"]} == {d.id for d in splits["dev"]}
    assert [d for d in drafts if d in splits["train"]] == splits["train"]
    assert notes == ["dev is 4 speakers held out of train; the corpus has no dev set of its own"]
    one_voice, notes = hold_out([Draft(str(i), Path(f"{i}.wav"), "x", "me") for i in range(50)], 0.1)
    assert (len(one_voice["train"]), len(one_voice["dev"])) == (45, 5)
    assert "the voices of train" in notes[1]
    three = [Draft(f"{s}{i}", Path(f"{s}{i}.wav"), "x", s) for s, n in (("a", 9), ("b", 4), ("c", 7)) for i in range(n)]
    splits, notes = hold_out(three, 0.1)
    assert {d.speaker for d in splits["dev"]} == {"b"} and len(splits["train"]) == 16 and len(notes) == 1
    unknown = [Draft(str(i), Path(f"{i}.wav"), "x") for i in range(20)]
    assert {d.speaker for d in hold_out(drafts + unknown, 0.1)[0]["dev"]} < {d.speaker for d in drafts}
    assert hold_out(drafts, 0.0) == ({"train": drafts}, [])
    with pytest.raises(CorpusError, match="leaves none"):
        hold_out(drafts[:1], 0.5)
    with pytest.raises(CorpusError, match="expected 0 to below 1"):
        hold_out(drafts, 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("locale", ["utf-8", "ascii"])
def test_file_names_that_are_not_utf8(locale: str, tmp_path: Path) -> None:
    for name in (b"caf\xe9", "caf\u00e9".encode(), b"plain"):
        named = tmp_path / "in" / "a" / os.fsdecode(name + b".wav")
        text(sound(tmp_path / "in" / "a" / "any.wav").rename(named).with_suffix(".txt"), "yes")
    code = (
        "import sys; from wavasr import corpora; from wavasr.corpora.manifest import read_manifest\n"
        "from wavasr.corpora.recordings import load_utterance\n"
        f"corpora.prepare('folder', {str(tmp_path / 'in')!r}, {str(tmp_path / 'm')!r}, dev_share=0.0)\n"
        f"u = read_manifest({str(tmp_path / 'm' / 'train.jsonl')!r})\n"
        "print(ascii([x.id for x in u]), {len(load_utterance(x, 16000)) for x in u})"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if locale == "ascii" else {"PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | plain, capture_output=True, text=True)
    assert done.stdout.strip() == r"['a/caf\xe9', 'a/caf\\xe9', 'a/plain'] {1600}", done.stderr


def test_texts_whose_recording_is_passed_over_are_named(tmp_path: Path) -> None:
    text(sound(tmp_path / "a.wav").with_suffix(".txt"), "yes")
    text(tmp_path / "b.txt", "no")
    text(tmp_path / "b.xyz", "?")
    text(tmp_path / "README.txt", "about")
    corpus = corpora.read("folder", tmp_path, dev_share=0.0)
    assert [problem.partition(": ")[0] for problem in corpus.problems] == [str(tmp_path / "b.xyz")]
    assert "texts without a recording beside them: 1, passed over, e.g. README.txt" in corpus.notes


def test_splits_without_utterances_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for part in ("train", "test"):
        text(sound(tmp_path / "in" / part / "1.wav").with_suffix(".txt"), part)
    text(tmp_path / "in" / "test" / "1.wav", "broken")
    with pytest.raises(CorpusError, match=r"no utterance of 'test' can be used, e\.g\. .*1\.wav: is a text file"):
        corpora.prepare("folder", tmp_path / "in", tmp_path / "out", dev_share=0)
    assert not (tmp_path / "out").exists()


def test_repeated_ids_and_leaks_are_found(tmp_path: Path) -> None:
    draft = Draft("a", sound(tmp_path / "a.wav"), "x", "anna")
    with pytest.raises(CorpusError, match="'train' has 1 ids more than once"):
        build("x", {"train": [draft, draft]})
    corpus = build("x", {"train": [draft], "test": [draft]})
    assert corpus.problems == [f"utterances of test that are also in train: 1, e.g. {tmp_path / 'a.wav'}"]


def test_options_of_the_command_line() -> None:
    assert corpora.options_of("timit") == {"labels": "phones", "phone_set": 48, "dev_share": 0.0}
    assert corpora.parse_options("timit", ["labels=words", "phone-set=39"]) == {"labels": "words", "phone_set": 39}
    assert corpora.parse_options("ljspeech", ["normalised=no"]) == {"normalised": False}
    for settings, message in (
        (["label=words"], "timit has no option 'label=words'; its options and their defaults: labels=phones"),
        (["labels"], "timit has no option 'labels'"),
        (["phone_set=many"], "phone_set is 'many'; expected a int"),
    ):
        with pytest.raises(CorpusError, match=message):
            corpora.parse_options("timit", settings)
    with pytest.raises(CorpusError, match="jsonl has no option 'shuffle'; its options: none"):
        corpora.read("jsonl", Path("x.jsonl"), shuffle=True)


@pytest.mark.parametrize("name", corpora.NAMES)
def test_wrong_roots_are_named_with_what_was_expected(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match="no such folder; expected"):
        corpora.read(name, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError) as caught:
        corpora.read(name, tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value) or name in str(caught.value)
    archive = text(tmp_path / "corpus.tar.gz", "x")
    with pytest.raises(CorpusError, match=r"unpack it|not JSON"):
        corpora.read(name, archive)


def test_misspelt_names_are_corrected() -> None:
    with pytest.raises(CorpusError, match="did you mean librispeech"):
        corpora.read("librispeach", Path())
    with pytest.raises(CorpusError, match="expected one of timit, librispeech"):
        corpora.read("xyz", Path())


def test_the_summary_names_everything(tmp_path: Path) -> None:
    kaldi(tmp_path / "data" / "train")
    text(tmp_path / "data" / "train" / "text", "rec1 ONE\n")
    lines = corpora.summary(corpora.read("kaldi", tmp_path / "data")).splitlines()
    assert lines[1].split() == ["train", "1", "0.00", "1"]
    assert lines[2] == f"problem: {tmp_path / 'data' / 'train' / 'text'}: no text for 'rec2'"


def test_importing_the_readers_is_light() -> None:
    modules = "wavasr.corpora, wavasr.language.lexicon"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'numpy', 'av'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- real speech ------------------------------------------------------------------------------------------------


def test_real_librispeech(shared_data: Path, tmp_path: Path) -> None:
    corpus = corpora.prepare("librispeech", shared_data / "librispeech-native", tmp_path)
    assert sizes(corpus) == {"dev-mini": 6}
    assert corpus.problems == []
    assert read_manifest(tmp_path / "dev-mini.jsonl") == corpus.splits["dev-mini"]
    for utterance in corpus.splits["dev-mini"]:
        assert utterance.duration_s == soundfile.info(utterance.audio).duration
        assert utterance.text.isupper()


def test_real_fsdd_has_the_official_split(shared_data: Path) -> None:
    corpus = corpora.read("fsdd", shared_data / "fsdd", dev_indices=0)
    assert sizes(corpus) == {"train": 2700, "test": 300}
    for split, utterances in corpus.splits.items():
        listed = {u.id: (u.text, u.speaker) for u in read_manifest(shared_data / "fsdd" / f"{split}.jsonl")}
        assert {u.id: (u.text, u.speaker) for u in utterances} == listed
    assert corpus.problems == []


def test_real_manifests_stand_the_check(shared_data: Path) -> None:
    corpus = corpora.read("jsonl", shared_data / "an4" / "test.jsonl")
    assert sizes(corpus) == {"test": 130}
    assert corpus.problems == []
