"""The generative WaveNet: what an output may depend on, and one network computed in two ways."""

import itertools

import pytest
import torch

from wavasr.errors import ConfigError
from wavasr.network.config import GeneratorConfig
from wavasr.network.generator import Generator

SHAPES = [(2, (1, 2, 4, 8, 1, 2, 4)), (3, (1, 3, 9)), (2, (1,)), (3, (5, 1))]


def make(kernel: int = 2, dilations: tuple[int, ...] = (1, 2, 4), **options: object) -> Generator:
    torch.manual_seed(1)
    small = dict(channels=6, skip_channels=10, levels=16, hop_samples=20, condition_channels=5, speaker_channels=3)
    model = Generator(GeneratorConfig(kernel=kernel, dilations=dilations, **{**small, **options})).double()  # type: ignore[arg-type]
    for parameter in model.parameters():  # biases too
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize(("kernel", "dilations"), SHAPES)
def test_an_output_sees_the_receptive_field_and_nothing_later(kernel: int, dilations: tuple[int, ...]) -> None:
    model = make(kernel, dilations)
    inputs = torch.randn(1, 6, 100, dtype=torch.double, requires_grad=True)
    condition = model.condition(torch.randn(1, 82, 9, dtype=torch.double))
    (gradient,) = torch.autograd.grad(model(inputs, condition)[0, :, 70].square().sum(), inputs)
    seen = gradient[0].abs().sum(0).nonzero()[:, 0]
    assert seen.max() == 70
    assert 70 - seen.min() + 1 == model.config.receptive_samples


def test_a_condition_holds_for_its_frame_and_reaches_two_frames_to_either_side() -> None:
    model = make()
    frames = torch.randn(1, 82, 12, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.condition(frames)[..., 3].square().sum(), frames)
    assert gradient[0].abs().sum(0).nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7]  # the first is frame -2
    changed = model.condition(frames).detach()
    inputs = torch.randn(1, 6, 160, dtype=torch.double)
    before = model(inputs, changed)
    changed[..., 4] += 1
    different = (model(inputs, changed) != before).any(1)[0].nonzero()[:, 0]
    assert different.min() == 80


CONFIGURATIONS = [
    dict(excitation=excitation, condition=condition, speakers=speakers)
    for excitation, condition, speakers in itertools.product(("none", "lpc"), ("none", "mel"), ((), ("a", "b")))
    if (excitation, condition) != ("lpc", "none")
]


@pytest.mark.parametrize(("kernel", "dilations"), SHAPES)
@pytest.mark.parametrize("options", CONFIGURATIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_columns_are_the_blocks(kernel: int, dilations: tuple[int, ...], options: dict[str, object]) -> None:
    model = make(kernel, dilations, **options)
    inputs = torch.randn(3, model.config.inputs, 60, dtype=torch.double)
    frames = torch.randn(3, model.config.frame_features, 7, dtype=torch.double)
    condition = model.condition(frames, torch.tensor([0, 1, 1]))
    slow = model(inputs, condition).permute(2, 0, 1).flatten(0, 1)  # (T * B, levels), time first
    fast = model.forward_columns(inputs, condition, torch.double)
    assert torch.allclose(slow.float(), fast, atol=1e-6)
    weights = [p for p in model.parameters() if p.requires_grad]
    target = torch.randn_like(fast)
    expected = torch.autograd.grad((slow * target).sum(), weights, retain_graph=True, allow_unused=True)
    found = torch.autograd.grad((fast * target).sum(), weights, allow_unused=True)
    for one, other in zip(expected, found, strict=True):
        assert (one is None) == (other is None) or (one is None and not other.any())
        assert one is None or torch.allclose(one, other, atol=1e-5)


def test_bfloat16_is_near() -> None:
    model = make(dilations=(1, 2, 4, 8)).float()
    inputs = torch.randn(1, 6, 200)
    condition = model.condition(torch.randn(1, 82, 14))
    exact, rounded = (model.forward_columns(inputs, condition, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    "options",
    [
        dict(condition="none"),
        dict(excitation="none ", condition="mel"),
        dict(dilations=()),
        dict(dilations=(0,)),
        dict(pre_emphasis=1.0),
        dict(kernel=1),
        dict(prediction_order=160),
    ],
)
def test_bad_configurations(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="generator"):
        GeneratorConfig(**options)  # type: ignore[arg-type]
