"""Calibration: errors by hand, a model that is too sure made honest, the map on its way through files and reports."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavasr import cli
from wavasr.archive import members_of
from wavasr.corpora.manifest import Utterance, read_manifest, write_manifest
from wavasr.decoding.confidence import KEY, ConfidenceMap, fit_map, reliability
from wavasr.decoding.config import GREEDY, DecodingConfig
from wavasr.decoding.decoder import GreedyDecoder
from wavasr.errors import ModelError, TextError
from wavasr.evaluation import report
from wavasr.evaluation.evaluate import calibrate, evaluate
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import change_model, read_header
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.recognition.models import calibration_of
from wavasr.recognition.transcribe import transcribe

Words = list[tuple[float, bool]]


pytestmark = pytest.mark.usefixtures("noise_is_speech")


def too_sure(utterances: int, seed: int, power: float) -> list[Words]:
    """Ten words an utterance; the log-odds that are stated are `power` times the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.05, 0.95, (utterances, 10))
    right = rng.uniform(size=true.shape) < true
    stated = 1 / (1 + ((1 - true) / true) ** power)
    return [list(zip(row.tolist(), said.tolist(), strict=True)) for row, said in zip(stated, right, strict=True)]


def test_expected_calibration_error_by_hand() -> None:
    judged = [(0.95, True), (0.97, False), (0.15, False), (0.0, True), (1.0, True)]
    found = reliability(judged)
    # Above 0.9: 2 of 3 right at 0.9733; 0.1 to 0.2: none of 1 at 0.15; below 0.1: 1 of 1 at 0.
    by_hand = (3 * abs(2 / 3 - (0.95 + 0.97 + 1.0) / 3) + 0.15 + 1.0) / 5
    assert found.ece == pytest.approx(by_hand) == pytest.approx((0.92 + 0.15 + 1.0) / 5)
    assert [(b.low, b.words) for b in found.bins if b.words] == [(0.0, 1), (0.1, 1), (0.9, 3)]
    assert found.bins[9].right == pytest.approx(2 / 3) and found.bins[5].words == 0
    assert found.words == 5 and len(found.bins) == 10


def test_confidences_that_are_probabilities_have_no_error() -> None:
    assert reliability([(0.75, i % 4 > 0) for i in range(100)]).ece == pytest.approx(0.0)
    assert reliability([]).ece == 0.0


def test_a_model_that_is_too_sure_becomes_honest() -> None:
    found = fit_map(too_sure(300, seed=0, power=3.0))
    assert found is not None and found.words == 3000
    assert found.scale == pytest.approx(1 / 3, abs=0.05) and found.shift == pytest.approx(0.0, abs=0.15)
    fresh = [word for words in too_sure(300, seed=1, power=3.0) for word in words]
    before, after = reliability(fresh).ece, reliability([(found(c), right) for c, right in fresh]).ece
    assert before > 0.12 and after < 0.035
    assert (found.ece_before, found.ece_after) == pytest.approx((before, after), abs=0.03)


def test_a_bias_needs_the_shift() -> None:
    """Everything is stated two nats of log-odds too low."""
    words = [
        [(1 / (1 + (1 - c) / c * np.exp(2.0)), right) for c, right in said] for said in too_sure(200, 2, power=1.0)
    ]
    found = fit_map(words)
    assert found is not None
    assert (found.scale, found.shift) == pytest.approx((1.0, 2.0), abs=0.25) and found.ece_after < found.ece_before / 3


def test_the_map_rises_and_stays_a_probability() -> None:
    grid = np.linspace(0, 1, 101)
    for judged in (
        too_sure(30, 3, power=0.3),
        [[(0.9, True)] * 10] * 10,
        [[(0.1, False), (0.99, True)] * 10] * 10,
        [[(0.2, True), (0.8, False)] * 10] * 10,  # the surer, the wronger
        [[(0.0, False), (1.0, True)] * 10] * 10,
    ):
        found = fit_map(judged)
        assert found is not None and found.ece_after <= found.ece_before + 1e-3
        mapped = [found(c) for c in grid]
        assert all(0 < c < 1 for c in mapped) and np.all(np.diff(mapped) >= 0) and mapped[0] < mapped[-1]


def test_too_few_words_are_not_fitted() -> None:
    assert fit_map([[(0.5, True)] * 49, []]) is None
    assert fit_map([[(0.5, True)] * 50]) is not None


