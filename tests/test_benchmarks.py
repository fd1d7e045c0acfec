"""The benchmark: its reference network is ours, and a tiny run writes its report."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import PRESETS, EncoderConfig, StageConfig
from wavasr.network.recognizer import Recognizer

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples" / "samples.jsonl"
UNITS = Units.characters(["abcdefgh "])


@pytest.fixture(autouse=True)
def repository_on_path(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repository)


@pytest.mark.parametrize("context", ["noncausal", "causal"])
def test_the_plain_network_is_ours(context: str) -> None:
    from benchmarks.networks import largest_differences
    from benchmarks.plain import PlainNetwork

    stages = (
        StageConfig(
            8, window=32, stride=8, level_frames=16, filter_bank=True, dilations=(1, 2), pool=5, pooling="energy"
        ),
        StageConfig(channels=12, skip_channels=8, kernel=2, dilations=(1, 2, 4), pool=4),
        StageConfig(channels=8, dilations=(1, 4)),
    )
    torch.manual_seed(0)
    model = Recognizer(EncoderConfig(stages=stages, context=context, init="random"), UNITS, TextConfig())  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():  # a filter bank starts with zeros
            parameter.add_(0.02 * torch.randn_like(parameter))
    difference, of_bytes = largest_differences(model.eval(), 8_000)
    assert difference < 1e-4
    assert 0 < of_bytes < 0.05
    # And so are its gradients.
    waveform, lengths = 0.1 * torch.randn(2, 4_000), torch.tensor([4_000, 3_000])
    gradients = []
    for network in (model, PlainNetwork(model)):
        model.zero_grad()
        log_probs, frames = network(waveform, lengths)
        (log_probs[0, :, 1].sum() + log_probs[1, : frames[1], 2].sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_wrong_reference_is_noticed() -> None:
    from benchmarks import networks

    model = networks.recogniser("base")
    plain = networks.PlainNetwork(model)
    plain.causal = True
    waveform, lengths = 0.1 * torch.randn(1, 8_000), torch.tensor([8_000])
    with torch.no_grad():
        assert not torch.allclose(plain(waveform, lengths)[0], model(waveform, lengths)[0], atol=networks.CLOSE)


def test_arithmetic_is_as_documented() -> None:
    from benchmarks.networks import gflop_per_audio_s

    documented = {"paper": 2.1, "paper-small": 0.6, "swift": 0.46, "base": 0.69}
    assert {name: gflop_per_audio_s(name) / 2 for name in PRESETS} == pytest.approx(documented, rel=0.1)


def test_training_is_the_plain_networks() -> None:
    from benchmarks import networks

    plain, exact, half = networks.curves("base", 3, clips=2).values()
    assert exact == pytest.approx(plain, rel=1e-3)
    assert half == pytest.approx(plain, rel=0.05)
    assert plain[-1] < 0.7 * plain[0]


def test_a_tiny_run_writes_the_report(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import __main__ as benchmark
    from benchmarks import networks, processes
    from benchmarks.measure import Cost

    def in_process(*arguments: str) -> object:
        assert "--seconds" in arguments
        stages = (StageConfig(channels=8, window=32, stride=16, dilations=(1, 2), pool=20),)
        model = Recognizer(EncoderConfig(stages=stages, init="random"), UNITS, TextConfig())
        monkeypatch.setattr(networks, "recogniser", lambda preset: model.eval())
        found = {"base": networks.measured("base", 2.0, 1)}
        curves = {networks.STEP_PLAIN: [3.5, 2.5], networks.STEP16: [3.5, 2.25]}
        return {"peaks": networks.peaks(1, 64), "presets": found, "curves": curves}

    monkeypatch.setattr(benchmark, "_json_of", in_process)
    monkeypatch.setattr(processes, "process", lambda command: Cost(2.0, 1.0, 100.0))
    arguments = ["--only", "a,c,e", "--quick", "--presets", "base", "--output", str(tmp_path)]
    assert benchmark.main([*arguments, "--model", str(tiny_model)]) == 0
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for expected in (
        "a. Forward and training",
        "c. One file of",
        "`wavasr transcribe --help` | 2.00 s",
        "step, wavasr bfloat16",
        "| step, wavasr bfloat16 | 3.500 | 2.250 |",
        "plot.svg",
        "torch ",
    ):
        assert expected in report
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.svg", "report.md"]


def test_copies_of_a_manifest(tmp_path: Path) -> None:
    from benchmarks.robustness import copies
    from wavasr.corpora.manifest import read_manifest
    from wavasr.corpora.recordings import load_utterance

    clip = next(u for u in read_manifest(SAMPLES) if u.duration_s > 1)
    said = load_utterance(clip, 16000)
    softer = read_manifest(copies("softer", lambda x, _: x * np.float32(0.1), [clip], tmp_path))
    assert load_utterance(softer[0], 16000) == pytest.approx(said * 0.1, abs=1e-4)
    packed = read_manifest(copies("mp3", lambda x, _: x, [clip], tmp_path))
    again = load_utterance(packed[0], 16000)
    assert softer[0].text == packed[0].text == clip.text and packed[0].audio.suffix == ".mp3"
    assert abs(len(again) - len(said)) < 3000 and packed[0].audio.stat().st_size < len(said) / 4


def test_failures_are_lines_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peers
    from benchmarks.measure import process

    with pytest.raises(RuntimeError, match="no such thing"):
        process([sys.executable, "-c", "raise SystemExit('no such thing')"])
    monkeypatch.setattr(peers, "PEERS", {"nobody": ("--no-such-option",)})
    monkeypatch.setattr(peers.venv, "create", lambda folder, with_pip: None)
    found, problems = peers.install(tmp_path)
    assert not found
    assert len(problems) == 1 and problems[0].startswith("nobody is left out")


def test_nats_without_a_network() -> None:
    """Classes are told by nobody in white noise, by linear prediction in a resonance; all probabilities sum to one."""
    from benchmarks.likelihood import LEVELS, class_shares, linear_prediction_nats, unigram_entropy

    shares = class_shares(np.full(LEVELS, 0.2), 0.05, np.arange(LEVELS))
    assert shares.sum() == pytest.approx(1.0, abs=1e-3) and shares.min() > 0
    rng = np.random.default_rng(0)
    white = (0.1 * rng.normal(size=8000)).astype(np.float32)
    tone = np.zeros(8000)
    for place in range(2, 8000):  # poles near the circle
        tone[place] = 1.9 * tone[place - 1] - 0.98 * tone[place - 2] + 0.001 * rng.normal()
    tone = tone.astype(np.float32)
    assert linear_prediction_nats(white).mean() > unigram_entropy([white]) - 0.05
    assert linear_prediction_nats(tone).mean() < unigram_entropy([tone]) - 1


def test_a_queue_of_trainings(repository: Path, tmp_path: Path) -> None:
    """First seeds come first, what has a row is not run again; trials of the queue that ships are recipes."""
    from benchmarks.auxiliary import COLUMNS, cut, waiting, write_row
    from wavasr.training.recipe import parse

    queue = tmp_path / "queue.yaml"
    queue.write_text("- {name: a, seeds: [0, 1], config: timit.yaml}\n- {name: b, seeds: [5], data.dev: []}\n", "utf-8")
    assert [(run.name, run.seed) for run in waiting(queue, tmp_path)] == [("a", 0), ("b", 5), ("a", 1)]
    write_row(tmp_path / "results.csv", {**dict.fromkeys(COLUMNS, ""), "trial": "a", "seed": 0})
    left = list(waiting(queue, tmp_path))
    assert [(run.name, run.seed) for run in left] == [("b", 5), ("a", 1)]
    assert left[0].arguments == ["--data.dev", "[]"]
    shipped = list(waiting(repository / "benchmarks" / "auxiliary.yaml", tmp_path / "none"))
    for run in shipped[:12:4]:
        parse(run.arguments)
    lines = [{"audio_filepath": f"{n}.wav", "speaker": "ab"[n > 4], "duration": 2.0} for n in range(8)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    chosen = [json.loads(line)["audio_filepath"] for line in cut(tmp_path / "m.jsonl", 7)]
    assert chosen == [(tmp_path / f"{n}.wav").resolve().as_posix() for n in (0, 5, 1, 6)]


def test_the_sampler_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import generation

    monkeypatch.setattr(sys, "argv", ["generation.py", "--quick"])
    monkeypatch.setattr(generation, "compile_seconds", lambda: (0.0, 0.0))
    generation.main()
    told = capsys.readouterr().out
    assert "a step: 164,032 multiply-adds, 328 kB of halves" in told and "| numba | 4 |" in told
