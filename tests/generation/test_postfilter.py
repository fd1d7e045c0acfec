"""The post-filter: noise that was not told goes, in blocks as at once."""

import numpy as np
import pytest

from wavasr.audio.pitch import Pitch
from wavasr.generation.frames import Frames, described, log_mel_of
from wavasr.generation.postfilter import MARGIN, filtered, filtered_blocks
from wavasr.network.config import GeneratorConfig

CONFIG = GeneratorConfig()
HOP, LAG = CONFIG.hop_samples, 100
RNG = np.random.default_rng(0)
BUZZ = np.zeros(80 * HOP, np.float32)
BUZZ[::LAG] = 1.0
NOISY = (BUZZ + 0.05 * RNG.standard_normal(len(BUZZ))).astype(np.float32)


@pytest.fixture(scope="module")
def told() -> Frames:
    """The frames of the buzz, voiced in their first half."""
    voicing = np.where(np.arange(80) < 40, 0.9, 0.1).astype(np.float32)
    return described(log_mel_of(BUZZ, CONFIG), Pitch(np.full(80, LAG, np.float32), voicing), CONFIG)


def test_mel_bands_come_closer_and_noise_between_pulses_goes(told: Frames) -> None:
    found = filtered(NOISY, told, CONFIG)
    wanted = told.features[:, :80]
    assert len(found) == len(NOISY)
    away = [np.abs(log_mel_of(one, CONFIG) - wanted)[5:-5].mean() for one in (NOISY, found)]
    assert away[1] < 0.5 * away[0]
    noise = [np.square(one - BUZZ)[:, None].reshape(80, HOP).mean(axis=1) for one in (NOISY, found)]
    assert noise[1][5:35].mean() < 0.45 * noise[0][5:35].mean()  # where it is voiced: a third and less by the comb


def test_a_sound_as_it_was_told_stays(told: Frames) -> None:
    np.testing.assert_allclose(filtered(BUZZ, told, CONFIG)[1000:-1000], BUZZ[1000:-1000], atol=0.02)


@pytest.mark.parametrize("size", [1, 7, MARGIN, 50, 80])
def test_blocks_give_what_the_whole_gives(told: Frames, size: int) -> None:
    blocks = [NOISY[start : start + size * HOP] for start in range(0, len(NOISY), size * HOP)]
    parts = list(filtered_blocks([*blocks, np.ones(3 * HOP, np.float32)], told, CONFIG))  # more than was told
    np.testing.assert_allclose(np.concatenate(parts), filtered(NOISY, told, CONFIG), atol=1e-6)
    assert max(map(len, parts)) <= (size + MARGIN) * HOP


def test_each_sample_depends_on_the_margin_alone(told: Frames) -> None:
    other = NOISY.copy()
    other[: 20 * HOP] = 0
    same = slice((20 + MARGIN) * HOP, None)
    np.testing.assert_allclose(filtered(other, told, CONFIG)[same], filtered(NOISY, told, CONFIG)[same], atol=1e-6)
    assert np.abs(filtered(other, told, CONFIG) - filtered(NOISY, told, CONFIG))[20 * HOP : 21 * HOP].max() > 1e-3


def test_networks_that_are_told_nothing_keep_their_sound(told: Frames) -> None:
    blocks = [NOISY[: 7 * HOP], NOISY[7 * HOP :]]
    found = list(filtered_blocks(blocks, told, GeneratorConfig(condition="past")))
    assert [one is block for one, block in zip(found, blocks, strict=True)] == [True, True]
