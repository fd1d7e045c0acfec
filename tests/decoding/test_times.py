"""Forced alignment against the enumeration of every path and against torchaudio's; word times by hand and by rules."""

from __future__ import annotations

import math
import tracemalloc
from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor

from wavasr.decoding.greedy import Hypothesis, greedy, prefix_beam
from wavasr.decoding.times import Word, forced_align, unit_times, word_times
from wavasr.decoding.trellis import BLOCK_FRAMES, Piece, log_likelihoods, most_probable_path, most_probable_path_of
from wavasr.errors import ModelError, TextError
from wavasr.language.text import Units


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


@pytest.mark.parametrize("block", [1, 2, 3, 10, 64, 1000])
def test_blocks_change_nothing(block: int) -> None:
    """torchaudio's own Viterbi is the second path; half of the labels repeat, so many skips are forbidden."""
    from torchaudio.functional import forced_align as reference

    for seed in range(10):
        frames = 45 + 5 * seed
        log_probs = lattice(frames, 4, seed)
        labels = torch.randint(1, 4, (30,), generator=torch.Generator().manual_seed(seed))
        while len(labels) + int((labels[1:] == labels[:-1]).sum()) > frames:
            labels = labels[:-1]
        expected = reference(log_probs[None], labels[None])[0][0].tolist()
        path = most_probable_path(log_probs.numpy(), labels.numpy(), block)
        assert [int(labels[index]) if index >= 0 else 0 for index in path] == expected


PIECES = [
    Piece(0, 5, (1, 2, 1)),
    Piece(5, 12, (3, 3, 1)),
    Piece(12, 13, (2,)),
    Piece(13, 17, ()),
    Piece(17, 22, (1, 1, 2)),
]


@pytest.mark.parametrize("seed", range(4))
def test_pieces_are_each_by_itself(seed: int) -> None:
    """Longer ones and shorter ones, with labels and without: the best path and the sum over all paths of each."""
    values = lattice(22, 4, seed).numpy()
    path = most_probable_path_of(values, PIECES)
    sums = log_likelihoods(values, PIECES)
    before = 0
    for piece, total in zip(PIECES, sums, strict=True):
        part = torch.from_numpy(values[piece.first : piece.end])
        if piece.ids:
            expected = most_probable_path(part.numpy(), np.array(piece.ids))
            np.testing.assert_array_equal(path[piece.first : piece.end], np.where(expected >= 0, expected + before, -1))
        else:
            assert (path[piece.first : piece.end] == -1).all()
        reference = torch.nn.functional.ctc_loss(
            part[:, None].double(),
            torch.tensor([piece.ids], dtype=torch.long),
            [len(part)],
            [len(piece.ids)],
            reduction="sum",
        )
        assert total == pytest.approx(-float(reference), abs=1e-6)
        before += len(piece.ids)


def test_pieces_that_cannot_be() -> None:
    values = lattice(6, 3, seed=0).numpy()
    assert log_likelihoods(values, []).tolist() == []
    found = log_likelihoods(values, [Piece(0, 3, (1, 1)), Piece(0, 2, (1, 1)), Piece(2, 6, (1, 1, 2, 2))])
    assert np.isfinite(found).tolist() == [True, False, False]


def test_no_frame_to_spare() -> None:
    log_probs = lattice(9, 3, seed=5)
    assert [span[:2] for span in forced_align(log_probs, [1, 1, 2, 2, 1, 1])] == [
        (0, 1), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9)
    ]  # fmt: skip