def bursts(rng: np.random.Generator) -> np.ndarray:
    """Three seconds of noise whose level changes all the time."""
    level = np.repeat(10 ** rng.uniform(-4, -0.5, 150), 320)
    return np.asarray(level * rng.standard_normal(48000))


@pytest.fixture(scope="module")
def untrained() -> Recognizer:
    """A network with large random weights, and none of its words likelier than the others: it says many of noise."""
    torch.manual_seed(6)
    stages = (
        StageConfig(channels=8, window=32, stride=16, dilations=(1, 2), pool=10),
        StageConfig(channels=8, dilations=(1, 2), pool=2),
    )
    found = Recognizer(EncoderConfig(stages=stages, init="random"), Units.words_of(["a b c the fox"]), TextConfig())
    audio = torch.from_numpy(bursts(np.random.default_rng(5))).float()[None]
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_()
        assert found.output.bias is not None
        found.output.bias -= found(audio, torch.tensor([48000]))[0][0].mean(dim=0)
    return found.eval()


@pytest.fixture
def model(untrained: Recognizer, tmp_path: Path) -> Path:
    path = tmp_path / "own" / "model.wavasr"
    save_model(untrained, path, {"note": "Ärger"}, half=True)
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    utterances = []
    for i in range(8):
        audio = tmp_path / f"{i}.wav"
        soundfile.write(audio, bursts(rng), 16000, subtype="FLOAT")
        utterances.append(Utterance(str(i), audio, 3.0, "a b c the fox", f"speaker{i % 2}"))
    write_manifest(tmp_path / "dev.jsonl", utterances)
    return tmp_path / "dev.jsonl"


def test_metadata_changes_and_weights_do_not(model: Path, tmp_path: Path) -> None:
    before, weights = read_header(model), load_model(model).state_dict()
    copy = tmp_path / "new" / "copy.wavasr"
    change_model(model, copy, metadata={"calibration": {"ctc": {"scale": 0.5}}})
    assert read_header(model) == before
    assert read_header(copy) == before | {"metadata": {"note": "Ärger", "calibration": {"ctc": {"scale": 0.5}}}}
    for name, member in members_of(model).items():
        assert (members_of(copy)[name].read_bytes() == member.read_bytes()) == (name != "model.json")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_model(copy).state_dict().items())
    change_model(copy, metadata={"calibration": None})
    assert read_header(copy)["metadata"] == {"note": "Ärger", "calibration": None}
    assert [path.name for path in copy.parent.iterdir()] == ["copy.wavasr"]


def test_a_failed_write_leaves_the_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model.read_bytes()

    write = io.FileIO.write

    def fill(self: io.FileIO, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wavasr.files.NamedSink.write", fill)
    with pytest.raises(OSError, match="No space"):
        change_model(model, metadata={"note": "other"})
    assert model.read_bytes() == content and len(list(model.parent.iterdir())) == 1


def test_files_that_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "a.wavasr").write_bytes(b"nothing")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a wavasr model file"):
        change_model(tmp_path / "a.wavasr")
    with pytest.raises(ModelError, match="is a graph for other programs"):
        change_model(tmp_path / "a.onnx")


def test_transcribe_applies_the_map(model: Path, manifest: Path) -> None:
    audio = read_manifest(manifest)[0].audio
    own = transcribe(audio, model)
    assert own.words and own.confidence == pytest.approx(np.mean([word.confidence for word in own.words]))
    found = ConfidenceMap(0.5, -1.0)
    change_model(model, metadata={KEY: {"ctc": found.to_dict()}})
    mapped = transcribe(audio, model)
    assert [replace(word, confidence=found(word.confidence)) for word in own.words] == list(mapped.words)
    assert mapped.confidence == pytest.approx(np.mean([word.confidence for word in mapped.words]))
    beam = transcribe(audio, model, decoder=DecodingConfig(beam=16))
    assert beam.confidence is not None and beam.confidence < 0.5
    assert calibration_of(load_model(model), GreedyDecoder(GREEDY)) == found


