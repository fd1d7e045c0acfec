"""The sampler draws what the network says: one network stepped, compiled and computed at once gives the same."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from wavasr.audio.features import mu_law_decode, mu_law_encode
from wavasr.audio.scores import Note
from wavasr.generation.frames import Frames, frames_of, frames_of_past, past_samples
from wavasr.generation.inputs import lesson
from wavasr.generation.network import Network
from wavasr.generation.quantise import centres, encode, log2_widths
from wavasr.generation.sampler import Drawn, Sampler, has_numba
from wavasr.generation.stepping import Stepper, choose
from wavasr.network.config import GeneratorConfig
from wavasr.network.generator import Generator

SMALL = dict(channels=6, skip_channels=20, hop_samples=80, condition_channels=8, speaker_channels=4)
SHAPES = [dict(kernel=2, dilations=(1, 2, 4, 8)), dict(kernel=3, dilations=(1, 3, 9)), dict(kernel=2, dilations=(5, 3))]
KINDS = [
    dict(excitation="lpc", condition="mel", speakers=("a", "b")),
    dict(excitation="lpc", condition="past", prediction_order=24),
    dict(excitation="none", condition="mel", pre_emphasis=0.0),
    dict(excitation="lpc", condition="notes"),
    dict(excitation="none", condition="past"),
    dict(excitation="none", condition="none", pre_emphasis=0.0, speakers=("a", "b", "c")),
]
ALL = [{**shape, **kind} for shape, kind in itertools.product(SHAPES, KINDS)]


def make(**options: Any) -> Generator:
    torch.manual_seed(3)
    model = Generator(GeneratorConfig(**{**SMALL, **options}))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.sample_gain.fill_(4.0)
    model.excitation_gain.fill_(0.3 if options["excitation"] == "lpc" else 1.0)
    return model


def network_of(model: Generator) -> Network:
    return Network(model.config, {name: values.numpy() for name, values in model.state_dict().items()})


def sound(config: GeneratorConfig, frames: int, seed: int = 0) -> Frames:
    """Frames of a buzz whose pitch slides, in noise."""
    rng = np.random.default_rng(seed)
    phase = np.cumsum(np.linspace(100, 180, frames * config.hop_samples)) / 16000
    samples = 0.3 * (phase % 1 - 0.5) + 0.02 * rng.standard_normal(len(phase))
    notes = [Note(0.0, 1.0, 40 + 7 * part, 0.5) for part in range(seed % 3 + 1)]
    return frames_of(samples.astype(np.float32), config, notes)


def joined(blocks: Iterator[Drawn]) -> Drawn:
    """All blocks as one."""
    parts = list(blocks)
    return Drawn(
        np.concatenate([part.samples for part in parts], axis=1),
        np.concatenate([part.emphasised for part in parts], axis=1),
        np.concatenate([part.classes for part in parts], axis=1),
    )


def draw(network: Network, frames: int, seeds: list[int], **options: Any) -> Drawn:
    """That many frames of each seed, spoken by speaker 0, 1, 0 ..."""
    speakers = [index % max(1, min(2, len(network.config.speakers))) for index, _ in enumerate(seeds)]
    sampler = Sampler(network, speakers, seeds, **options)
    if network.config.condition in ("mel", "notes"):
        return joined(sampler.render([sound(network.config, frames, seed) for seed in seeds]))
    return joined(sampler.improvise(frames))


def parallel_logits(model: Generator, drawn: Drawn, frames: Frames, speaker: int) -> torch.Tensor:
    """All logits at once from what was drawn: (T, levels). It shares the inputs with training, the steps do not."""
    config = model.config
    network = network_of(model)
    emphasised = np.pad(drawn.emphasised[0], (frames.coefficients.shape[1], 0))
    found = lesson(emphasised, frames, config, network.gains)
    assert (found.classes == drawn.classes[0]).all()
    before, after = (4, 0) if config.condition == "past" else (2, 2)
    features = torch.from_numpy(np.pad(frames.features, ((before, after), (0, 0)), mode="edge").T)[None]
    with torch.no_grad():
        condition = model.condition(features, torch.tensor([speaker]))
        return model(torch.from_numpy(found.inputs)[None], condition)[0].T


@pytest.mark.parametrize("options", ALL, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_stepped_is_parallel(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(**options)
    network, config = network_of(model), model.config
    stepped: list[np.ndarray] = []
    step = Stepper.logits

    def recorded(self: Stepper, *inputs: Any) -> Any:
        logits = step(self, *inputs)
        stepped.append(logits[0])
        return logits

    monkeypatch.setattr(Stepper, "logits", recorded)
    drawn = draw(network, 7, [5], backend="numpy")
    if config.condition in ("mel", "notes"):
        frames = sound(config, 7, 5)
    else:
        width = past_samples(config)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(drawn.emphasised[0], (width, 0)), width)
        frames = frames_of_past(windows[:: config.hop_samples][:7], config)
    logits = parallel_logits(model, drawn, frames, 0)
    assert np.abs(np.stack(stepped) - logits.numpy()).max() < 1e-5
    uniform = np.random.default_rng(5).random(len(stepped), dtype=np.float32)
    assert (choose(logits.numpy(), uniform) == drawn.classes[0]).all()  # torch chooses the same
    assert len(set(drawn.classes[0].tolist())) > 20


@pytest.mark.skipif(not has_numba(), reason="numba is not installed")
@pytest.mark.parametrize("options", [ALL[1], ALL[8], ALL[3]], ids=["lpc-past", "kernel-3-mel", "notes"])
def test_numba_chooses_the_classes_of_numpy(options: dict[str, Any]) -> None:
    network = network_of(make(**options))
    compiled, plain = (draw(network, 9, [1, 2, 3], backend=name) for name in ("numba", "numpy"))
    assert (compiled.classes == plain.classes).all()
    assert np.abs(compiled.samples - plain.samples).max() < 1e-4
    for index, seed in enumerate((1, 2, 3)):
        alone = draw(network, 9, [seed], backend="numba")
        assert alone.samples.tobytes() == compiled.samples[index : index + 1].tobytes()


@pytest.mark.skipif(not has_numba(), reason="numba is not installed")
def test_weights_in_half_precision_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from wavasr.generation import kernel

    model = make(**ALL[0])
    model.load_state_dict({name: values.half().float() for name, values in model.state_dict().items()})
    network = network_of(model)  # as from a model file
    if kernel.get_host_cpu_features().get("f16c"):
        assert {weights.dtype for weights in kernel.Kernel(network, 1)._weights} == {np.dtype("f4"), np.dtype("u2")}
    compact = [draw(network, 9, seeds, backend="numba") for seeds in ([1], [1, 2])]
    monkeypatch.setattr(kernel, "get_host_cpu_features", dict)
    monkeypatch.setattr(kernel.platform, "machine", lambda: "old")
    assert {weights.dtype for weights in kernel.Kernel(network, 1)._weights} == {np.dtype("f4")}
    for seeds, found in zip(([1], [1, 2]), compact, strict=True):
        assert draw(network, 9, seeds, backend="numba").samples.tobytes() == found.samples.tobytes()
    plain = draw(network, 9, [1, 2], backend="numpy")
    assert (plain.classes == compact[1].classes).all()


@pytest.mark.skipif(not has_numba(), reason="numba is not installed")
def test_where_nothing_can_be_kept_the_steps_are_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from wavasr.generation import kernel

    shape = 8, 8, 16, 2, (1, 2), 6, 16, 1
    assert kernel.compiled.__wrapped__(*shape).stats.cache_path is not None  # type: ignore[attr-defined]
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])  # as on a disk that is read only
    assert kernel.compiled.__wrapped__(*shape).stats.cache_path is None  # type: ignore[attr-defined]


@pytest.mark.skipif(not has_numba(), reason="numba is not installed")
def test_numpy_and_numba_agree_on_every_sample_of_a_shipped_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy follows the past that numba made: the class that numba chose is NumPy's within 1e-6 of probability."""
    network = Network.read("kathleen")
    frames = sound(network.config, 30)
    compiled = joined(Sampler(network, [0], [0], voiced_sharpness=0.15, backend="numba").render([frames]))
    away: list[float] = []

    def follow(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        chosen = int(compiled.classes[0, len(away)])
        shares = np.exp(logits[0].astype(np.float64) - logits.max())
        borders = np.pad(shares.cumsum() / shares.sum(), (1, 0))
        away.append(max(borders[chosen] - uniform[0], uniform[0] - borders[chosen + 1]))
        return np.array([chosen])

    monkeypatch.setattr("wavasr.generation.stepping.choose", follow)
    joined(Sampler(network, [0], [0], voiced_sharpness=0.15, backend="numpy").render([frames]))
    assert len(away) == 4800
    assert max(away) < 1e-6
    assert len(set(compiled.classes[0].tolist())) > 100


def test_a_batch_is_its_singles() -> None:
    network = network_of(make(**ALL[1]))
    together = draw(network, 6, [7, 8, 9], backend="numpy")
    for index, seed in enumerate((7, 8, 9)):
        single = draw(network, 6, [seed], backend="numpy")
        assert (single.classes == together.classes[index : index + 1]).all()


def test_longer_sounds_do_not_change_shorter_ones_beside_them() -> None:
    network = network_of(make(**ALL[0]))
    long, short = sound(network.config, 56), sound(network.config, 53, 1)
    both = joined(Sampler(network, [0, 0], [1, 2], backend="numpy").render([long, short]))
    alone = joined(Sampler(network, [0], [2], backend="numpy").render([short]))
    assert (both.classes[1, : 53 * 80] == alone.classes[0]).all()


def test_temperature_and_sharpness_make_the_draws_surer() -> None:
    network = network_of(make(**ALL[0]))

    def spread(**options: Any) -> float:
        counts = np.bincount(draw(network, 30, [1], backend="numpy", **options).classes[0]) / (30 * 80)
        return float(-(counts * np.log2(counts + 1e-12)).sum())

    assert spread(temperature=0.1) < spread() - 0.5
    assert spread(voiced_sharpness=9.0) < spread() - 0.5


def test_conditions_are_those_of_torch() -> None:
    for options in KINDS:
        model = make(**options)
        network = network_of(model)
        features = np.random.default_rng(0).standard_normal((9, model.config.frame_features)).astype(np.float32)
        speaker = len(model.config.speakers) - 1 if model.config.speakers else 0
        with torch.no_grad():
            expected = model.condition(torch.from_numpy(features.T.copy())[None], torch.tensor([speaker]))[0]
        bias = torch.stack([block.dilated.bias for block in model.blocks])  # type: ignore[attr-defined, misc]
        found = network.condition(features, speaker)
        assert np.abs(found - (expected + bias[..., None]).permute(2, 0, 1).detach().numpy() / 2).max() < 1e-5


def test_quantiser_is_that_of_the_features() -> None:
    samples = np.random.default_rng(0).uniform(-1.1, 1.1, 5000).astype(np.float32)
    classes = encode(samples)
    assert (classes == mu_law_encode(torch.from_numpy(samples)).numpy()).mean() > 0.999  # rounding at the edges
    assert np.allclose(centres(), mu_law_decode(torch.arange(256)).numpy(), atol=1e-6)
    assert (encode(centres()) == np.arange(256)).all()
    assert np.isclose((2.0 ** log2_widths().astype(np.float64)).sum(), 2.0)
