"""Decoders against the enumeration of every path; the pruned beam against a textbook one written on tuples."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby, product

import numpy as np
import pytest
import torch
from torch import Tensor

from wavasr.decoding.greedy import Hypothesis, best_path, greedy, prefix_beam
from wavasr.errors import ModelError


def lattice(frames: int, labels: int, seed: int, sharpness: float = 1.0) -> Tensor:
    """Random log-probabilities (T, V)."""
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(frames, labels, generator=generator)).log_softmax(-1)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(path) if label)


def every_labelling(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of each label sequence, by summing over all V^T paths."""
    values = log_probs.double().tolist()
    total: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(log_probs.shape[1]), repeat=len(values)):
        total[collapse(path)] += math.exp(sum(row[label] for row, label in zip(values, path, strict=True)))
    return {ids: math.log(probability) for ids, probability in total.items()}


def textbook_beam(log_probs: Tensor, beam: int, threshold: float) -> dict[tuple[int, ...], float]:
    """Prefix beam search on tuples: {prefix: (ends in blank, ends in label)} in plain probabilities of log-space."""
    prefixes: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for row in log_probs.double().tolist():
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (blank, label) in prefixes.items():
            either = np.logaddexp(blank, label)
            grown[prefix][0] = np.logaddexp(grown[prefix][0], either + row[0])
            for symbol in range(1, len(row)):
                longer = (*prefix, symbol)
                repeats = bool(prefix) and prefix[-1] == symbol
                if repeats:
                    grown[prefix][1] = np.logaddexp(grown[prefix][1], label + row[symbol])
                if row[symbol] >= threshold or row[symbol] == max(row) or longer in prefixes:
                    grown[longer][1] = np.logaddexp(grown[longer][1], (blank if repeats else either) + row[symbol])
        best = sorted(grown, key=lambda prefix: -np.logaddexp(*grown[prefix]))[:beam]
        prefixes = {prefix: (grown[prefix][0], grown[prefix][1]) for prefix in best if max(grown[prefix]) > -math.inf}
    return {prefix: float(np.logaddexp(*ends)) for prefix, ends in prefixes.items()}


def check_spans(hypothesis: Hypothesis, log_probs: Tensor) -> None:
    assert len(hypothesis.spans) == len(hypothesis.confidences) == len(hypothesis.ids)
    assert hypothesis.frames == len(log_probs)
    previous_end = 0
    for label, (start, end), confidence in zip(hypothesis.ids, hypothesis.spans, hypothesis.confidences, strict=True):
        assert previous_end <= start < end <= len(log_probs)
        assert confidence == pytest.approx(float(log_probs[start:end, label].exp().mean()), abs=1e-5)
        assert 0.0 <= confidence <= 1.0
        previous_end = end


def test_the_oracle_agrees_with_the_ctc_loss() -> None:
    log_probs = lattice(5, 4, seed=0)
    table = every_labelling(log_probs)
    assert sum(map(math.exp, table.values())) == pytest.approx(1.0)
    for ids in [(), (1,), (2, 2), (1, 2, 3), (3, 3, 1)]:
        target = torch.tensor([list(ids)], dtype=torch.int64)
        loss = torch.nn.functional.ctc_loss(
            log_probs[:, None], target, torch.tensor([5]), torch.tensor([len(ids)]), reduction="sum"
        )
        assert table[ids] == pytest.approx(-float(loss), abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("frames", "labels"), [(1, 3), (4, 4), (6, 3), (7, 2)])
def test_a_wide_beam_finds_every_labelling(frames: int, labels: int, seed: int) -> None:
    log_probs = lattice(frames, labels, seed, sharpness=2.0)
    expected = sorted(every_labelling(log_probs).items(), key=lambda item: -item[1])
    found = prefix_beam(log_probs, beam=5000, n_best=5000, min_log_prob=-math.inf)
    assert [hypothesis.ids for hypothesis in found] == [ids for ids, _ in expected]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    for hypothesis in found:
        check_spans(hypothesis, log_probs)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("beam", "threshold"), [(2, -math.inf), (5, -2.0), (8, -1.0), (16, -7.0)])
