"""Rounding by what was heard: against every way to round, against the network's own outputs, and as a command."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from wavasr import cli
from wavasr.corpora.manifest import read_manifest
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import is_packed, read_arrays, steps_of
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.network.rounding import STEPS, round_to_speech, rounded, second_moments
from wavasr.network.wavenet import GatedBlock


def error(weights: Tensor, values: Tensor, step: Tensor, moments: Tensor) -> Tensor:
    """Squared change of what a kernel puts out, summed over what was heard: (N,)."""
    change = weights - values * step
    return ((change @ moments) * change).sum(dim=1)


def problem(seed: int, inputs: int, shared: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (4, K), second moments of K inputs that have some of their power in common, and steps (4, 1)."""
    torch.manual_seed(seed)
    weights = torch.randn(4, inputs, dtype=torch.float64)
    heard = torch.randn(inputs, 400, dtype=torch.float64) + shared * torch.randn(1, 400, dtype=torch.float64)
    step = torch.from_numpy(steps_of(weights.numpy(), STEPS)).double()
    return weights, heard @ heard.T, step


def test_it_lies_between_the_nearest_and_the_best_of_all() -> None:
    sums = np.zeros(3)
    for seed in range(12):
        weights, moments, step = problem(seed, 5, shared=3.0)
        nearest = (weights / step).round()
        ways = [nearest + torch.tensor(way) for way in itertools.product((-1.0, 0.0, 1.0), repeat=5)]
        errors = torch.stack([error(weights, way.clamp(-STEPS, STEPS), step, moments) for way in ways])
        found = error(weights, rounded(weights, moments, step), step, moments)
        assert (errors.amin(dim=0) <= found * 1.000001).all()
        sums += [float(e.sum()) for e in (errors.amin(dim=0), found, error(weights, nearest, step, moments))]
    best, found_sum, nearest_sum = sums
    assert best < found_sum < 0.8 * nearest_sum


def test_of_inputs_that_have_nothing_in_common_it_is_the_nearest() -> None:
    weights, _, step = problem(0, 6, shared=0.0)
    assert torch.equal(rounded(weights, torch.eye(6, dtype=torch.float64), step), (weights / step).round())


def test_many_inputs_of_one_cause_lose_a_fraction() -> None:
    weights, moments, step = problem(1, 96, shared=3.0)
    nearest = error(weights, (weights / step).round(), step, moments).sum()
    values = rounded(weights, moments, step)
    assert error(weights, values, step, moments).sum() < 0.3 * nearest
    assert int(values.abs().max()) <= STEPS


def test_inputs_that_were_never_heard_are_rounded_to_the_nearest() -> None:
    weights, moments, step = problem(2, 6, shared=0.0)
    moments[3] = moments[:, 3] = 0.0
    assert torch.equal(rounded(weights, moments, step)[:, 3], (weights / step).round()[:, 3])


# The network ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["noncausal", "causal"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(3)
    stages = (
        StageConfig(channels=8, window=8, stride=4, level_frames=6, dilations=(1, 2), pool=5, pooling="energy"),
        StageConfig(channels=64, dilations=(1, 2), pool=2),
    )
    config = EncoderConfig(preset="custom", stages=stages, context=request.param, sample_rate=2000)
    save_model(Recognizer(config, Units.characters(["abc d"]), TextConfig()), tmp_path / "wide.wavasr")
    return tmp_path / "wide.wavasr"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = []
    for number in range(3):
        samples = 0.1 * np.random.default_rng(number).standard_normal(2500 + 700 * number)
        soundfile.write(tmp_path / f"{number}.wav", samples, 2000)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "duration": len(samples) / 2000, "text": "a"}))
    (tmp_path / "heard.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "heard.jsonl"


def test_moments_tell_the_power_of_what_every_kernel_puts_out(
    model: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer, power = load_model(model), dict[str, float]()

    def add(name: str, kernel: nn.Conv1d, output: Tensor) -> None:
        assert kernel.bias is not None
        power[name] = power.get(name, 0.0) + float((output - kernel.bias[:, None]).double().square().sum())

    for name, module in recognizer.named_modules():
        if isinstance(module, GatedBlock):
            convolve = module._convolve

            def convolved(x: Tensor, name=name, block=module, convolve=convolve) -> Tensor:  # type: ignore[no-untyped-def]
                output: Tensor = convolve(x)
                add(f"{name}.dilated.weight", block.dilated, output)
                return output

            monkeypatch.setattr(module, "_convolve", convolved)
        elif isinstance(module, nn.Conv1d) and not name.endswith("dilated"):
            module.register_forward_hook(lambda kernel, _, output, name=name: add(f"{name}.weight", kernel, output))
    moments = second_moments(recognizer, read_manifest(manifest))
    packed = {name for name, weight in recognizer.named_parameters() if is_packed(name, weight.shape)}
    assert moments.keys() == packed and len(packed) == 5
    for name, moment in moments.items():
        weights = recognizer.get_parameter(name).detach().flatten(1).double()
        assert float(((weights @ moment) * weights).sum()) == pytest.approx(power[name], rel=1e-4), name


def test_what_is_exported_is_smaller_and_closer_to_the_network(model: Path, manifest: Path, tmp_path: Path) -> None:
    small, smaller = tmp_path / "small.wavasr", tmp_path / "smaller.wavasr"
    assert cli.main(["export", str(model), "--int8", "-o", str(small)]) == 0
    assert cli.main(["export", str(model), "--int8", "-o", str(smaller), "--manifest", str(manifest)]) == 0
    assert smaller.stat().st_size < 0.9 * small.stat().st_size
    arrays, whole = read_arrays(smaller), read_arrays(model)
    result = round_to_speech(model, read_manifest(manifest))
    assert result
    nearest = load_model(model)
    for name, (values, step) in result.items():
        assert np.array_equal(arrays[name], values * step)
        nearest.get_parameter(name).data = torch.from_numpy(np.rint(whole[name] / step) * step)
    waveform = torch.from_numpy(soundfile.read(tmp_path / "2.wav", dtype="float32")[0])[None]
    exact, near, ours = (
        network(waveform, torch.tensor([waveform.shape[1]]))[0].detach()
        for network in (load_model(model), nearest, load_model(smaller))
    )
    assert (ours - exact).square().mean() < 0.8 * (near - exact).square().mean()


def test_speech_is_for_small_model_files_alone(
    model: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["-o", str(tmp_path / "x.onnx"), "--int8"], ["-o", str(tmp_path / "x.wavasr")]):
        assert cli.main(["export", str(model), "--manifest", str(manifest), *wrong]) == 2
        assert "--manifest goes with --int8" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


def test_a_diverged_model_is_one_line(
    model: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverged = load_model(model)
    diverged.encoder.stages[1].project.weight.data[0] = torch.nan  # type: ignore[union-attr]
    save_model(diverged, model)
    output = tmp_path / "x.wavasr"
    assert cli.main(["export", str(model), "--int8", "-o", str(output), "--manifest", str(manifest)]) == 2
    assert "not all numbers; train the model again" in capsys.readouterr().err
    assert not output.exists()
