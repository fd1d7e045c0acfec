"""Streams: the same text for any way of cutting the samples; partial texts, final texts, endpoints."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import wavasr
from wavasr.audio.reading import load_audio
from wavasr.errors import AudioError
from wavasr.recognition.stream import Endpoint, Event, Final, Partial, Stream

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_audio(SAMPLES / "plain-sentence.flac")


def streamed(samples: np.ndarray, piece: int, sample_rate: int = 16000) -> list[Event]:
    stream = Stream(sample_rate=sample_rate)
    events = [event for start in range(0, len(samples), piece) for event in stream.feed(samples[start : start + piece])]
    return events + stream.finish()


def text_of(events: list[Event]) -> str:
    return " ".join(event.text for event in events if isinstance(event, Final))


@pytest.mark.parametrize("piece", [160, 4000, 100_000])
def test_final_text_is_that_of_the_file_for_any_pieces(speech: np.ndarray, piece: int) -> None:
    assert text_of(streamed(speech, piece)) == wavasr.transcribe(SAMPLES / "plain-sentence.flac").text


def test_partials_come_before_finals_and_the_stable_part_only_grows(speech: np.ndarray) -> None:
    events = streamed(speech, 1600)
    partials = [event for event in events if isinstance(event, Partial)]
    assert partials and isinstance(events[0], Partial) and isinstance(events[-1], Endpoint)
    for before, after in itertools.pairwise(partials):
        assert after.stable.startswith(before.stable) or not after.stable


def test_integers_and_other_rates(speech: np.ndarray) -> None:
    assert text_of(streamed((speech * 32767).astype(np.int16), 1600)) == text_of(streamed(speech, 1600))
    doubled = np.repeat(speech, 2)
    assert text_of(streamed(doubled, 1000, sample_rate=32000))


def test_bad_samples_are_refused() -> None:
    with pytest.raises(AudioError, match="one channel"):
        Stream().feed(np.zeros((2, 100), np.float32))
    with pytest.raises(AudioError, match="not numbers"):
        Stream().feed(np.full(100, np.nan, np.float32))
    with pytest.raises(AudioError, match="sample_rate"):
        Stream(sample_rate=0)
    with pytest.raises(ValueError, match="ended"):
        stream = Stream()
        stream.finish()
        stream.feed(np.zeros(10, np.float32))


def test_nothing_is_no_text() -> None:
    stream = Stream()
    assert stream.finish() == stream.finish() == []
