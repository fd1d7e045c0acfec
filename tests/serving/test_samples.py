"""Samples as clients send them, against PyAV's decoders."""

from __future__ import annotations

import av
import numpy as np
import pytest

from wavasr.errors import AudioError
from wavasr.serving.samples import Samples, checked_rate, decode


@pytest.mark.parametrize(("encoding", "codec"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_companding_laws_are_those_of_ffmpeg(encoding: str, codec: str) -> None:
    content = bytes(range(256))
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = 8000, "mono"
    expected = np.concatenate([frame.to_ndarray()[0] for frame in decoder.decode(av.Packet(content))])
    np.testing.assert_array_equal(decode(content, encoding) * 32768, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_samples_that_are_cut_in_two_are_joined(size: int) -> None:
    values = np.arange(-50, 50, dtype="<i2")
    content, samples = values.tobytes(), Samples()
    parts = [samples(content[start : start + size]) for start in range(0, len(content), size)]
    np.testing.assert_array_equal(np.concatenate(parts) * 32768, values)


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(AudioError, match="not numbers"):
        decode(np.array([0.0, np.nan], "<f4").tobytes(), "f32le")
    with pytest.raises(AudioError, match="expected one of s16le"):
        Samples("mp3")
    for value in (0, 1e9, "16000", None, float("nan")):
        with pytest.raises(AudioError, match="sample rate"):
            checked_rate(value)
