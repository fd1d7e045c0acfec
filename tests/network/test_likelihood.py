"""The generative loss must be a likelihood of samples that the network has not seen: perturbed, and by gradient.

The unit of everything here is the nat per sample; a predictor that knows nothing scores ln(levels).
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wavasr.audio.features import mu_law_encode
from wavasr.errors import ConfigError
from wavasr.network.config import AuxiliaryConfig, EncoderConfig, StageConfig
from wavasr.network.likelihood import AuxiliaryLoss, Hidden, _pieces
from wavasr.network.wavenet import Encoder

RATE = 2000
STEPPED = (
    StageConfig(channels=8, window=8, stride=4, level_frames=6, dilations=(1, 2), pool=5, pooling="energy"),
    StageConfig(channels=8, dilations=(1, 2), pool=2),
)
SAMPLEWISE = (StageConfig(channels=8, kernel=2, dilations=(1, 2, 4), pool=8), StageConfig(channels=8, dilations=(1,)))
SHAPES = {"stepped": STEPPED, "samplewise": SAMPLEWISE}
CONTEXTS = ("noncausal", "causal")
WAVENET = AuxiliaryConfig(weight=1.0, hidden_share=0.2, span_ms=20.0, predictor="wavenet")
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_context = pytest.mark.parametrize("context", CONTEXTS)


class Listener(nn.Module):
    """An encoder with the loss on it."""

    def __init__(self, shape: str, context: str, config: AuxiliaryConfig | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        encoder = EncoderConfig(preset="custom", stages=SHAPES[shape], context=context, sample_rate=RATE)  # type: ignore[arg-type]
        self.encoder = Encoder(encoder)
        self.loss = AuxiliaryLoss(encoder, config or AuxiliaryConfig(weight=1.0))
        self.double().eval()

    def hide(self, waveform: Tensor, lengths: Tensor | None = None, seed: int = 0) -> Hidden:
        return self.loss.hide(waveform, whole(waveform) if lengths is None else lengths, generator(seed))

    def logits(self, hidden: Hidden, lengths: Tensor | None = None) -> Tensor:
        """(P, stride, levels)."""
        lengths = whole(hidden.waveform) if lengths is None else lengths
        return self.loss.logits(self.encoder(hidden.waveform, lengths), hidden)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None, seed: int = 0) -> Tensor:
        hidden = self.hide(waveform, lengths, seed)
        return self.loss(self.encoder(hidden.waveform, whole(waveform) if lengths is None else lengths), hidden)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return (0.1 * torch.randn(*shape, generator=generator(seed), dtype=torch.float64)).clamp(-1, 1)


def whole(waveform: Tensor) -> Tensor:
    return torch.full((len(waveform),), waveform.shape[1])


def asked_samples(hidden: Hidden, stride: int, shape: torch.Size) -> Tensor:
    """(B, S) bool: which samples are predicted."""
    asked = torch.zeros(shape, dtype=torch.bool)
    for utterance, step in zip(hidden.utterances.tolist(), hidden.steps.tolist(), strict=True):
        asked[utterance, step * stride : (step + 1) * stride] = True
    return asked


# It cannot see its answer ---------------------------------------------------------------------------------------------


@every_shape
def test_hidden_samples_change_no_logit(shape: str) -> None:
    """Noncausal: whatever is written into the hidden spans, the scores are the same to the last bit."""
    listener = Listener(shape, "noncausal")
    waveform = noise(2, 600)
    hidden = listener.hide(waveform)
    asked = asked_samples(hidden, listener.loss.stride, waveform.shape)
    assert 0 < asked.sum() < asked.numel()
    other = torch.where(asked, noise(2, 600, seed=9), waveform)
    again = listener.hide(other)
    assert torch.equal(again.steps, hidden.steps)
    assert not torch.equal(again.classes, hidden.classes)
    assert torch.equal(listener.logits(again), listener.logits(hidden))
    # What is not hidden does matter, on both sides.
    other = torch.where(asked, waveform, -waveform)
    assert not torch.equal(listener.logits(listener.hide(other)), listener.logits(hidden))


@every_shape
def test_no_gradient_from_any_logit_to_a_hidden_sample(shape: str) -> None:
    listener = Listener(shape, "noncausal")
    waveform = noise(2, 600).requires_grad_()
    hidden = listener.hide(waveform)
    asked = asked_samples(hidden, listener.loss.stride, waveform.shape)
    listener.logits(hidden).square().sum().backward()
    assert waveform.grad is not None
    assert waveform.grad[asked].abs().sum() == 0
    assert waveform.grad[~asked].abs().sum() > 0
    assert not hidden.classes.requires_grad


@every_shape
def test_both_sides_of_a_hidden_span_are_seen(shape: str) -> None:
    listener = Listener(shape, "noncausal", AuxiliaryConfig(weight=1.0, hidden_share=0.001, span_ms=4.0))
    waveform = noise(1, 600).requires_grad_()
    hidden = next(h for h in (listener.hide(waveform, seed=s) for s in range(50)) if 50 < int(h.steps[0]) < 90)
    asked = asked_samples(hidden, listener.loss.stride, waveform.shape)[0].nonzero()
    listener.logits(hidden).square().sum().backward()
    assert waveform.grad is not None
    where = waveform.grad[0].nonzero()
    assert where.min() < asked.min()
    assert where.max() > asked.max()


@every_shape
def test_a_causal_prediction_has_no_gradient_to_its_answer_or_after(shape: str) -> None:
    listener = Listener(shape, "causal")
    stride = listener.loss.stride
    waveform = noise(1, 400).requires_grad_()
    hidden = listener.hide(waveform)
    assert torch.equal(hidden.waveform, waveform)
    logits = listener.logits(hidden)
    steps = hidden.steps.tolist()
    assert steps[0] > 0
    for place in (0, 1, len(steps) // 2, len(steps) - 1):
        (gradient,) = torch.autograd.grad(logits[place].square().sum(), waveform, retain_graph=True)
        first = steps[place] * stride
        assert gradient[0, first:].abs().sum() == 0
        assert gradient[0, first - stride : first].abs().max() > 0  # the last step before it is seen


@every_shape
def test_a_causal_prediction_ignores_its_answer_and_the_future(shape: str) -> None:
    listener = Listener(shape, "causal")
    stride = listener.loss.stride
    waveform = noise(1, 400)
    hidden = listener.hide(waveform)
    logits = listener.logits(hidden)
    for place in range(0, len(hidden.steps), 5):
        other = waveform.clone()
        other[0, int(hidden.steps[place]) * stride :] = 0.9
        changed = listener.logits(hidden._replace(waveform=other))
        assert torch.equal(changed[: place + 1], logits[: place + 1])


def test_the_gradient_test_would_see_the_old_bug() -> None:
    """A symmetric stack asked for "the next sample" sees it."""
    listener = Listener("stepped", "noncausal")
    listener.loss.causal = True
    waveform = noise(1, 400).requires_grad_()
    hidden = listener.hide(waveform)
    first = int(hidden.steps[0]) * listener.loss.stride
    (gradient,) = torch.autograd.grad(listener.logits(hidden)[0].square().sum(), waveform)
    assert gradient[0, first:].abs().sum() > 0


# What is asked --------------------------------------------------------------------------------------------------------


@every_shape
@every_context
def test_classes_are_the_mu_law_of_the_clean_samples(shape: str, context: str) -> None:
    listener = Listener(shape, context)
    waveform = 3 * noise(2, 600)
    hidden = listener.hide(waveform)
    stride = listener.loss.stride
    mu = 255
    for utterance, step, classes in zip(hidden.utterances, hidden.steps, hidden.classes, strict=True):
        x = waveform[utterance, step * stride : (step + 1) * stride].clamp(-1, 1).numpy()
        companded = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
        assert classes.tolist() == np.floor((companded + 1) / 2 * mu + 0.5).astype(int).tolist()
    assert torch.equal(hidden.classes, mu_law_encode(waveform.clamp(-1, 1)).view(2, -1, stride)[hidden[1], hidden[2]])


@every_shape
def test_hidden_samples_are_zero_and_the_others_untouched(shape: str) -> None:
    listener = Listener(shape, "noncausal")
    waveform = noise(3, 601) + 1e-3
    lengths = torch.tensor([601, 300, 57])
    hidden = listener.hide(waveform, lengths)
    asked = asked_samples(hidden, listener.loss.stride, waveform.shape)
    assert hidden.waveform.shape == waveform.shape
    assert torch.equal(hidden.waveform, waveform * ~asked)


@every_shape
@every_context
def test_only_whole_steps_inside_an_utterance_are_asked(shape: str, context: str) -> None:
    listener = Listener(shape, context, AuxiliaryConfig(weight=1.0, hidden_share=0.9, span_ms=4.0))
    lengths = torch.tensor([403, 3, 0, 41])
    hidden = listener.hide(noise(4, 500), lengths)
    assert ((hidden.steps + 1) * listener.loss.stride <= lengths[hidden.utterances]).all()
    assert hidden.classes.shape == (len(hidden.steps), listener.loss.stride)


@pytest.mark.parametrize(("share", "span_ms"), [(0.05, 20.0), (0.1, 20.0), (0.1, 4.0), (0.3, 10.0)])
def test_about_the_configured_share_is_hidden(share: float, span_ms: float) -> None:
    listener = Listener("stepped", "noncausal", AuxiliaryConfig(weight=1.0, hidden_share=share, span_ms=span_ms))
    waveform = torch.zeros(20, 10 * RATE)
    hidden = listener.hide(waveform)
    found = len(hidden.steps) * listener.loss.stride / waveform.numel()
    # Spans may overlap, so it is a little less than the sum of their lengths.
    assert 1 - math.exp(-share) - 0.02 < found < share + 0.02


def test_about_the_configured_share_is_asked_of_a_causal_encoder() -> None:
    listener = Listener("stepped", "causal", AuxiliaryConfig(weight=1.0, hidden_share=0.25))
    waveform = torch.zeros(20, 2 * RATE)
    hidden = listener.hide(waveform)
    assert len(hidden.steps) * listener.loss.stride / waveform.numel() == pytest.approx(0.25, abs=0.02)
    assert (hidden.steps > 0).all()  # nothing lies before the first


@every_shape
def test_every_utterance_hides_a_span(shape: str) -> None:
    config = AuxiliaryConfig(weight=1.0, hidden_share=1e-6, span_ms=20.0)
    listener = Listener(shape, "noncausal", config)
    stride, span = listener.loss.stride, listener.loss.span_steps
    assert span * stride == 40
    hidden = listener.hide(torch.zeros(50, 400))
    for utterance in range(50):
        steps = hidden.steps[hidden.utterances == utterance].tolist()
        assert 1 <= len(steps) <= span
        assert steps == list(range(steps[0], steps[0] + len(steps)))  # in one piece
        assert len(steps) == span or steps[-1] == 400 // stride - 1  # cut only by the utterance's end


def test_a_wavenet_is_asked_for_every_other_span() -> None:
    every = Listener("stepped", "noncausal", dataclasses.replace(WAVENET, predictor="frames"))
    other = Listener("stepped", "noncausal", WAVENET)
    waveform = noise(2, 4000)
    all_spans, asked = every.hide(waveform), other.hide(waveform)
    assert torch.equal(asked.waveform, all_spans.waveform)  # all are hidden
    piece = _pieces(all_spans.utterances, all_spans.steps, other.loss.span_steps)[0]
    assert torch.equal(asked.steps, all_spans.steps[piece % 2 == 0]) and len(asked.steps) > 0
    assert torch.equal(asked.classes, all_spans.classes[piece % 2 == 0])


@every_shape
@every_context
@pytest.mark.parametrize("lengths", [[1], [3], [4], [5, 1], [0, 900]])
def test_very_short_utterances(shape: str, context: str, lengths: list[int]) -> None:
    listener = Listener(shape, context)
    waveform = noise(len(lengths), max(lengths))
    loss = listener(waveform, torch.tensor(lengths))
    loss.backward()
    assert math.isfinite(loss.detach())


@every_context
def test_a_seed_decides_what_is_asked(context: str) -> None:
    listener = Listener("stepped", context)
    waveform = noise(3, 900)
    first, again, other = (listener.hide(waveform, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.steps.tolist() != other.steps.tolist()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    listener.hide(waveform, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())


# The loss -------------------------------------------------------------------------------------------------------------


@every_shape
@every_context
def test_the_loss_is_the_mean_cross_entropy_in_nats_per_sample(shape: str, context: str) -> None:
    listener = Listener(shape, context)
    waveform = noise(2, 500)
    hidden = listener.hide(waveform)
    with torch.no_grad():
        logits = listener.logits(hidden).numpy()
        total = 0.0
        for scores, classes in zip(logits, hidden.classes.tolist(), strict=True):
            for row, answer in zip(scores, classes, strict=True):
                total += math.log(np.exp(row).sum()) - row[answer]
        assert float(listener(waveform)) == pytest.approx(total / hidden.classes.numel(), abs=1e-5)


@every_shape
@every_context
@pytest.mark.parametrize("levels", [256, 16])
def test_a_predictor_that_knows_nothing_scores_ln_levels(shape: str, context: str, levels: int) -> None:
    listener = Listener(shape, context, AuxiliaryConfig(weight=1.0, levels=levels))
    assert listener.loss.output is not None
    nn.init.zeros_(listener.loss.output.weight)
    nn.init.zeros_(listener.loss.output.bias)
    assert float(listener(noise(2, 500)).detach()) == pytest.approx(math.log(levels), abs=1e-6)


@every_context
def test_neighbours_change_no_prediction(context: str) -> None:
    listener = Listener("stepped", context)
    waveform = noise(2, 800)
    lengths = torch.tensor([800, 333])
    hidden = listener.hide(waveform, lengths)
    mine = hidden.utterances == 1
    own = Hidden(
        hidden.waveform[1:, :333],
        torch.zeros(int(mine.sum()), dtype=torch.int64),
        hidden.steps[mine],
        hidden.classes[mine],
        hidden.clean[1:, :333],
    )
    together = listener.logits(hidden, lengths)[mine]
    assert (listener.logits(own, lengths[1:]) - together).abs().max() < 1e-9


def trained(context: str, config: AuxiliaryConfig, steps: int = 60) -> float:
    """The loss on a sine after a short training on it, in nats per sample."""
    listener = Listener("stepped", context, config).float().train()
    time_s = torch.arange(4 * RATE) / RATE
    waveform = (0.5 * torch.sin(2 * math.pi * 55.0 * time_s)).view(4, -1)
    optimizer = torch.optim.AdamW(listener.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        loss = listener(waveform, seed=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[-5:]) / 5


@every_context
def test_a_sine_is_predicted_far_better_than_by_chance(context: str) -> None:
    config = AuxiliaryConfig(weight=1.0, hidden_share=0.3, span_ms=4.0)
    assert trained(context, config) < 0.6 * math.log(256)


def test_a_span_of_a_sine_is_told_by_its_wavenet() -> None:
    assert trained("noncausal", dataclasses.replace(WAVENET, span_ms=4.0), steps=20) < 0.8 * math.log(256)


def test_noise_is_not_predicted_better_than_its_entropy() -> None:
    """The negative control: an answer that leaked would push the loss on white noise below what is possible."""
    listener = Listener("stepped", "noncausal", AuxiliaryConfig(weight=1.0, hidden_share=0.3, span_ms=4.0)).float()
    optimizer = torch.optim.AdamW(listener.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        waveform = torch.rand(4, 1000, generator=generator(step)) * 2 - 1
        loss = listener(waveform, seed=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    counts = np.bincount(mu_law_encode(torch.rand(200_000, generator=generator(99)) * 2 - 1).numpy(), minlength=256)
    share = counts[counts > 0] / counts.sum()
    entropy = -float((share * np.log(share)).sum())
    assert sum(losses[-5:]) / 5 > entropy - 0.05


@every_shape
@every_context
def test_every_weight_learns(shape: str, context: str) -> None:
    listener = Listener(shape, context).train()
    listener(noise(2, 900)).backward()
    for name, parameter in listener.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# The span's WaveNet ---------------------------------------------------------------------------------------------------


@every_shape
@every_context
def test_a_span_is_told_from_its_past_and_never_from_itself(shape: str, context: str) -> None:
    listener = Listener(shape, context, WAVENET)
    waveform, stride = noise(2, 600), listener.loss.stride
    hidden = listener.hide(waveform)
    scores = listener.logits(hidden)
    for place in (0, len(hidden.steps) // 2, len(hidden.steps) - 1):
        for sample in {0, stride - 1}:
            first = int(hidden.steps[place]) * stride + sample
            changed = hidden.clean.clone()
            changed[hidden.utterances[place], first:] = 0.9
            again = listener.logits(hidden._replace(clean=changed))
            assert torch.equal(again[place, sample], scores[place, sample])
            changed[hidden.utterances[place], max(0, first - 1) :] = 0.9
            assert first == 0 or not torch.equal(
                listener.logits(hidden._replace(clean=changed))[place, sample], scores[place, sample]
            )


@every_shape
def test_the_encoder_learns_through_the_spans_wavenet_and_sees_no_hidden_sample(shape: str) -> None:
    listener = Listener(shape, "noncausal", WAVENET)
    waveform = noise(2, 600).requires_grad_()
    hidden = listener.hide(waveform)
    asked = asked_samples(hidden, listener.loss.stride, waveform.shape)
    loss = listener.loss(listener.encoder(hidden.waveform, whole(waveform)), hidden)
    assert float(loss.detach()) == pytest.approx(math.log(256), abs=0.1)
    loss.backward()
    assert waveform.grad is not None
    assert waveform.grad[asked].abs().sum() == 0 and waveform.grad[~asked].abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in listener.encoder.parameters())


@every_shape
def test_through_a_bottleneck_what_is_seen_is_reconstructed(shape: str) -> None:
    listener = Listener(shape, "noncausal", dataclasses.replace(WAVENET, bottleneck=3))
    waveform = noise(2, 600).requires_grad_()
    hidden = listener.hide(waveform)
    assert hidden.waveform is waveform  # nothing is hidden
    features = listener.encoder(waveform, whole(waveform))
    told = listener.loss.context(features, hidden)
    assert torch.linalg.matrix_rank(told - told.mean(0), atol=1e-9) <= 3
    asked = asked_samples(hidden, listener.loss.stride, waveform.shape)
    told.square().sum().backward()
    assert waveform.grad is not None and waveform.grad[asked].abs().sum() > 0
    assert torch.equal(listener.loss.context([features[-1]], hidden), told)  # of the last frames alone


def test_a_bottleneck_takes_a_wavenet() -> None:
    with pytest.raises(ConfigError, match=r"auxiliary.bottleneck is 8 and auxiliary.predictor frames"):
        AuxiliaryConfig(bottleneck=8)


def test_pieces_are_neighbouring_steps() -> None:
    utterances = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    steps = torch.tensor([3, 4, 5, 6, 9, 10, 11, 12])
    row, place, first = _pieces(utterances, steps, 3)
    assert row.tolist() == [0, 0, 0, 1, 2, 2, 3, 3]
    assert place.tolist() == [0, 1, 2, 0, 0, 1, 0, 1]
    assert first.tolist() == [0, 3, 4, 6]


def test_spans_are_whole_steps() -> None:
    encoder = EncoderConfig(preset="custom", stages=STEPPED, sample_rate=RATE)
    config = AuxiliaryConfig(weight=1.0)
    for span_ms, steps in ((0.01, 1), (2.0, 1), (20.0, 10), (21.0, 10)):
        assert AuxiliaryLoss(encoder, dataclasses.replace(config, span_ms=span_ms)).span_steps == steps
