"""One's own recordings: words in, phones by alignment, once, in the run's folder."""

from pathlib import Path

import pytest

from wavasr.corpora.manifest import Utterance, read_manifest, write_manifest
from wavasr.errors import ConfigError
from wavasr.training.aligning import with_phones, words_of
from wavasr.training.recipe import parse
from wavasr.training.splits import read_splits


@pytest.fixture
def words(tmp_path: Path, repository: Path) -> Path:
    """A folder with manifests of words."""
    clips = repository / "data" / "samples"
    spoken = [
        Utterance("plain", clips / "plain-sentence.flac", 2.4, "The old man walks slowly down the river.", "a"),
        Utterance("yes", clips / "yes.wav", 0.7, "yes", "b"),
    ]
    write_manifest(tmp_path / "train.jsonl", spoken[:1])
    write_manifest(tmp_path / "dev.jsonl", spoken[1:])
    return tmp_path


def test_words_become_phones_once(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse(["--config", "own", "--data.root", str(words), "--run_dir", str(words / "run")])
    config = with_phones(recipe.config)
    splits = read_splits(config)
    assert next(iter(splits.train.texts)).split()[0] == "DH" and splits.train.utterances[0].alignment
    assert list(splits.dev.texts) == ["Y EH S"]
    monkeypatch.setattr("wavasr.training.aligning._align", None)  # is not asked again
    assert with_phones(recipe.config) == config
    assert [u.text for u in words_of(recipe.config, ["dev.jsonl"], splits.dev.utterances)] == ["yes"]


def test_other_texts_are_aligned_anew_and_numbers_read_out(words: Path) -> None:
    arguments = ["--config", "own", "--data.root", str(words), "--run_dir", str(words / "run")]
    before = with_phones(parse(arguments).config).data.dev
    one = read_manifest(words / "dev.jsonl")[0]
    write_manifest(words / "dev.jsonl", [Utterance("1", one.audio, one.duration_s, "1")])
    after = with_phones(parse(arguments).config).data.dev
    assert after != before
    assert read_manifest(words / "run" / after[0])[0].text == "W AH N"


def test_without_a_model_of_phones_it_is_refused(words: Path) -> None:
    recipe = parse(["--config", "own", "--data.root", str(words), "--start", "", "--run_dir", str(words / "run")])
    with pytest.raises(ConfigError, match=r"data\.align needs a model of phones to start from"):
        with_phones(recipe.config)