@pytest.mark.parametrize(
    "values",
    [{"scale": "x"}, {"scale": -1.0}, {"scale": 0.0}, {"shift": float("inf")}, {"words": None}, [1, 2], None],
)
def test_a_damaged_map_is_refused(values: object) -> None:
    whole = ConfidenceMap(1.0, 0.0).to_dict()
    damaged = {**whole, **values} if isinstance(values, dict) else values
    with pytest.raises(ModelError, match="wavasr calibrate again"):
        ConfidenceMap.of({KEY: {"ctc": damaged}}, "ctc")
    assert ConfidenceMap.of({KEY: {"lm": whole}}, "ctc") is None
    assert ConfidenceMap.of({}, "ctc") is None


def test_evaluations_and_reports_carry_it(model: Path, manifest: Path, tmp_path: Path) -> None:
    utterances = read_manifest(manifest)
    before = evaluate(load_model(model), utterances, progress=False)
    own = before.reliability()
    assert own is not None and own.words == sum(len(u.hypothesis.split()) for u in before.utterances) >= 50
    assert "not calibrated" in report.summary(before)
    calibrated = calibrate(before, model)
    again = evaluate(load_model(model), utterances, progress=False)
    assert again.calibration == calibrated.calibration is not None
    for ours, theirs in zip(calibrated.utterances, again.utterances, strict=True):
        assert replace(ours, compute_s=0) == replace(theirs, compute_s=0)
    page = report.write_report(again, tmp_path / "report")
    stated = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["calibration"]
    assert stated["own"]["ece"] == pytest.approx(own.ece)
    assert stated["calibrated"]["ece"] < stated["own"]["ece"]
    assert sum(b["words"] for b in stated["calibrated"]["bins"]) == own.words
    assert ConfidenceMap.from_dict(stated["map"]) == again.calibration
    assert report.read(tmp_path / "report") == again
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg role=") > 2 and 'id="calibration"' in html and "expected calibration error" in html
    assert "## Calibration" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_reports_from_before_have_none(model: Path, manifest: Path) -> None:
    evaluation = evaluate(load_model(model), read_manifest(manifest), progress=False)
    values = json.loads(report.to_json(evaluation))
    del values["calibration"]
    for utterance in values["utterances"]:
        del utterance["word_confidences"]
    old = manifest.parent / "old.json"
    old.write_text(json.dumps(values), encoding="utf-8")
    found = report.read(old)
    assert found.reliability() is None and found.calibration is None
    assert 'id="calibration"' not in report.html(found) and "confidences:" not in report.summary(found)


def test_too_little_to_calibrate_on(model: Path, manifest: Path) -> None:
    evaluation = evaluate(load_model(model), read_manifest(manifest), progress=False)
    silent = replace(evaluation, utterances=tuple(replace(u, word_confidences=()) for u in evaluation.utterances))
    with pytest.raises(TextError, match="fewer than 50 words"):
        calibrate(silent, model)


def test_command_line(model: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "calibrated.wavasr"
    arguments = ["calibrate", "--model", str(model), "--manifest", str(manifest)]
    assert cli.main([*arguments, "--output", str(copy)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("fitted on ") and "expected calibration error" in first and second == str(copy)
    assert KEY not in read_header(model)["metadata"]
    assert cli.main(arguments) == 0
    assert read_header(model) == read_header(copy)
    assert list(read_header(model)["metadata"][KEY]) == ["ctc"]
    assert cli.main(["evaluate", *arguments[1:]]) == 0
    assert "without the model's calibration" in capsys.readouterr().out


def test_command_line_mistakes(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["calibrate", "--model", "default", "--manifest", str(manifest)]) == 2
    assert "give --output FILE for a changed copy" in capsys.readouterr().err
    assert cli.main(["calibrate"]) == 2
    assert "--manifest" in capsys.readouterr().err


def test_fit_calibrates_on_dev_and_not_on_test(model: Path, manifest: Path) -> None:
    from wavasr.training.config import DataConfig, FitConfig
    from wavasr.training.run import measure

    utterances = read_manifest(manifest)
    data = DataConfig(root=manifest.parent, dev=("dev.jsonl",), test=("dev.jsonl",))
    config = FitConfig(run_dir=model.parent, data=data)
    assert measure(config, "test", utterances) and KEY not in read_header(model)["metadata"]
    assert measure(config, "dev", utterances)
    header = read_header(model)
    assert report.read(model.parent / "dev").calibration == ConfidenceMap.of(header["metadata"], "ctc") is not None
    assert measure(config, "test", utterances) and read_header(model) == header
    assert report.read(model.parent / "test").calibration == ConfidenceMap.of(header["metadata"], "ctc")
