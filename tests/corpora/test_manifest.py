import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavasr.corpora.manifest import AlignedPhone, Utterance, read_manifest, write_manifest
from wavasr.errors import CorpusError
from wavasr.files import atomic_text


def line(**values: object) -> str:
    return json.dumps({"audio_filepath": "a.wav", "duration": 1.5, "text": "yes"} | values)


def test_every_field_survives_a_round_trip(tmp_path: Path) -> None:
    aligned = (AlignedPhone("sil", 0.0, 0.25), AlignedPhone("ae", 0.25, 0.5))
    utterances = [
        Utterance("one", tmp_path / "clips" / "a.wav", 1.25, "voilà, déjà", "anna", 0.5, aligned),
        Utterance("two", tmp_path / "clips" / "a.wav", 0.75, ""),
    ]
    write_manifest(tmp_path / "train.jsonl", utterances)
    assert read_manifest(tmp_path / "train.jsonl") == utterances


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(names, st.floats(1e-6, 1e6), st.text(st.characters(codec="utf-8")), st.floats(0, 1e6)),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0],
    )
)
def test_any_text_survives_a_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    utterances = [Utterance(n, folder / n, d, t, "", o) for n, d, t, o in rows]
    write_manifest(folder / "m.jsonl", utterances)
    assert read_manifest(folder / "m.jsonl") == utterances