def test_an_hour_fits_in_memory() -> None:
    """What is measured on a small problem is the arithmetic of the docstring, and that stays small for an hour."""

    def promised(frames: int, labels: int, block: int) -> int:
        kept = math.ceil(frames / block) * 16 * (labels + 1)
        way_back = 2 * block * (min(block + 1, labels) + 1)
        return kept + way_back

    frames, labels, block = 3000, 600, 100
    log_probs = lattice(frames, 5, seed=0).numpy()
    ids = np.random.default_rng(0).integers(1, 5, labels)
    tracemalloc.start()
    most_probable_path(log_probs, ids, block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert promised(frames, labels, block) * 0.9 < peak < promised(frames, labels, block) + 150_000
    hour, characters = 3600 * 50, 50_000
    assert promised(hour, characters, BLOCK_FRAMES) < 80e6 < hour * (2 * characters + 1) / 200


def test_output_that_is_no_number_is_refused() -> None:
    with pytest.raises(ModelError, match="not a number"):
        forced_align(torch.full((4, 3), math.nan), [1, 2])


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
    # "ab" is drawn out until "c" begins, "c" by 0.2 s into the silence, the last one to the end of the recording.
    assert [w.start_s for w in words] == pytest.approx([0.04, 0.18, 0.96])
    assert [w.end_s for w in words] == pytest.approx([0.18, 0.40, 1.0])
    assert [w.confidence for w in words] == pytest.approx([0.8, 0.5, 1.0])


def test_units_share_their_words_time() -> None:
    units = Units.characters(["ab c"])
    hypothesis = Hypothesis((2, 3, 1, 4), 0.0, ((2, 4), (6, 7), (8, 9), (20, 21)), (0.9, 0.7, 0.1, 0.5), frames=50)
    found = unit_times(hypothesis, units, frame_s=0.02)
    assert [unit.word for unit in found] == ["a", "b", "c"]
    assert [unit.start_s for unit in found] == pytest.approx([0.04, 0.12, 0.40])
    assert [unit.end_s for unit in found] == pytest.approx([0.12, 0.34, 0.62])
    assert [unit.confidence for unit in found] == [0.9, 0.7, 0.5]


def test_pieces_lose_their_mark_of_a_space() -> None:
    units = Units.sentencepiece(["a quick test of the words", "that follow each other"], 22)
    ids = units.encode("a test")
    spans = tuple((3 * i, 3 * i + 1) for i in range(len(ids)))
    found = unit_times(Hypothesis(tuple(ids), 0.0, spans, (0.5,) * len(ids), 3 * len(ids)), units, 0.01)
    assert "".join(unit.word for unit in found) == "atest" and all(unit.word for unit in found)


def test_phones_are_their_own_words() -> None:
    units = Units.phones(["aa", "sh"])
    hypothesis = Hypothesis((2, 1), 0.0, ((0, 3), (3, 4)), (0.5, 0.25))
    assert word_times(hypothesis, units, 0.01) == [
        Word("sh", 0.0, pytest.approx(0.03), 0.5),
        Word("aa", pytest.approx(0.03), pytest.approx(0.24), 0.25),
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


def test_phones_begin_before_their_peaks_but_not_within_another() -> None:
    units = Units.phones(["a", "b"])
    found = Hypothesis((1, 2, 1), 0.0, ((2, 3), (6, 8), (9, 10)), (0.5, 0.5, 0.5), 100)
    times = word_times(found, units, 0.02)
    assert [word.start_s for word in times] == pytest.approx([0.0, 0.06, 0.16])  # 0.04, 0.12, 0.18 at their peaks
    assert [word.end_s for word in times] == pytest.approx([0.06, 0.16, 0.4])
    letters = Units.characters(["ab"])
    said = Hypothesis((1, 2, 1), 0.0, found.spans, found.confidences, 100)
    assert word_times(said, letters, 0.02)[0].start_s == pytest.approx(0.04)


def test_a_long_piece_among_short_ones_fits_in_memory() -> None:
    """Side by side with the short ones its way back alone would take 30 times 2 * 6,000 * 800 bytes."""
    generator = np.random.default_rng(0)
    log_probs = lattice(6600, 5, seed=0).numpy()
    cuts = [*range(0, 600, 20), 600, 6600]
    pieces = [Piece(a, b, tuple(generator.integers(1, 5, (b - a) // 8).tolist())) for a, b in pairwise(cuts)]
    tracemalloc.start()
    path = most_probable_path_of(log_probs, pieces)
    sums = log_likelihoods(log_probs, pieces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    assert path.max() == sum(len(piece.ids) for piece in pieces) - 1
    assert np.isfinite(sums).all()
