"""Shards: tar files that others read, an index that every command takes, from disks and URLs."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr import corpora
from wavasr.cli import main
from wavasr.corpora.listing import read_listing
from wavasr.corpora.manifest import AlignedPhone, Utterance, read_manifest, write_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.corpora.remote import url_of
from wavasr.corpora.shards import recording_bytes, stretch_of, write_shards
from wavasr.errors import AudioError, CorpusError

RATE = 16000


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Five whole recordings and two pieces of a longer one."""
    rng = np.random.default_rng(0)
    utterances = []
    for n in range(5):
        path = tmp_path / f"{n}.{'wav' if n % 2 else 'flac'}"
        soundfile.write(path, 0.1 * rng.standard_normal(1600 * (n + 1)), RATE, subtype="PCM_16")
        spans = (AlignedPhone("aa", 0.0, 0.05),)
        utterances.append(Utterance(f"u{n}", path, 0.1 * (n + 1), f"text {n} ünï", f"s{n % 2}", 0.0, spans))
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(RATE * 3), RATE, subtype="PCM_16")
    utterances += [Utterance(f"p{n}", tmp_path / "long.wav", 0.5, "piece", "s", offset_s=n) for n in (0, 1)]
    write_manifest(tmp_path / "all.jsonl", utterances)
    return tmp_path / "all.jsonl"


@pytest.mark.parametrize("where", ["folder", "file", "memory"])
def test_shards_hold_what_the_manifest_does(manifest: Path, tmp_path: Path, where: str) -> None:
    output = {"folder": tmp_path / "out", "file": Path(f"file://{tmp_path}/out"), "memory": Path("memory://shards/out")}
    shards = list(write_shards(read_listing([manifest]), output[where], shard_mb=0.02))
    assert len(shards) > 2 and sum(count for _, count in shards) == 7
    index = output[where] / "index.jsonl"
    for stored in (list(read_listing([index])), read_manifest(index)):
        for ours, theirs in zip(stored, read_manifest(manifest), strict=True):
            assert (ours.id, ours.text, ours.speaker, ours.duration_s, ours.alignment) == (
                theirs.id, theirs.text, theirs.speaker, theirs.duration_s, theirs.alignment
            )  # fmt: skip
            samples = load_utterance(theirs, RATE)
            assert np.abs(load_utterance(ours, RATE) - samples).max() <= (1 / 32767 if theirs.id[0] == "p" else 0)
    if where == "folder":
        assert list(read_listing([output[where]])) == list(read_listing([index]))  # the folder means its index