def test_files_beneath_the_manifest_are_relative_and_others_absolute(tmp_path: Path) -> None:
    inside = Utterance("in", tmp_path / "m" / "x" / ".." / "a.wav", 1.0, "a")
    outside = Utterance("out", tmp_path / "b.wav", 1.0, "b")
    write_manifest(tmp_path / "m" / "all.jsonl", [inside, outside])
    written = [json.loads(text) for text in (tmp_path / "m" / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["audio_filepath"] for row in written] == ["a.wav", (tmp_path / "b.wav").as_posix()]
    (tmp_path / "m").rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved" / "all.jsonl")[0].audio == tmp_path / "moved" / "a.wav"


def test_ids_are_stems_and_longer_only_where_stems_repeat(tmp_path: Path) -> None:
    rows = [
        line(audio_filepath="anna/SX1.wav"),
        line(audio_filepath="bert/SX1.wav"),
        line(audio_filepath="bert/SX2.wav"),
        line(audio_filepath="long.wav", offset=0),
        line(audio_filepath="long.wav", offset=12.5),
        line(audio_filepath="x/taken.wav"),
        line(audio_filepath="y.wav", id="taken"),
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert [u.id for u in read_manifest(tmp_path / "m.jsonl")] == [
        "anna/SX1.wav", "bert/SX1.wav", "SX2", "long.wav@0", "long.wav@12.5", "x/taken.wav", "taken",
    ]  # fmt: skip


def test_foreign_manifests_are_read_as_they_are(tmp_path: Path) -> None:
    text = (
        "\ufeff" + line(speaker=17, lang="en", pred_text="x") + "\r\n\r\n" + line(audio_filepath="/b.wav", duration=2)
    )
    (tmp_path / "m.jsonl").write_text(text, encoding="utf-8", newline="")
    first, second = read_manifest(tmp_path / "m.jsonl")
    assert (first.speaker, first.audio) == ("17", tmp_path / "a.wav")
    assert (second.duration_s, second.audio, second.speaker) == (2.0, Path("/b.wav"), "")


BAD = {
    "not JSON": ('{"audio_filepath": ', ":2: not JSON"),
    "a list": ("[1]", ":2: list found"),
    "no audio": ('{"duration": 1, "text": "a"}', ":2: no key 'audio_filepath'"),
    "no duration": ('{"audio_filepath": "b", "text": "a"}', ":2: no key 'duration'"),
    "no text": ('{"audio_filepath": "b", "duration": 1}', ":2: no key 'text'"),
    "null text": (line(text=None), ":2: no key 'text'"),
    "text is a number": (line(text=7), ":2: text is 7"),
    "empty audio": (line(audio_filepath=""), ":2: audio_filepath is ''"),
    "zero duration": (line(duration=0), ":2: duration is 0"),
    "negative duration": (line(duration=-1.0), ":2: duration is -1.0"),
    "NaN duration": (line(duration=float("nan")), ":2: duration is nan"),
    "endless duration": (line(duration=float("inf")), ":2: duration is inf"),
    "duration is text": (line(duration="1.5"), ":2: duration is '1.5'"),
    "duration is true": (line(duration=True), ":2: duration is True"),
    "huge number": (line().replace("1.5", "9" * 5000), ":2: not JSON"),
    "deep nesting": ("[" * 100_000, ":2: not JSON"),
    "negative offset": (line(offset=-0.1), ":2: offset is -0.1"),
    "alignment of pairs": (line(alignment=[["a", 0]]), ":2: alignment entry 1"),
    "alignment backwards": (line(alignment=[["a", 0, 1], ["b", 0.5, 2]]), ":2: alignment entry 2"),
    "the same file twice": (line(audio_filepath="first.wav"), ":2: duplicate id 'first.wav@0', first on line 1"),
    "the same id twice": (line(id="first.wav@0"), None),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named(tmp_path: Path, case: str) -> None:
    bad, message = BAD[case]
    (tmp_path / "m.jsonl").write_text(line(audio_filepath="first.wav") + "\n" + bad + "\n", encoding="utf-8")
    if message is None:
        assert len(read_manifest(tmp_path / "m.jsonl")) == 2
        return
    with pytest.raises(CorpusError) as caught:
        read_manifest(tmp_path / "m.jsonl")
    assert f"m.jsonl{message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repeated_id_is_named_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(line(id="x") + "\n\n" + line(audio_filepath="b.wav", id="x"), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"m\.jsonl:3: duplicate id 'x', first on line 1"):
        read_manifest(tmp_path / "m.jsonl")


def test_missing_empty_and_binary_manifests(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(CorpusError, match="is a folder"):
        read_manifest(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="no utterances"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(line().encode() + b"\n" + line(text="\xe9").encode("utf-16"))
    with pytest.raises(CorpusError, match=r"latin\.jsonl:2: not UTF-8"):
        read_manifest(tmp_path / "latin.jsonl")


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    good = Utterance("a", tmp_path / "a.wav", 1.0, "a")
    write_manifest(tmp_path / "m.jsonl", [good])

    def broken():
        yield good
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_manifest(tmp_path / "m.jsonl", broken())
    assert read_manifest(tmp_path / "m.jsonl") == [good]
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be written"):
        write_manifest(tmp_path / "file" / "m.jsonl", [])


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_file_names_that_are_not_utf8_survive_a_round_trip(tmp_path: Path) -> None:
    utterance = Utterance("", tmp_path / os.fsdecode(b"caf\xe9.wav"), 1.0, "a")
    write_manifest(tmp_path / "m.jsonl", [utterance])
    (read,) = read_manifest(tmp_path / "m.jsonl")
    assert read.audio == utterance.audio
    assert read.id == "caf\\xe9"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("duration", "9" * 400, "duration is 999"),
        ("offset", "9" * 400, "offset is 999"),
        ("duration", "9" * 5000, "not JSON"),
        ("alignment", f'[["a", 0, {"9" * 400}]]', "alignment entry 1"),
        ("alignment", r'[["\ud800", 0, 1]]', "alignment entry 1"),
        ("speaker", r'"\udfff"', "speaker is .* not valid Unicode"),
        ("text", r'"a \ud800 b"', "text is .* not valid Unicode"),
        ("audio_filepath", r'"\ud800.wav"', "audio_filepath is .* not valid Unicode"),
        ("extra", "[" * 200_000, "not JSON"),
    ],
    ids=range(9),
)
def test_absurd_values_are_one_line(key: str, value: str, message: str, tmp_path: Path) -> None:
    values = {"audio_filepath": '"a.wav"', "duration": "1.0", "text": '"a"'} | {key: value}
    line = "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"
    (tmp_path / "m.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(CorpusError, match=f"m.jsonl:1: {message}") as caught:
        read_manifest(tmp_path / "m.jsonl")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("", encoding="utf-8")
    with atomic_text(tmp_path / "atomic") as stream:
        stream.write("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_real_manifests_are_read(shared_data: Path) -> None:
    utterances = read_manifest(shared_data / "an4" / "test.jsonl")
    assert len(utterances) == 130
    assert sum(len(u.text.split()) for u in utterances) == 773
    assert len({u.speaker for u in utterances}) == 10
    assert all(u.audio.is_file() for u in utterances)


def test_no_torch_is_imported() -> None:
    code = "import sys, wavasr.corpora.manifest; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
