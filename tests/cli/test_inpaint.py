"""`wavasr generate --inpaint`: a recording with a span filled in, and one line for what can not be done."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavasr.__main__ import main
from wavasr.network.config import AuxiliaryConfig, EncoderConfig, StageConfig
from wavasr.network.inpainting import SampleLikelihood, likelihood_path
from wavasr.network.likelihood import AuxiliaryLoss
from wavasr.network.wavenet import Encoder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    encoder = EncoderConfig(stages=(StageConfig(channels=4, window=8, stride=8, dilations=(1,), pool=10),))
    SampleLikelihood(Encoder(encoder), AuxiliaryLoss(encoder, AuxiliaryConfig(weight=1.0))).save(
        likelihood_path(tmp_path / "model.wavasr")
    )
    return tmp_path / "model.wavasr"


def generate(*arguments: str | Path) -> int:
    try:
        return main(["generate", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


def test_hidden_spans_are_filled_in(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = 0.1 * np.sin(np.arange(16000) / 9)
    soundfile.write(tmp_path / "said.wav", samples, 16000, subtype="FLOAT")
    arguments = ("--inpaint", tmp_path / "said.wav", "--hide", "0.25-0.5", "0.75-0.8", "--model", model)
    assert generate(*arguments, "-o", tmp_path / "filled.wav") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'filled.wav'}\n"
    filled, rate = soundfile.read(tmp_path / "filled.wav")
    assert rate == 16000 and len(filled) == 16000
    where = np.flatnonzero(np.abs(filled - samples) > 1e-3)
    assert where.min() >= 4000 and where.max() < 12800 and not ((where >= 8000) & (where < 12000)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inpaint", "said.wav"], "--inpaint needs --hide A-B"),
        (
            ["--inpaint", "said.wav", "--hide", "1.2", "--model", "m"],
            "'1.2' is no span; expected seconds such as 1.2-1.5",
        ),
        (["--hide", "1-2"], "--hide is for --inpaint FILE"),
        (
            ["--inpaint", "said.wav", "--hide", "1-2", "--model", "m", "--seconds", "3"],
            "--seconds is for improvising",
        ),
        (
            ["--inpaint", "said.wav", "--hide", "1-2", "--model", "none.wavasr"],
            "none.likelihood.safetensors: no such file",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate(*arguments, "-o", "out.wav") == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and not (tmp_path / "out.wav").exists()