def test_others_read_them(manifest: Path, tmp_path: Path) -> None:
    list(write_shards(read_listing([manifest]), tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        names = tar.getnames()
        told = json.load(tar.extractfile("000000-000001.json"))  # type: ignore[arg-type]
    assert names[:4] == ["000000-000000.flac", "000000-000000.json", "000000-000001.wav", "000000-000001.json"]
    assert told["text"] == "text 1 ünï" and told["audio_filepath"] == "000000-000001.wav"
    webdataset = pytest.importorskip("webdataset")
    with (tmp_path / "out" / "000000.tar").open("rb") as stream:
        members = webdataset.tariterators.tar_file_expander(iter([{"url": "000000.tar", "stream": stream}]))
        samples = list(webdataset.tariterators.group_by_keys(members))
    assert len(samples) == 7
    sound, _ = soundfile.read(io.BytesIO(samples[4]["flac"]))
    assert len(sound) == 8000


def test_pieces_keep_their_samples(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 4000, dtype=np.int16)
    soundfile.write(tmp_path / "long.wav", samples, 16000)
    loud = np.where(np.arange(44100) // 100 % 2, 1.0, -1.0)  # resampled it goes beyond what 16 bits hold
    soundfile.write(tmp_path / "loud.wav", loud, 44100, subtype="FLOAT")
    pieces = [("a", "long.wav", 0.1, 0.05), ("b", "loud.wav", 0.5, 0.0)]
    said = [Utterance(id, tmp_path / name, length_s, id, offset_s=start_s) for id, name, length_s, start_s in pieces]
    list(write_shards(said, tmp_path / "out"))
    piece, loud_piece = (load_utterance(u, 16000) for u in read_manifest(tmp_path / "out"))
    assert np.array_equal(piece, samples[800:2400] / np.float32(32768))
    np.testing.assert_allclose(loud_piece, np.clip(load_utterance(said[1], 16000), -1, 1), atol=1e-4)


def test_a_recording_that_is_damaged_is_named(manifest: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    long.write_bytes(long.read_bytes()[:50000])
    with pytest.raises(AudioError, match=r"long\.wav: is cut off"):
        list(write_shards(read_listing([manifest]), tmp_path / "out"))
    long.unlink()
    with pytest.raises(AudioError, match=r"long\.wav: cannot be read"):
        list(write_shards(read_listing([manifest]), tmp_path / "out"))


def test_shards_of_shards_keep_names_and_bytes(manifest: Path, tmp_path: Path) -> None:
    list(write_shards(read_listing([manifest]), tmp_path / "out"))
    list(write_shards(read_listing([tmp_path / "out"]), tmp_path / "again"))
    first, again = ((tmp_path / name / "000000.tar").read_bytes() for name in ("out", "again"))
    assert first == again


def test_commands_take_them(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    assert main(["shard", str(manifest), "--output", str(tmp_path / "out"), "--size", "0.05"]) == 0
    assert "7 utterances in " in capsys.readouterr().out
    options = ["--model", str(tiny_model), "--lm", "none", "--lexicon", "none"]
    list(write_shards(read_listing([manifest]), Path("memory://shards/commands")))
    results = []
    for source in (
        manifest,
        tmp_path / "out",
        f"file://{tmp_path}/out/index.jsonl",
        "memory://shards/commands/index.jsonl",
    ):
        (tmp_path / "report").mkdir(exist_ok=True)
        assert main(["evaluate", *options, "--manifest", str(source), "--report", str(tmp_path / "report")]) == 0
        report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
        results.append((report["wer"], [u["hypothesis"] for u in report["utterances"]]))
    assert all(result == results[0] for result in results)


def test_what_is_wrong_is_named(manifest: Path, tmp_path: Path) -> None:
    list(write_shards(read_listing([manifest]), tmp_path / "out"))
    shard = tmp_path / "out" / "000000.tar"
    last = read_manifest(tmp_path / "out")[-1]
    shard.write_bytes(shard.read_bytes()[:20000])
    with pytest.raises(CorpusError, match=r"000000\.tar: ends before the recording at byte"):
        load_utterance(last, RATE)
    shard.write_bytes(bytes(10**6))
    with pytest.raises(AudioError, match=r"000000\.tar#\d+\+\d+: "):
        load_utterance(last, RATE)
    shard.unlink()
    with pytest.raises(AudioError, match=r"000000\.tar#.*cannot be read"):
        load_utterance(last, RATE)
    with pytest.raises(CorpusError, match=r"nowhere://x/index\.jsonl: "):
        read_manifest("nowhere://x/index.jsonl")
    with pytest.raises(CorpusError, match="there is nothing to write"):
        list(write_shards([], tmp_path / "none"))


def test_paths_and_urls_are_told_apart() -> None:
    assert url_of(Path("s3://bucket/a b.tar")) == "s3://bucket/a b.tar"
    assert url_of(Path("file:///x/y")) == "file:///x/y"
    assert [url_of(Path(name)) for name in ("a.wav", "/x/a:b.wav", "C:/x.wav", "x/s3://a")] == [None] * 4
    assert stretch_of(Path("a/b.tar#12+34")) == (Path("a/b.tar"), 12, 34) and stretch_of(Path("a#1.wav")) is None


def test_lhotse_shar_is_read_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the layout that `lhotse.shar.SharWriter` writes: one tar member and one JSON a cut, in the cuts' order."""
    shar, rng = tmp_path / "shar", np.random.default_rng(0)
    shar.mkdir()
    waveforms = {f"cut-{n}": 0.1 * rng.standard_normal(800 * (n + 1)) for n in range(3)}
    with (
        gzip.open(shar / "cuts.000000.jsonl.gz", "wt", encoding="utf-8") as cuts,
        tarfile.open(shar / "recording.000000.tar", "w") as tar,
    ):
        for name, waveform in waveforms.items():
            supervision = {"id": name, "recording_id": name, "start": 0.0, "duration": len(waveform) / RATE,
                           "channel": 0, "text": f"said  {name}", "speaker": "anna"}  # fmt: skip
            cut = {"id": name, "start": 0, "duration": len(waveform) / RATE, "channel": 0, "type": "MonoCut"}
            cuts.write(json.dumps({**cut, "supervisions": [supervision]}) + "\n")
            encoded = io.BytesIO()
            soundfile.write(encoded, waveform, RATE, format="FLAC")
            for suffix, content in ((".flac", encoded.getvalue()), (".json", b"{}")):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert main(["prepare", "shar", str(shar), "--output", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    found = read_manifest(tmp_path / "out" / "train.jsonl")
    assert [(u.id, u.text, u.speaker) for u in found] == [(n, f"said {n}", "anna") for n in waveforms]
    for utterance, waveform in zip(found, waveforms.values(), strict=True):
        assert np.abs(load_utterance(utterance, RATE) - waveform).max() < 1e-4


def test_cuts_of_shar_that_lack_something_are_named(tmp_path: Path) -> None:
    whole = {"id": "a", "duration": 0.1, "supervisions": [{"text": "yes"}]}
    broken = [
        {**whole, "duration": None},
        {**whole, "duration": -1},
        {**whole, "supervisions": None},
        {**whole, "supervisions": [{"text": 5}]},
        {**whole, "id": "elsewhere"},
        {},
    ]
    with (
        gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt", encoding="utf-8") as cuts,
        tarfile.open(tmp_path / "recording.000000.tar", "w") as tar,
    ):
        cuts.writelines(json.dumps(cut) + "\n" for cut in [whole, *broken])
        tar.addfile(tarfile.TarInfo("a.wav"))
    corpus = corpora.read("shar", tmp_path, progress=False)
    assert [u.text for u in corpus.splits["train"]] == ["yes"]
    assert len(corpus.problems) == len(broken) and all("cuts.000000.jsonl.gz: cut" in line for line in corpus.problems)
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt", encoding="utf-8") as cuts:
        cuts.write("[1]\n")
    with pytest.raises(CorpusError, match=r"cuts\.000000\.jsonl\.gz: cannot be read \(a line is no JSON object\)"):
        corpora.read("shar", tmp_path)


@pytest.mark.parametrize("first", [10**6, 1 << 63, 10**400])
def test_an_offset_behind_the_end_is_told(tmp_path: Path, first: int) -> None:
    (tmp_path / "a.tar").write_bytes(b"little")
    with pytest.raises(CorpusError, match="ends before the recording"):
        recording_bytes(Path(f"{tmp_path / 'a.tar'}#{first}+4"))