def test_a_narrow_beam_is_the_textbooks(beam: int, threshold: float, seed: int) -> None:
    log_probs = lattice(40, 5, seed, sharpness=1.0 + seed % 3)
    expected = sorted(textbook_beam(log_probs, beam, threshold).items(), key=lambda item: -item[1])
    found = prefix_beam(log_probs, beam, n_best=beam, min_log_prob=threshold)
    assert [hypothesis.ids for hypothesis in found] == [ids for ids, _ in expected]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([score for _, score in expected], abs=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_greedy_is_the_best_path_and_no_better_than_the_beam(seed: int) -> None:
    log_probs = lattice(6, 3, seed, sharpness=2.0)
    values = log_probs.tolist()
    best = max(product(range(3), repeat=6), key=lambda path: sum(row[k] for row, k in zip(values, path, strict=True)))
    hypothesis = greedy(log_probs)
    assert hypothesis.ids == collapse(best)
    assert hypothesis.score == pytest.approx(sum(row[k] for row, k in zip(values, best, strict=True)), abs=1e-5)
    check_spans(hypothesis, log_probs)
    long = lattice(300, 30, seed, sharpness=4.0)
    assert greedy(long).score <= prefix_beam(long)[0].score


def test_greedy_spans_and_confidences_by_hand() -> None:
    best = [(0, 0.9), (1, 0.5), (1, 0.7), (0, 0.8), (1, 0.6), (2, 0.4)]
    log_probs = torch.empty(6, 4)
    for frame, (label, probability) in enumerate(best):
        log_probs[frame] = (1 - probability) / 3
        log_probs[frame, label] = probability
    hypothesis = greedy(log_probs.log())
    assert hypothesis.ids == (1, 1, 2)
    assert hypothesis.spans == ((1, 3), (4, 5), (5, 6))
    assert hypothesis.confidences == pytest.approx((0.6, 0.6, 0.4))
    assert hypothesis.score == pytest.approx(math.log(0.9 * 0.5 * 0.7 * 0.8 * 0.6 * 0.4))
    assert best_path(log_probs.log(), hypothesis.ids) == (hypothesis.spans, pytest.approx(hypothesis.confidences))


def test_the_beam_sums_paths_that_greedy_cannot() -> None:
    # Each frame's best label is the blank (0.4), yet "1" has more paths than silence: 1 - 0.6^2 against 0.4^2.
    log_probs = torch.tensor([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25]]).log()
    assert greedy(log_probs).ids == ()
    best = prefix_beam(log_probs)[0]
    assert best.ids == (1,)
    assert best.score == pytest.approx(math.log(0.35 * 0.35 + 2 * 0.35 * 0.4), abs=1e-6)


def test_a_repeated_label_needs_a_blank_between() -> None:
    certain = torch.full((3, 2), -30.0)
    for frame, label in enumerate([1, 0, 1]):
        certain[frame, label] = 0.0
    assert prefix_beam(certain)[0].ids == (1, 1)
    assert prefix_beam(certain[[0, 2]])[0].ids == (1,)


@pytest.mark.parametrize("log_probs", [torch.empty(0, 5), torch.tensor([[0.0, -30.0, -30.0]] * 4)])
def test_nothing_recognised(log_probs: Tensor) -> None:
    expected = Hypothesis((), 0.0, (), (), len(log_probs))
    assert greedy(log_probs) == expected
    (found,) = prefix_beam(log_probs)
    assert found.ids == found.spans == found.confidences == ()
    assert found.score == pytest.approx(0.0, abs=1e-6)


def test_impossible_labels_and_reduced_precision() -> None:
    log_probs = lattice(50, 8, seed=1, sharpness=3.0)
    log_probs[:, 5] = -math.inf
    log_probs[10:20] = -math.inf
    log_probs[10:20, 3] = 0.0
    for decoded in (greedy(log_probs), *prefix_beam(log_probs, n_best=4)):
        assert 3 in decoded.ids
        assert 5 not in decoded.ids
        assert math.isfinite(decoded.score)
    sharp = lattice(50, 8, seed=2, sharpness=8.0)
    assert greedy(sharp.bfloat16()).ids == greedy(sharp).ids
    assert prefix_beam(sharp.double().requires_grad_())[0].ids == prefix_beam(sharp)[0].ids


def test_equal_input_gives_equal_output() -> None:
    flat = torch.full((12, 6), -math.log(6))  # every path ties
    assert prefix_beam(flat, n_best=16) == prefix_beam(flat.clone(), n_best=16)
    log_probs = lattice(200, 20, seed=3)
    assert prefix_beam(log_probs, n_best=3) == prefix_beam(log_probs.clone(), n_best=3)


def test_bad_arguments() -> None:
    for beam, n_best in [(0, 0), (4, 5), (4, 0)]:
        with pytest.raises(ValueError, match="1 <= n_best <= beam"):
            prefix_beam(lattice(3, 3, seed=0), beam, n_best)
    broken = lattice(3, 3, seed=0)
    broken[1, 1] = math.nan
    for decode in (greedy, prefix_beam):
        with pytest.raises(ModelError, match="not a number"):
            decode(broken)
