"""The clips that the repository carries are what their manifests say."""

from pathlib import Path

import pytest

from wavasr.audio.reading import audio_duration_s
from wavasr.corpora.manifest import Utterance, read_manifest

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
SPLITS = ("train", "dev", "test")


@pytest.mark.parametrize("manifest", ["samples.jsonl", *(f"demo/{split}.jsonl" for split in SPLITS)])
def test_clips_are_as_long_as_the_manifest_says(manifest: str) -> None:
    for utterance in read_manifest(SAMPLES / manifest):
        assert audio_duration_s(utterance.audio) == pytest.approx(utterance.duration_s, abs=0.06), utterance.audio


def test_every_clip_is_in_a_manifest() -> None:
    named = {u.audio for name in ("samples", *(f"demo/{split}" for split in SPLITS)) for u in manifest(name)}
    suffixes = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
    assert {path for path in SAMPLES.rglob("*") if path.suffix in suffixes} == named


def test_no_voice_of_the_demo_is_in_two_splits() -> None:
    speakers = [{u.speaker for u in manifest(f"demo/{split}")} for split in SPLITS]
    assert sum(map(len, speakers)) == len(set().union(*speakers))


def test_the_repository_stays_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 3_000_000


def manifest(name: str) -> list[Utterance]:
    return read_manifest(SAMPLES / f"{name}.jsonl")
