"""Pictures: what they show is computed, checked against second paths; files of every kind; mistakes in one line."""

import base64
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavasr import cli
from wavasr.errors import WavasrError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import AuxiliaryConfig, EncoderConfig, GeneratorConfig, StageConfig
from wavasr.network.generator import Generator, save_generator
from wavasr.network.geometry import receptive_field
from wavasr.network.inpainting import SampleLikelihood
from wavasr.network.likelihood import AuxiliaryLoss
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.pictures import lessons, voices
from wavasr.pictures.generation import Example, Measure, write_page
from wavasr.pictures.lecture import voice_chapters
from wavasr.pictures.network import generator_gradient, network, paths, recognizer_gradient
from wavasr.pictures.recording import decibels, draw, likelihood, power_spectrogram, recording
from wavasr.pictures.style import new_figure, save
from wavasr.pictures.training import learning_curves, read_curves

RATE = 16000


@pytest.fixture
def tone() -> np.ndarray:
    """A second of 1 kHz that is silent in its second half."""
    time_s = np.arange(RATE) / RATE
    return (0.5 * np.sin(2 * np.pi * 1000 * time_s) * (time_s < 0.5)).astype(np.float32)


def test_the_spectrogram_shows_frequency_and_time(tone: np.ndarray) -> None:
    power = power_spectrogram(tone, RATE)
    assert power.shape == (257, 200)
    assert power[:, 40].argmax() == 32, "1000 Hz in steps of 8000 / 256 Hz"
    assert decibels(power)[:, 150].max() == -70.0
    # Against torch's own transform of the same frames.
    spectrum = torch.stft(torch.from_numpy(tone).double(), 512, 80, 400, torch.hann_window(400, False).double(), True,
                          return_complex=True)  # fmt: skip
    ours = np.fft.rfft(tone[80 * 40 - 160 : 80 * 40 + 240] * np.hanning(400), 512)
    assert np.allclose(power[:, 40], np.abs(ours) ** 2, rtol=1e-4)
    assert spectrum.abs()[:, 40].argmax() == 32


