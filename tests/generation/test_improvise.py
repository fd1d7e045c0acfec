"""The WaveNet over frames: stepped is parallel, the codes stand for what they were made from, it learns a pattern."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wavasr.errors import ConfigError
from wavasr.generation.frames import REFERENCE_LAG
from wavasr.generation.improvise import FrameSampler
from wavasr.generation.voice import Voice
from wavasr.network.config import GeneratorConfig, ImproviserConfig
from wavasr.network.generator import Generator, save_generator
from wavasr.network.improviser import Improviser
from wavasr.training.generate.improviser import Spoken, _encode, _learn, k_means, nearest

TINY = ImproviserConfig(codes=6, pitch_codes=4, channels=8, dilations=(1, 2, 4))


def make(config: ImproviserConfig = TINY, speakers: int = 2) -> Improviser:
    torch.manual_seed(0)
    model = Improviser(config, speakers)
    with torch.no_grad():
        model.spectra.normal_()
        model.pitches.copy_(torch.tensor([[0.1, 0.0], [0.9, -0.1], [0.9, 0.0], [0.9, 0.1]]))
        model.means[:, :-1] -= 8
    return model


def arrays_of(model: Improviser) -> dict[str, Any]:
    return {name: values.numpy() for name, values in model.state_dict().items()}


@pytest.mark.parametrize(("kernel", "dilations"), [(2, (1, 2, 4)), (3, (1, 3))])
def test_stepped_is_parallel(kernel: int, dilations: tuple[int, ...]) -> None:
    config = ImproviserConfig(codes=6, pitch_codes=4, channels=8, kernel=kernel, dilations=dilations)
    model = make(config)
    sampler = FrameSampler(config, arrays_of(model), 1, seed=3, temperature=1.0)
    first = sampler.last
    drawn = [first, *(sampler.draw() for _ in range(40))]
    codes, pitch_codes = (torch.tensor(part)[None] for part in zip(*drawn, strict=True))
    with torch.no_grad():
        logits = model(codes, pitch_codes, torch.tensor([1]))
    again = FrameSampler(config, arrays_of(model), 1, seed=3, temperature=1.0)
    weights = arrays_of(model)
    for frame, (code, pitch_code) in enumerate(drawn[:-1]):
        hidden = np.maximum(again.hidden(code, pitch_code), 0)
        stepped = weights["output.weight"][..., 0] @ hidden + weights["output.bias"]
        assert np.abs(stepped - logits.codes[0, :, frame].numpy()).max() < 1e-5
    assert len(set(codes[0].tolist())) > 3


def test_an_output_sees_no_later_frame() -> None:
    model = make()
    codes, pitches = torch.randint(0, 6, (1, 21)), torch.randint(0, 4, (1, 21))
    with torch.no_grad():
        before = model(codes, pitches, torch.tensor([0]))
        codes[0, 11:] = (codes[0, 11:] + 1) % 6
        pitches[0, 11:] = (pitches[0, 11:] + 1) % 4
        after = model(codes, pitches, torch.tensor([0]))
    # Logits 0 to 10 are of frames 1 to 11; the pitch of frame 11 depends on the code of frame 11.
    assert torch.equal(before.codes[..., :11], after.codes[..., :11])
    assert torch.equal(before.pitch_codes[..., :10], after.pitch_codes[..., :10])
    assert not torch.equal(before.pitch_codes[..., 10], after.pitch_codes[..., 10])


def test_it_learns_what_follows_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavasr.training.generate.improviser._CROP_FRAMES", 60)
    config = ImproviserConfig(codes=6, pitch_codes=4, channels=24, dilations=(1, 2, 4))
    model = make(config, speakers=1)
    rng = np.random.default_rng(0)
    cycle = np.repeat(np.arange(6), 3)  # each code three frames long, in turn
    recordings = [(np.resize(cycle, 600), np.resize(cycle, 600) % 4, 0)] * 3
    _learn(model, recordings, 150, rng)
    sampler = FrameSampler(config, arrays_of(model), 0, seed=0, temperature=0.5)
    drawn = np.array([sampler.draw()[0] for _ in range(90)])[30:]
    changes = np.flatnonzero(np.diff(drawn)) + 1
    assert (np.diff(changes) == 3).mean() > 0.8
    assert ((drawn[changes] - drawn[changes - 1]) % 6 == 1).mean() > 0.8


def test_codes_are_near_what_they_stand_for() -> None:
    rng = np.random.default_rng(1)
    table = rng.standard_normal((6, 80)).astype(np.float32) * 3
    rows = table[rng.integers(0, 6, 500)] + 0.05 * rng.standard_normal((500, 80)).astype(np.float32)
    voicing = np.where(rng.random(500) < 0.5, 0.1, 0.9)
    features = np.concatenate([rows - 8, voicing[:, None], np.full((500, 1), 0.3)], axis=1).astype(np.float32)
    model = make(speakers=1)
    ((codes, pitch_codes, speaker),) = _encode(model, [Spoken(features, 0)], TINY, rng)
    spectra = model.spectra.numpy()[codes] + model.means.numpy()[0, :-1]
    assert np.sqrt(np.square(spectra - features[:, :80]).mean()) < 1.5
    pitches = model.pitches.numpy()[pitch_codes]
    assert np.abs(pitches[:, 0] - voicing).max() < 0.01
    assert np.abs(pitches[:, 1] + model.means.numpy()[0, -1] - 0.3).max() < 1e-3 and speaker == 0


def test_k_means_finds_clusters_and_fills_empty_ones() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat([[0.0, 0], [10, 0], [0, 10]], 20, axis=0) + 0.1 * rng.standard_normal((60, 2))
    centres = k_means(rows, 3, np.random.default_rng(4))
    assert len(set(nearest(rows, centres).tolist())) == 3
    assert k_means(rows[:2], 4, rng).shape == (4, 2)


def test_a_vocoder_with_an_improviser_babbles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavasr.generation.sampler.has_numba", lambda: False)
    small = GeneratorConfig(
        channels=4, skip_channels=8, dilations=(1, 2), condition_channels=4, speaker_channels=2, speakers=("a", "b")
    )
    generator = Generator(small)
    generator.excitation_gain.fill_(0.1)
    save_generator(generator, tmp_path / "v.wavasr", {}, make())
    voice = Voice.load(tmp_path / "v.wavasr")
    one, same, other = (voice.improvise(0.3, name, seed) for name, seed in (("a", 1), ("a", 1), ("b", 2)))
    assert one.shape == (4800,) and np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.isfinite(one).all() and one.std() > 0
    frames = FrameSampler(TINY, arrays_of(make()), 0, 1, 1.0).frames(50, small)
    assert len(frames) == 50 and frames.features.shape == (50, 82)
    assert np.abs(np.log(frames.lag_samples / REFERENCE_LAG)).max() < 0.15


@pytest.mark.parametrize("options", [dict(codes=1), dict(kernel=1), dict(dilations=()), dict(channels=0)])
def test_bad_configurations(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="improviser"):
        ImproviserConfig(**options)
