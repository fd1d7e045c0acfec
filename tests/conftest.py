"""Fixtures shared by the tests: where real speech lies, and where the repository is."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech (`WAVASR_DATA`, or `../shared/data`): absent, a test is skipped; in CI it fails."""
    folder = Path(os.environ.get("WAVASR_DATA") or REPOSITORY.parent / "shared" / "data")
    if folder.is_dir():
        return folder
    message = f"no real speech at {folder}; set WAVASR_DATA to a folder laid out as data/README.md says"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with a small untrained network: it answers fast, and always the same nonsense."""
    import torch

    from wavasr.language.config import TextConfig
    from wavasr.language.text import Units
    from wavasr.network.config import EncoderConfig, StageConfig
    from wavasr.network.recognizer import Recognizer, save_model

    stages = (
        StageConfig(channels=8, window=32, stride=16, dilations=(1, 2), pool=10),
        StageConfig(channels=8, dilations=(1, 2), pool=2),
    )
    torch.manual_seed(0)
    units = Units.characters(["the quick brown fox jumps over the lazy dog"])
    model = Recognizer(EncoderConfig(stages=stages, init="random"), units, TextConfig())
    path = tmp_path_factory.mktemp("model") / "tiny.wavasr"
    save_model(model, path)
    return path


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Half a second of speech in a WAV file, of which the tiny model makes many words."""
    import soundfile

    path = tmp_path / "speech.wav"
    samples, _ = soundfile.read(REPOSITORY / "data" / "samples" / "plain-sentence.flac", 8000, start=8000)
    soundfile.write(path, samples, 16000)
    return path


@pytest.fixture
def noise_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without voice activity detection in this process, so that small models can be tested on noise."""
    monkeypatch.setattr("wavasr.recognition.stretches.DEFAULT_ACTIVITY", None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums are rounded alike on machines with any number of cores, so tests that learn always learn the same."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def every_message_is_shown() -> Iterator[None]:
    """A command that a test runs with `--quiet` in this process does not silence the tests after it."""
    yield
    logging.getLogger("wavasr").setLevel(logging.NOTSET)