def test_a_recording_has_its_panels_and_times(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "tone.wav", np.tile(tone, 3), RATE)
    figure = recording(tmp_path / "tone.wav", model=None, start_s=1.0, end_s=2.5)
    assert figure.axes[0].get_xlim() == (1.0, 2.5)
    assert "1 to 2.5 s of 3.0 s" in figure.get_suptitle()
    for suffix in (".png", ".svg", ".pdf"):
        save(figure, tmp_path / f"x{suffix}")
        assert (tmp_path / f"x{suffix}").stat().st_size > 5000
    with pytest.raises(WavasrError, match=r"from 5 to 3 s is no stretch of its 3.00 s"):
        recording(tmp_path / "tone.wav", model=None, start_s=5.0)
    with pytest.raises(WavasrError, match="no picture format"):
        save(figure, tmp_path / "x.doc")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_whose_name_is_not_utf8(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", tone, RATE)
    odd = tmp_path / os.fsdecode(b"x\xe9.wav")
    (tmp_path / "a.wav").rename(odd)
    save(recording(odd, model=None), tmp_path / "a.png")


def test_words_stand_at_their_times(repository: Path) -> None:
    figure = recording(repository / "data" / "samples" / "yes.wav", text="yes")
    texts = {text.get_text(): text.get_position()[0] for text in figure.axes[-3].texts or figure.axes[-1].texts}
    for axes in figure.axes:
        texts |= {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert {"yes", "Y", "EH", "S"} <= texts.keys()
    assert 0 < texts["Y"] < texts["EH"] < texts["S"] < 0.77


def test_the_likelihood_picture_averages_what_it_is_given(tone: np.ndarray) -> None:
    nats = np.where(np.arange(RATE) < RATE // 2, 1.0, 3.0).astype(np.float32)
    nats[:100] = np.nan
    line = next(line for line in likelihood(tone, RATE, nats).axes[1].lines if len(line.get_xdata()) > 2)
    values = np.asarray(line.get_ydata())
    assert np.isnan(values[0]) and values[50] == 1.0 and values[-1] == 3.0


@pytest.mark.parametrize("context", ["noncausal", "causal"])
def test_the_gradient_of_a_recogniser_reaches_as_far_as_the_formula_says(context: str) -> None:
    torch.manual_seed(0)
    stages = (
        StageConfig(channels=8, window=8, stride=4, dilations=(1, 2), pool=5),
        StageConfig(channels=8, dilations=(1, 2), pool=2),
    )
    config = EncoderConfig(stages=stages, context=context, init="random")  # type: ignore[arg-type]
    model = Recognizer(config, Units.characters(["abc"]), TextConfig()).eval()
    seen = np.flatnonzero(recognizer_gradient(model))
    before, after = receptive_field(model.encoder_config)
    middle = len(recognizer_gradient(model)) // 2
    assert (seen.min(), seen.max()) == (middle - before, middle + model.hop_samples + after - 1)


def test_the_gradient_of_a_generator_reaches_as_far_as_the_formula_says() -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(channels=4, skip_channels=4, kernel=3, dilations=(1, 2, 4), levels=16)
    gradient = generator_gradient(Generator(config).eval())
    seen = np.flatnonzero(gradient) - len(gradient) // 2
    assert (seen.min(), seen.max()) == (-config.receptive_samples, -1)


@pytest.mark.parametrize(
    ("kernel", "dilations", "causal", "inputs"),
    [(2, (1, 1, 1), True, 4), (2, (1, 2, 4, 8), True, 16), (3, (1, 2, 4), False, 15), (3, (1, 3), True, 9)],
)
def test_paths_count_the_inputs(kernel: int, dilations: tuple[int, ...], causal: bool, inputs: int) -> None:
    assert paths(new_figure(5, 3).subplots(), kernel, dilations, causal=causal) == inputs


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained vocoder of three speakers."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        channels=4,
        skip_channels=8,
        dilations=(1, 2, 4),
        levels=16,
        condition_channels=4,
        speakers=("anna", "bert", "c"),
    )
    path = tmp_path_factory.mktemp("voice") / "voice.wavasr"
    save_generator(Generator(config), path)
    return path


def test_pictures_of_a_generator(voice: Path, tmp_path: Path, speech: Path) -> None:
    assert cli.main(["show", "--model", str(voice), "-o", str(tmp_path / "a.png")]) == 0
    assert cli.main(["show", str(speech), "--model", str(voice), "-o", str(tmp_path / "b.png")]) == 0
    samples = np.zeros(RATE // 2, np.float32) + 0.01
    samples[4000:] = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 0.1
    chapters = voice_chapters(samples, voice)
    assert [len(chapter.sounds) for chapter in chapters] == [0, 0, 4, 1, 0]
    assert "From text to speech" in [chapter.title for chapter in chapters]
    assert list(chapters[2].sounds) == ["the recording", *(f"in the voice {name}" for name in ("anna", "bert", "c"))]


def test_other_rates_and_times(tmp_path: Path, speech: Path) -> None:
    """The recording comes to the model's rate, and the axis begins where the stretch does."""
    small = GeneratorConfig(sample_rate=8000, hop_samples=80, channels=4, skip_channels=4, dilations=(1, 2))
    save_generator(Generator(small), tmp_path / "8k.wavasr")
    figure = voices.likelihood_of(speech, tmp_path / "8k.wavasr", start_s=0.25)
    assert figure.axes[0].get_ylim() == (0.0, 4.0)  # kHz
    line = next(line for line in figure.axes[1].lines if len(line.get_xdata()) > 2)
    times = np.asarray(line.get_xdata())
    assert (times[0], times[-1]) == pytest.approx((0.2525, 0.4975))
    with pytest.raises(WavasrError, match=r"8k\.wavasr: works at 8000 Hz; the lecture takes models of 16000 Hz"):
        voice_chapters(np.zeros(RATE, np.float32), tmp_path / "8k.wavasr")


def test_the_likelihood_of_a_recogniser(tmp_path: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    stages = (StageConfig(channels=8, window=16, stride=8, dilations=(1, 2), pool=10),)
    config = EncoderConfig(stages=stages, init="random")
    model = Recognizer(config, Units.characters(["abc"]), TextConfig())
    save_model(model, tmp_path / "model.wavasr")
    arguments = ["show", str(speech), "--model", str(tmp_path / "model.wavasr"), "--likelihood"]
    assert cli.main([*arguments, "-o", str(tmp_path / "a.png")]) == 2
    assert "training writes it where auxiliary.weight is more than 0" in capsys.readouterr().err
    likelihood = SampleLikelihood(model.encoder, AuxiliaryLoss(config, AuxiliaryConfig(weight=0.1)))
    likelihood.save(tmp_path / "model.likelihood.safetensors")
    assert cli.main([*arguments, "-o", str(tmp_path / "a.png")]) == 0 and (tmp_path / "a.png").is_file()


def test_an_evaluated_generator_has_a_page(voice: Path, tmp_path: Path, speech: Path) -> None:
    line = {"audio_filepath": str(speech), "duration": 0.5, "text": "<b>noise</b>", "speaker": "bert"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(line), encoding="utf-8")
    arguments = ["evaluate", "--model", str(voice), "--manifest", str(tmp_path / "dev.jsonl"), "--report"]
    assert cli.main([*arguments, str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Evaluation of voice.wavasr" in page and "&lt;b&gt;noise" in page and page.count("<audio") == 2
    measured = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    kept, far = measured["vocoder"]["f0_within_6_percent"], measured["vocoder"]["mcd_db"]
    assert f"{100 * kept:.1f} %" in page and f"{far:.2f} dB" in page


def test_a_network_is_drawn(tiny_model: Path, tmp_path: Path) -> None:
    figure = network(str(tiny_model))
    parameters = sum(p.numel() for p in load_model(tiny_model).parameters())
    assert figure.get_suptitle().startswith(f"{tiny_model.stem}: {parameters:,} parameters")
    assert cli.main(["show", "--model", str(tiny_model), "-o", str(tmp_path / "model.svg")]) == 0
    assert (tmp_path / "model.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_curves_are_the_numbers_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["epoch,step,train_loss,dev_wer,lr", "0,10,2.5,,0.1", "0,20,1.5,0.9,0.1", "1,30,nan,0.5,0.1", "1,40,1"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines), encoding="utf-8")
    curves = read_curves(tmp_path)
    assert curves == {"train_loss": [(10, 2.5), (20, 1.5), (40, 1)], "dev_wer": [(20, 0.9), (30, 0.5)]}
    titles = {axes.get_title(loc="left") for axes in learning_curves(tmp_path).axes}
    assert titles == {"loss", "wer"}
    monkeypatch.chdir(tmp_path)
    assert learning_curves(".").get_suptitle() == f"{tmp_path.name}: learning curves"


@pytest.mark.parametrize("content", [None, "", "epoch,step\n0,1\n", "\0\0\0", "step,train_loss\nx,1\n"])
def test_runs_without_curves(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content, encoding="utf-8")
    with pytest.raises(WavasrError, match=r"metrics\.csv: "):
        learning_curves(tmp_path)


def test_the_mu_law_figure_measures_the_recording(tone: np.ndarray) -> None:
    legend = lessons.mu_law(tone).axes[1].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert all(re.match(r"(linear|mu-law): \d\.\d bits of entropy, signal \d\d dB", text) for text in texts), texts


def test_the_interpolated_curve_goes_through_the_samples(tone: np.ndarray) -> None:
    piece = tone[100:200]
    dense = lessons._interpolated(piece, 16)
    assert dense[::16] == pytest.approx(piece, abs=1e-5)
    fine_s = (100 + np.arange(len(dense)) / 16) / RATE
    assert dense[400:1100] == pytest.approx(0.5 * np.sin(2 * np.pi * 1000 * fine_s)[400:1100], abs=0.02)


def test_the_lecture_stands_alone(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wavasr.pictures.network._DRAWS", 1)
    source = repository / "data" / "samples" / "yes.wav"
    assert cli.main(["show", "--lecture", str(tmp_path / "new"), str(source)]) == 0
    page = (tmp_path / "new" / "lecture.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "lecture.html")
    pictures = re.findall(r'<img src="data:image/(svg\+xml|png);base64,([^"]+)"', page)
    assert len(pictures) == page.count("<section") >= 12
    for kind, data in pictures:
        assert base64.b64decode(data).startswith(b"<?xml" if kind == "svg+xml" else b"\x89PNG")
    assert "http://" not in re.sub(r"base64,[^\"]+", "", page) and 'src="http' not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--output PICTURE is missing"),
        (["-o", "x.png"], "give a recording, the folder of a run, or --model MODEL"),
        (["x.wav", "-o", "x.doc"], "no picture format .doc"),
        (["nowhere.wav", "-o", "x.png"], "nowhere.wav"),
        (["speech.wav", "--from", "nan", "-o", "x.png"], "speech.wav: from nan to 0.5 s is no stretch"),
        (["speech.wav", "--text", "", "-o", "x.png"], "speech.wav: "),
        (["speech.wav", "--text", "\u0416", "-o", "x.png"], "speech.wav: "),
        ([".", "-o", "x.png"], "metrics.csv: cannot be read"),
        (["--model", "nowhere.wavasr", "-o", "x.png"], "nowhere.wavasr"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    speech: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [speech]


def test_no_figure_is_known_to_pyplot(tone: np.ndarray) -> None:
    from matplotlib import pyplot

    draw(tone, RATE)
    assert pyplot.get_fignums() == []


def test_the_page_of_a_generator_stands_alone_and_escapes(tmp_path: Path, tone: np.ndarray) -> None:
    evil = "<script>alert(1)</script>"
    page = write_page(
        tmp_path / "new",
        title=f"Evaluation of {evil}",
        verdict=evil,
        measures=[Measure("pitch kept", "93.1 %", "100 %", evil), Measure(evil, "3.2 dB")],
        examples=[Example(evil, "said", {"natural": tone, "spoken again": tone[::2]})],
        sample_rate=RATE,
    )
    assert page == tmp_path / "new" / "report.html"
    source = page.read_text(encoding="utf-8")
    assert "<script" not in source and source.count("&lt;script") >= 5
    assert source.count("<audio") == 2 and source.count("data:image/png;base64,") == 1
    assert "93.1 %" in source and "http" not in re.sub(r"base64,[^\"]+|http-equiv", "", source)


def test_names_beside_dots_do_not_cover_each_other() -> None:
    points = np.array([[0.0, 0.0], [2.0, 1.0], [60.0, 0.0]])
    assert voices._sides(points, ["6272", "7367", "lj"]) == [(1, -1), (1, 1), (1, 1)]
