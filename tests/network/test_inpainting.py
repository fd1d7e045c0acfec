"""Hidden spans are sampled anew and nothing else changes; the likelihood of every sample is that of the loss."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from wavasr.errors import ConfigError, ModelError
from wavasr.network.config import AuxiliaryConfig, EncoderConfig, StageConfig
from wavasr.network.inpainting import SampleLikelihood, inpaint, likelihood_path, load_likelihood, sample_nats
from wavasr.network.likelihood import AuxiliaryLoss
from wavasr.network.wavenet import Encoder

RATE = 2000
STAGES = (
    StageConfig(channels=8, window=8, stride=4, level_frames=6, dilations=(1, 2), pool=5, pooling="energy"),
    StageConfig(channels=8, dilations=(1, 2), pool=2),
)


def model_of(predictor: str = "frames", context: str = "noncausal") -> SampleLikelihood:
    torch.manual_seed(0)
    encoder = EncoderConfig(stages=STAGES, context=context, sample_rate=RATE)  # type: ignore[arg-type]
    config = AuxiliaryConfig(weight=1.0, predictor=predictor)  # type: ignore[arg-type]
    return SampleLikelihood(Encoder(encoder), AuxiliaryLoss(encoder, config)).eval()


def noise(count: int) -> np.ndarray:
    return np.asarray(0.1 * np.random.default_rng(0).normal(size=count), np.float32)


@pytest.mark.parametrize("predictor", ["frames", "wavenet"])
def test_only_the_hidden_span_changes_and_a_seed_decides_how(predictor: str) -> None:
    model, waveform = model_of(predictor), noise(603)
    filled = inpaint(model, waveform, 0.1, 0.15, seed=1)
    changed = np.flatnonzero(filled != waveform)
    assert changed.min() >= 200 and changed.max() < 300 and len(changed) > 90
    np.testing.assert_array_equal(filled, inpaint(model, waveform, 0.1, 0.15, seed=1))
    assert (filled != inpaint(model, waveform, 0.1, 0.15, seed=2)).any()
    other = waveform.copy()
    other[200:300] = 0.3  # what was there is not known
    np.testing.assert_array_equal(inpaint(model, other, 0.1, 0.15, seed=1), filled)


@pytest.mark.parametrize("predictor", ["frames", "wavenet"])
def test_a_span_within_a_step_is_widened_to_it(predictor: str) -> None:
    waveform = noise(603)
    filled = inpaint(model_of(predictor), waveform, 0.10001, 0.10002)
    assert np.flatnonzero(filled != waveform).tolist() == [200, 201, 202, 203]


@pytest.mark.parametrize("context", ["noncausal", "causal"])
@pytest.mark.parametrize("predictor", ["frames", "wavenet"])
def test_every_sample_of_a_whole_step_has_a_likelihood(predictor: str, context: str) -> None:
    nats = sample_nats(model_of(predictor, context), noise(603))
    assert nats.shape == (603,)
    first = 4 if context == "causal" else 0
    assert np.isnan(nats).tolist() == [place < first or place >= 600 for place in range(603)]
    assert np.nanmean(nats) == pytest.approx(math.log(256), abs=0.1)  # an untrained network knows nothing


def test_a_span_is_drawn_from_what_the_network_learnt() -> None:
    """After a little training on a tone, a filled-in span is as loud as the tone, not as the whole range."""
    model = model_of("wavenet").train()
    tone = (0.3 * torch.sin(2 * math.pi * 55.0 * torch.arange(RATE) / RATE)).view(1, -1)
    lengths = torch.tensor([RATE])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(40):
        hidden = model.likelihood.hide(tone, lengths, torch.Generator().manual_seed(step))
        loss = model.likelihood(model.encoder(hidden.waveform, lengths), hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    span = slice(800, 840)
    filled = inpaint(model.eval(), tone[0].numpy(), 0.4, 0.42)[span]
    assert np.abs(filled - tone[0, span].numpy()).mean() < 0.15  # 0.19 if it were silent


def test_from_file(tmp_path: Path) -> None:
    model, waveform = model_of("wavenet"), noise(400)
    model.save(likelihood_path(tmp_path / "model.wavasr"))
    again = load_likelihood(tmp_path / "model.wavasr")
    assert again.encoder.config == model.encoder.config and again.likelihood.config == model.likelihood.config
    np.testing.assert_array_equal(sample_nats(again, waveform), sample_nats(model, waveform))
    with pytest.raises(ModelError, match=r"other\.likelihood\.safetensors: no such file"):
        load_likelihood(tmp_path / "other.wavasr")
    (tmp_path / "bad.likelihood.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"bad\.likelihood\.safetensors: is no likelihood of samples"):
        load_likelihood(tmp_path / "bad.wavasr")
    with pytest.raises(ModelError, match="is a folder"):
        load_likelihood(Path())


def test_what_can_not_be_filled_in() -> None:
    with pytest.raises(ConfigError, match="a causal encoder knows one side only"):
        inpaint(model_of(context="causal"), noise(600), 0.1, 0.2)
    with pytest.raises(ConfigError, match=r"expected a span that begins before 0.3 s"):
        inpaint(model_of(), noise(603), 0.3005, 0.301)
    for span in ((0.2, 0.1), (-0.1, 0.1), (0.1, 0.4)):
        with pytest.raises(ConfigError, match=r"expected a span within the 0.30 s"):
            inpaint(model_of(), noise(600), *span)
