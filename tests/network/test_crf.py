"""The conditional random field's denominator, against every path written out."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from wavasr.errors import ConfigError
from wavasr.network.crf import MOST_LABELS, Competitors, trigrams

LABELS = 4
TEXTS = [[1, 2, 3, 3], [2, 2, 1], [3, 1, 2], [1]]


def collapsed(path: Sequence[int]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label]


def every_path(competitors: Competitors, log_probs: Tensor) -> Tensor:
    """log of the sum over all paths of P(labels) * p(path)."""
    totals = []
    for path in itertools.product(range(LABELS), repeat=len(log_probs)):
        labels = collapsed(path)
        nats = competitors.language_nats(torch.tensor([[*labels, 0]]), torch.tensor([len(labels)]))[0]
        totals.append(sum((log_probs[t, label] for t, label in enumerate(path)), -nats))
    return torch.logsumexp(torch.stack(totals), 0)


def test_all_sequences_and_gradients_equal_every_path_of_a_ragged_batch() -> None:
    torch.manual_seed(0)
    competitors = Competitors(TEXTS, LABELS)
    frames = torch.tensor([5, 3, 1])
    log_probs = (3 * torch.randn(3, 5, LABELS)).log_softmax(dim=-1).requires_grad_(True)
    found = competitors.all_nats(log_probs, frames)
    wanted = torch.stack([every_path(competitors, log_probs[row, :count]) for row, count in enumerate(frames.tolist())])
    torch.testing.assert_close(found, wanted)
    weights = torch.tensor([1.0, -2.0, 0.5])
    gradients = [torch.autograd.grad((nats * weights).sum(), log_probs)[0] for nats in (found, wanted)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][1, 3:].any()


def test_long_unlikely_recordings_do_not_underflow() -> None:
    torch.manual_seed(0)
    competitors = Competitors(TEXTS, LABELS)
    log_probs = (20 * torch.randn(1, 3000, LABELS)).log_softmax(dim=-1).requires_grad_(True)
    nats = competitors.all_nats(log_probs, torch.tensor([3000]))
    (gradient,) = torch.autograd.grad(nats.sum(), log_probs)
    assert nats.item() < -1000
    torch.testing.assert_close(gradient.sum(dim=2), torch.ones(1, 3000))


def test_under_bfloat16_autocast_the_sums_stay_exact() -> None:
    torch.manual_seed(0)
    competitors = Competitors(TEXTS, LABELS)
    log_probs = torch.randn(1, 50, LABELS).log_softmax(dim=-1)
    exact = competitors.all_nats(log_probs, torch.tensor([50]))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(competitors.all_nats(log_probs, torch.tensor([50])), exact, rtol=0, atol=0)


def test_trigrams_are_distributions_by_absolute_discounting() -> None:
    follows, ends = trigrams(TEXTS, LABELS)
    np.testing.assert_allclose(follows.sum(axis=2) + ends, 1.0)
    assert not follows[:, :, 0].any()  # the blank follows nothing
    # By hand: 9 labels and 4 ends over 11 + 4 places; after [start, start] 1 came twice, 2 and 3 once.
    ones = np.array([0, 4, 4, 3, 4], float)
    unigram = (ones - 0.75 * (ones > 0)) / 15 + 0.75 * 4 / 15 * np.array([0, 0.25, 0.25, 0.25, 0.25])
    starts = np.array([0, 2, 1, 1, 0], float)
    bigram = np.maximum(starts - 0.75, 0) / 4 + 0.75 * 3 / 4 * unigram
    trigram = np.maximum(starts - 0.75, 0) / 4 + 0.75 * 3 / 4 * bigram
    np.testing.assert_allclose([*follows[0, 0], ends[0, 0]], trigram)


def test_language_nats_are_those_of_the_trigrams() -> None:
    follows, ends = trigrams(TEXTS, LABELS)
    wanted = -np.log(follows[0, 0, 3] * follows[0, 3, 1] * ends[3, 1])
    padded = torch.tensor([[3, 1, 0, 0], [2, 2, 1, 3]])
    found = Competitors(TEXTS, LABELS).language_nats(padded, torch.tensor([2, 4]))
    assert float(found[0]) == pytest.approx(wanted, rel=1e-5)


def test_too_many_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=f"crf_weight.*at most {MOST_LABELS}"):
        Competitors([[1, 2]], MOST_LABELS + 1)
