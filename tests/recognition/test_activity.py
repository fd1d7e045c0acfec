"""Voice activity: speech is found at any level, what is no speech is not, and pieces do not matter."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wavasr.audio.reading import load_audio
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.greedy import Hypothesis
from wavasr.recognition.activity import ActivityConfig, SpeechProbability, Utterances
from wavasr.recognition.chunks import SAME, LevelChange
from wavasr.recognition.models import opened
from wavasr.recognition.stretches import accepted
from wavasr.recognition.transcribe import transcribe

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
RATE = 16000
T = np.arange(5 * RATE) / RATE
NO_SPEECH = {
    "silence": 0 * T,
    "white": 0.1 * np.random.default_rng(0).standard_normal(len(T)),
    "quiet": 1e-4 * np.random.default_rng(1).standard_normal(len(T)),
    "tone": 0.3 * np.sin(2 * np.pi * 440 * T),
    "dtmf": 0.2 * (np.sin(2 * np.pi * 697 * T) + np.sin(2 * np.pi * 1209 * T)) * (np.sin(2 * np.pi * 4 * T) > 0),
    "hum": 0.05 * np.sign(np.sin(2 * np.pi * 50 * T)),
    "chord": 0.1 * sum(np.sin(2 * np.pi * hertz * T) for hertz in (261.6, 329.6, 392.0)),
}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_audio(SAMPLES / "plain-sentence.flac")


def utterances(samples: np.ndarray, pieces: int = 1, rate: int = RATE) -> list[tuple[int, int]]:
    found = Utterances(rate, rate // 50, ActivityConfig())
    pushed = 0
    for piece in np.array_split(samples.astype(np.float32), pieces):
        pushed += len(piece)
        found.push(piece, pushed // (rate // 50))
    found.push(np.zeros(0, np.float32), -(-len(samples) // (rate // 50)), last=True)
    assert all(one.ended for one in found.found)
    return [(one.first, one.known) for one in found.found]


def test_probabilities_do_not_depend_on_the_pieces(speech: np.ndarray) -> None:
    whole = SpeechProbability().push(speech)
    for size in (160, 512, 700, 5000):
        pieces = SpeechProbability()
        parts = [pieces.push(speech[start : start + size]) for start in range(0, len(speech), size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert whole.max() > 0.9 and len(whole) == len(speech) // 512


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_utterances_lie_around_the_speech(speech: np.ndarray, pieces: int) -> None:
    pause = np.zeros(2 * RATE, np.float32)
    found = utterances(np.concatenate([pause, speech, pause, speech, pause]), pieces)
    assert found == utterances(np.concatenate([pause, speech, pause, speech, pause]))
    assert len(found) == 2
    for (first, end), start_s in zip(found, (2.0, 4.0 + len(speech) / RATE), strict=True):
        assert start_s - 0.7 <= first / 50 <= start_s + 0.2
        assert start_s + len(speech) / RATE - 0.3 <= end / 50 <= start_s + len(speech) / RATE + 0.5


@pytest.mark.parametrize("gain", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_speech_is_found_at_any_level(speech: np.ndarray, gain: float, offset: float) -> None:
    padded = np.concatenate([np.zeros(RATE), gain * speech, np.zeros(RATE)]) + offset
    assert len(utterances(padded)) == 1
    assert len(utterances(padded[::2], rate=8000)) == 1


@pytest.mark.parametrize("name", NO_SPEECH)
def test_nothing_is_said_where_there_is_no_speech(name: str) -> None:
    assert utterances(NO_SPEECH[name]) == []
    assert transcribe(NO_SPEECH[name].astype(np.float32), sample_rate=RATE).text == ""


def test_a_short_recording_is_a_word_that_somebody_cut_out() -> None:
    blip = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    assert utterances(blip) == [(0, 50)]
    assert utterances(blip, 7) == [(0, 50)]
    assert utterances(np.zeros(0)) == []


@pytest.mark.parametrize(
    ("seconds", "probability", "found"),
    [(2.5, 0.45, [(0, 125)]), (2.5, 0.3, []), (3.5, 0.45, []), (1.0, 0.0, [(0, 50)])],
)
def test_a_short_recording_is_kept_where_the_network_is_unsure(
    monkeypatch: pytest.MonkeyPatch, seconds: float, probability: float, found: list[tuple[int, int]]
) -> None:
    def push(self: SpeechProbability, samples: np.ndarray, last: bool = False) -> np.ndarray:
        return np.full(len(samples) // 512, probability, np.float32)

    monkeypatch.setattr(SpeechProbability, "push", push)
    assert utterances(np.zeros(round(seconds * RATE))) == found


@pytest.mark.parametrize(("gain", "offset"), [(0.01, 0.0), (0.1, 0.0), (10.0, 0.0), (1.0, 0.05), (0.01, 0.05)])
def test_level_and_offset_change_hardly_a_word(speech: np.ndarray, gain: float, offset: float) -> None:
    plain = transcribe(speech, sample_rate=RATE).text.split()
    changed = transcribe((gain * speech + np.float32(offset)).astype(np.float32), sample_rate=RATE).text.split()
    assert len(changed) == len(plain) == 8 and sum(a != b for a, b in zip(changed, plain, strict=True)) <= 1


def test_usual_levels_are_left_as_they_are(speech: np.ndarray) -> None:
    assert LevelChange.of(speech[:RATE]) == SAME and LevelChange.of(0.3 * speech[:RATE]) == SAME
    assert LevelChange.of(0.09 * speech[:RATE]).gain > 3  # 20 dB below usual it costs two points of word errors
    assert LevelChange.of(0.01 * speech[:RATE]).gain > 10 and LevelChange.of(
        speech[:RATE] + 0.1
    ).offset == pytest.approx(0.1, 0.05)
    assert LevelChange()(speech) is speech


def test_without_activity_detection_everything_is_decoded(speech: np.ndarray) -> None:
    assert transcribe(speech, sample_rate=RATE, decoder=DecodingConfig(vad=False)).text != ""


@pytest.mark.parametrize(
    ("end", "confidence", "kept"), [(40, 0.6, False), (40, 0.7, True), (90, 0.6, True), (90, 0.3, False)]
)
def test_words_of_which_the_model_is_not_sure_are_no_speech(end: int, confidence: float, kept: bool) -> None:
    model = opened("default")
    decoder = SimpleNamespace(config=DecodingConfig(), is_search=True)
    found = Hypothesis((1,), -1.0, ((0, end),), (0.5,), end, (("word", 0, 1),))
    rest = accepted(found, decoder, model, lambda value: confidence)  # type: ignore[arg-type]
    assert bool(rest.ids) == kept and rest.frames == end
