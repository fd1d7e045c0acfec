"""Streams: the same text for any way of cutting the samples; partial texts, final texts, endpoints."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wavasr
from wavasr.audio.reading import load_audio
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.running import Search
from wavasr.decoding.search import LMDecoder
from wavasr.errors import AudioError
from wavasr.recognition.chunks import log_probs_of
from wavasr.recognition.models import opened
from wavasr.recognition.stream import Endpoint, Event, Final, Partial, Stream
from wavasr.recognition.transcribe import Transcript

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


@pytest.fixture(scope="module")
def talk(speech: np.ndarray) -> np.ndarray:
    """Three utterances with pauses, noise between them, and one with no pause behind it."""
    rng = np.random.default_rng(0)
    pause = 1e-3 * rng.standard_normal(24_000).astype(np.float32)
    other = load_audio(SAMPLES / "telephone-number.wav")
    return np.concatenate([speech, pause, 0.1 * other, pause, 0.05 + speech, pause[:4000], other])


@pytest.fixture(scope="module")
def whole(talk: np.ndarray) -> Transcript:
    return wavasr.transcribe(talk, sample_rate=16000)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(100, 30_000), st.booleans(), st.booleans()), min_size=1, max_size=12), st.booleans()
)
def test_final_words_are_those_of_the_file_for_any_way_of_cutting(
    talk: np.ndarray, whole: Transcript, pieces: list[tuple[int, bool, bool]], partials: bool
) -> None:
    """To the bit: words, times, confidences. Whatever is done between two pieces."""
    stream, events, start = Stream(partials=partials), [], 0
    for size, partial, advance in itertools.cycle(pieces):
        events += stream.feed(talk[start : start + size], partial)
        if advance:
            assert stream.advance() == [] and stream.backlog_s == 0.0
        start += size
        if start >= len(talk):
            break
    events += stream.finish()
    finals = [event for event in events if isinstance(event, Final)]
    assert tuple(word for final in finals for word in final.words) == whole.words
    assert text_of(events) == whole.text
    assert len(finals) >= 2
    for final in finals:
        assert final.text == " ".join(word.word for word in final.words)
        assert (final.start_s, final.end_s) == (final.words[0].start_s, final.words[-1].end_s)


def test_memory_is_flat_and_work_is_bounded_over_a_long_stream(talk: np.ndarray) -> None:
    stream, held = Stream(partials=False), []
    for _ in range(3):
        stream.feed(talk)
        held.append(len(stream._stretches._posteriors._held))
    assert max(held) < 16000 * 30 and stream.duration_s == pytest.approx(3 * len(talk) / 16000, abs=1e-6)


def test_stable_words_begin_the_final_text_and_only_grow(talk: np.ndarray) -> None:
    """The second half of it: speech, a pause, other speech."""
    shown: list[Partial] = []
    stable = 0
    events = streamed(talk[len(talk) // 2 :], 1600)
    assert isinstance(events[0], Partial) and isinstance(events[-1], Endpoint)
    for event in events:
        if isinstance(event, Partial):
            shown.append(event)
        elif isinstance(event, Final):
            assert all(after.stable.startswith(before.stable) for before, after in itertools.pairwise(shown))
            words = event.text.split()
            assert all(partial.stable.split() == words[: len(partial.stable.split())] for partial in shown)
            stable += bool(shown[-1].stable)
            shown = []
    assert stable


def test_words_that_all_hypotheses_have_are_those_of_their_texts(speech: np.ndarray) -> None:
    """Also where words that the language model lacks are searched as another one."""
    model = opened("default")
    for config in (DecodingConfig(), DecodingConfig(hotwords=("the old man",))):
        decoder = decoder_of(config, model)
        assert isinstance(decoder, LMDecoder) and decoder._tree is not None
        running = decoder.begin()
        assert isinstance(running, Search)
        for values in np.array_split(log_probs_of(model, speech), 4):
            running.push(values)
            read = [
                decoder._tree.read(one.tokens[1:], one.words[1:]) for one in running._search.get_all_final_hypothesis()
            ]
            said = [[word for word, _, _ in one.words] for one in read]
            same = [len(set(words)) == 1 for words in zip(*said, strict=False)]
            assert running.agreed() == [*same, False].index(False)


def test_partial_texts_can_be_left_out_and_come_later(speech: np.ndarray) -> None:
    stream, prompt = Stream(), Stream()
    assert stream.feed(speech[:32000], partial=False) == []
    assert stream.partial_is_due and stream.backlog_s > 0.0
    (partial,) = stream.partial()
    assert prompt.feed(speech[:32000]) == [partial]
    assert not stream.partial_is_due and stream.partial() == []


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
    with pytest.raises(AudioError, match="ended"):
        stream = Stream()
        stream.finish()
        stream.feed(np.zeros(10, np.float32))


def test_nothing_is_no_text() -> None:
    stream = Stream()
    assert stream.finish() == stream.finish() == []
