"""One speaker's frames in the manner of another."""

import numpy as np
import pytest

import wavasr
from wavasr.generation.conversion import Conversion, manner
from wavasr.generation.frames import active_gain, log_mel_of
from wavasr.network.config import MEL_BANDS, GeneratorConfig

RNG = np.random.default_rng(0)
HERS, HIS = (
    (spread * RNG.standard_normal((400, MEL_BANDS)) + RNG.standard_normal(MEL_BANDS)).astype(np.float32)
    for spread in (1.0, 1.3)
)


def test_means_and_spreads_become_those_of_the_other_and_the_level_stays() -> None:
    own, other = manner([HERS]), manner([HIS])
    found = Conversion(own, other, 0.0).spectrum(HERS)
    np.testing.assert_allclose(found.mean(axis=1), HERS.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(manner([found])[:, 1:], other[:, 1:], atol=0.01)


def test_frames_without_sound_say_nothing_of_a_speaker() -> None:
    quiet = np.full((100, MEL_BANDS), -30, np.float32)
    np.testing.assert_array_equal(manner([np.concatenate([HERS, quiet])]), manner([HERS]))


@pytest.mark.parametrize("voice", ["1088", "163"])
def test_a_sentence_takes_on_the_manner_of_the_speaker(voice: str) -> None:
    from wavasr.generation.voice import Voice

    voices = Voice.load("voices").network
    assert voices.improviser is not None
    manners = voices.improviser[1]["manners"]
    samples, _ = wavasr.speak("The old man walked slowly down to the river.", voice)
    said = manner([log_mel_of(samples * np.float32(active_gain(samples)), GeneratorConfig())])
    away = np.abs(manners[:, 0, 1:13] - said[0, 1:13]).mean(axis=1)
    assert away[voices.speaker(voice)] < 0.5 * np.median(away)
