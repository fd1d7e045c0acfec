"""The corpus of tones, made once."""

from pathlib import Path

import pytest

from tests.training.tones import write_tones


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl: 36 utterances of four speakers."""
    return write_tones(tmp_path_factory.mktemp("tones"))
