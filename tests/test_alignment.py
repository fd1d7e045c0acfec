"""Forced alignment against the enumeration of every path; word times by hand and by their invariants."""

from __future__ import annotations

import math
from itertools import groupby, pairwise, product

import pytest
import torch
from torch import Tensor

from wavasr.alignment import Word, forced_align, word_times
from wavasr.decoding import Hypothesis, greedy, prefix_beam
from wavasr.errors import TextError
from wavasr.text import Units


def lattice(frames: int, labels: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2.0 * torch.randn(frames, labels, generator=generator)).log_softmax(-1)


def best_paths(log_probs: Tensor) -> dict[tuple[int, ...], tuple[float, tuple[int, ...]]]:
    """For each label sequence its most probable path, by trying all V^T."""
    values = log_probs.tolist()
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for path in product(range(log_probs.shape[1]), repeat=len(values)):
        ids = tuple(label for label, _ in groupby(path) if label)
        score = sum(row[label] for row, label in zip(values, path, strict=True))
        best[ids] = max(best.get(ids, (-math.inf, ())), (score, path))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("frames", "labels"), [(1, 3), (5, 4), (7, 3)])
def test_every_alignment_is_the_most_probable(frames: int, labels: int, seed: int) -> None:
    log_probs = lattice(frames, labels, seed)
    for ids, (_, path) in best_paths(log_probs).items():
        runs = [(label, len(list(run))) for label, run in groupby(path)]
        ends = [sum(length for _, length in runs[: k + 1]) for k in range(len(runs))]
        expected = [(end - n, end) for (label, n), end in zip(runs, ends, strict=True) if label]
        found = forced_align(log_probs, ids)
        assert [(start, end) for start, end, _ in found] == expected
        for label, (start, end, mean) in zip(ids, found, strict=True):
            assert mean == pytest.approx(float(log_probs[start:end, label].exp().mean()), abs=1e-6)


def test_labels_that_do_not_fit_are_refused() -> None:
    log_probs = lattice(3, 3, seed=0)
    assert [span[:2] for span in forced_align(log_probs, [1, 2, 1])] == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(TextError, match="at least 4 frames and the recording has 3"):
        forced_align(log_probs, [1, 1, 2])
    with pytest.raises(TextError, match="at least 1 frames and the recording has 0"):
        forced_align(torch.empty(0, 3), [1])


def test_no_labels_no_spans() -> None:
    assert forced_align(lattice(3, 3, seed=0), []) == []
    assert forced_align(torch.empty(0, 3), []) == []


def test_an_impossible_label_still_gets_a_place() -> None:
    log_probs = lattice(6, 4, seed=1)
    log_probs[:, 3] = -math.inf
    (first, second, third) = forced_align(log_probs, [1, 3, 2])
    assert first[1] <= second[0] < second[1] <= third[0]
    assert second[2] == pytest.approx(0.0, abs=1e-6)


def test_word_times_by_hand() -> None:
    units = Units.characters(["ab c"])
    space, a, b, c = 1, 2, 3, 4
    hypothesis = Hypothesis(
        ids=(a, b, space, c, space, a),
        score=-1.0,
        spans=((2, 4), (6, 7), (8, 9), (9, 10), (30, 31), (48, 49)),
        confidences=(0.9, 0.7, 0.1, 0.5, 0.1, 1.0),
        frames=50,
    )
    words = word_times(hypothesis, units, frame_s=0.02)
    assert [word.word for word in words] == ["ab", "c", "a"]
    # "ab" is drawn out until "c" begins, "c" by 80 ms into the silence, the last one to the end of the recording.
    assert [w.start_s for w in words] == pytest.approx([0.04, 0.18, 0.96])
    assert [w.end_s for w in words] == pytest.approx([0.18, 0.28, 1.0])
    assert [w.confidence for w in words] == pytest.approx([0.8, 0.5, 1.0])


def test_phones_are_their_own_words() -> None:
    units = Units.phones(["aa", "sh"])
    hypothesis = Hypothesis((2, 1), 0.0, ((0, 3), (3, 4)), (0.5, 0.25))
    assert word_times(hypothesis, units, 0.01) == [
        Word("sh", 0.0, pytest.approx(0.03), 0.5),
        Word("aa", pytest.approx(0.03), pytest.approx(0.12), 0.25),
    ]


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_silence_has_no_words(frames: int) -> None:
    log_probs = torch.tensor([[0.0, -40.0, -40.0]]).repeat(frames, 1)
    for hypothesis in (greedy(log_probs), prefix_beam(log_probs)[0]):
        assert word_times(hypothesis, Units.characters(["a b"]), 0.02) == []


@pytest.mark.parametrize("kind", ["characters", "sentencepiece", "phones"])
def test_words_follow_each_other_within_the_recording(kind: str) -> None:
    texts = ["a quick test of the words", "that follow each other"]
    if kind == "characters":
        units = Units.characters(texts)
    else:
        units = Units.sentencepiece(texts, 22) if kind == "sentencepiece" else Units.phones("a b c d".split())
    for seed in range(8):
        log_probs = lattice(1 + 40 * seed, len(units), seed)
        for hypothesis in (greedy(log_probs), *prefix_beam(log_probs, n_best=3)):
            words = word_times(hypothesis, units, 0.02)
            assert " ".join(word.word for word in words) == units.decode(hypothesis.ids)
            for word, following in pairwise(words):
                assert word.end_s <= following.start_s
            for word in words:
                assert 0.0 <= word.start_s < word.end_s <= len(log_probs) * 0.02
                assert 0.0 <= word.confidence <= 1.0
