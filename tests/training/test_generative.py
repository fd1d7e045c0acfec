"""The generative loss is part of training: each recipe that trains the front end has it from the first step."""

import math
from pathlib import Path

import pytest
import torch

from wavasr.errors import ConfigError
from wavasr.language.text import Units
from wavasr.network.recognizer import Recognizer
from wavasr.training.config import FitConfig
from wavasr.training.cost import generative_share
from wavasr.training.dataset import Batch
from wavasr.training.recipe import parse
from wavasr.training.recognize import RecognitionTask

FROM_SPEECH = ("timit", "timit-sample", "librispeech", "paper", "two-heads")
ABOVE_A_FROZEN_FRONT_END = ("an4", "fsdd", "demo", "russian")


def task_of(config: FitConfig) -> RecognitionTask:
    torch.manual_seed(0)
    return RecognitionTask(Recognizer(config.encoder, Units.phones(["aa", "b"]), config.text), config, frame_phones=2)


def batch_of(seconds: float) -> Batch:
    samples = round(16000 * seconds)
    noise = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    return Batch(
        waveform=noise,
        lengths=torch.tensor([samples, samples // 2]),
        targets=torch.tensor([[1, 2], [2, 0]]),
        target_lengths=torch.tensor([2, 1]),
        ids=["a", "b"],
        places=[0, 1],
        frame_targets=torch.zeros(2, 1, dtype=torch.int64),
    )


@pytest.mark.parametrize("context", ["noncausal", "causal"])
@pytest.mark.parametrize("name", FROM_SPEECH)
def test_the_first_step_teaches_the_front_end_what_the_samples_are(name: str, context: str) -> None:
    config = parse(["--config", name, "--encoder.context", context]).config
    assert config.auxiliary.weight > 0 and config.optim.front_end_frozen_epochs == 0
    task = task_of(config)
    values = task.values(task.outputs(batch_of(0.3), torch.Generator().manual_seed(0)))
    nats = values["generative_nats_per_sample"]
    assert float(nats.detach()) == pytest.approx(math.log(256), abs=0.1)  # an untrained network knows nothing
    front_end = task.front_end()
    gradients = torch.autograd.grad(nats, front_end, allow_unused=True)
    assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0
    first = torch.autograd.grad(
        task.values(task.outputs(batch_of(0.3), torch.Generator().manual_seed(0)))["generative_nats_per_sample"],
        task.recognizer.encoder.stages[0].project.weight,  # type: ignore[union-attr]
    )[0]
    assert first.abs().sum() > 0


def test_the_sum_is_weighted() -> None:
    task = task_of(parse(["--config", "timit", "--auxiliary.weight", "0.25"]).config)
    values = task.values(task.outputs(batch_of(0.3), torch.Generator().manual_seed(0)))
    assert set(values) == {"ctc_nats_per_label", "generative_nats_per_sample", "frame_nats_per_frame"}
    expected = (
        values["ctc_nats_per_label"] + 0.25 * values["generative_nats_per_sample"] + values["frame_nats_per_frame"]
    )
    torch.testing.assert_close(task.total(values), expected)


@pytest.mark.parametrize("name", ABOVE_A_FROZEN_FRONT_END)
def test_a_recipe_above_a_frozen_front_end_says_so(name: str) -> None:
    assert parse(["--config", name]).config.auxiliary.weight == 0
    arguments = ["--config", name, "--auxiliary.weight", "0.1", "--optim.front_end_frozen_epochs", "9"]
    with pytest.raises(
        ConfigError, match=r"auxiliary.weight is 0.1, but optim.front_end_frozen_epochs 9 freezes .* all 9"
    ):
        parse([*arguments, "--trainer.max_epochs", "9"])
    assert parse([*arguments, "--trainer.max_epochs", "10"]).config.auxiliary.weight == 0.1


@pytest.mark.parametrize("name", ["timit", "paper"])
def test_the_cost_is_a_share_and_leaves_no_gradient(name: str) -> None:
    task = task_of(parse(["--config", name]).config)
    share = generative_share(task, batch_of(0.5))
    assert 0 < share < 1
    assert all(parameter.grad is None for parameter in task.parameters())


def test_the_literal_model_ships(tmp_path: Path) -> None:
    config = parse(["--config", "paper"]).config
    stages = config.encoder.stages
    assert config.encoder.context == "noncausal" and config.auxiliary.frame_weight > 0
    assert not any(stage.filter_bank for stage in stages)
    assert [(stage.stride, stage.pooling, stage.pool) for stage in stages] == [(1, "mean", 160), (1, "mean", 1)]
