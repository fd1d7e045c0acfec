"""Weights of a language model, chosen on a dev set.

recordings -> model -> log-probabilities, once -> decoded with many weights -> the fewest errors
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavasr import metrics
from wavasr.audio import load_utterance
from wavasr.decoding import Hypothesis, LogProbs, as_array, greedy
from wavasr.decoding_lm import LMDecoder
from wavasr.errors import TextError
from wavasr.evaluate import Scale
from wavasr.lm import weights_path
from wavasr.manifest import Utterance, atomic_text
from wavasr.metrics import ErrorCounts
from wavasr.runtime import Listener
from wavasr.transcribe import Decode, joined, recognise

LM_WEIGHTS = (0.15, 0.3, 0.5, 0.75, 1.1, 1.6)
WORD_SCORES = (-1.0, 0.0, 1.0, 2.0, 3.0)
_REFINEMENTS = ((0.2, 0.5), (0.1, 0.25))  # shares of the weight, nats of the word score

Stretches = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Trial:
    """One pair of weights, and the errors of the dev set with it."""

    lm_weight: float
    word_score: float
    counts: ErrorCounts

    @property
    def rank(self) -> tuple[int, float]:
        """Fewer errors are better; of equals the weaker language model."""
        return self.counts.errors, self.lm_weight


@dataclass(frozen=True)
class Tuning:
    """All trials in their order, and what greedy decoding gives."""

    trials: tuple[Trial, ...]
    greedy: ErrorCounts

    @property
    def best(self) -> Trial:
        """The trial with the fewest errors."""
        return min(self.trials, key=lambda trial: trial.rank)


def tune(model: Listener, utterances: Sequence[Utterance], decoder: LMDecoder, *, progress: bool = True) -> Tuning:
    """Try a grid of weights, then two finer rings around the best.

    Args:
        model: in eval mode.
        utterances: the dev set; its speakers should be new to the model.
        decoder: whose weights are chosen.
        progress: show bars on stderr.

    Raises:
        TextError: there is no utterance, or a transcript that cannot be spelled.
        AudioError: a recording cannot be read.
    """
    if not utterances:
        raise TextError("there are no utterances to tune on; expected a manifest with at least one line")
    scale = Scale.of(model.units, model.text, words=decoder.spells_words)
    references = [scale.reference(utterance) for utterance in utterances]
    heard = [listen(model, u) for u in tqdm(utterances, desc="listen", unit=" utterances", disable=not progress)]

    def errors(decode: Decode) -> ErrorCounts:
        texts = [joined([decode(values) for values in stretches]).text(model.units) for stretches in heard]
        return ErrorCounts.total(metrics.count_all(references, [scale.symbols(text) for text in texts]))

    trials: dict[tuple[float, float], Trial] = {}
    with tqdm(desc="decode", unit=" trials", disable=not progress) as bar:
        for lm_weight, word_score in _pairs(trials):
            decode = decoder.with_weights(lm_weight, word_score)
            trials[lm_weight, word_score] = Trial(lm_weight, word_score, errors(decode))
            bar.update()
    plain = Scale.of(model.units, model.text)
    comparable = plain.is_phones == scale.is_phones
    return Tuning(tuple(trials.values()), errors(greedy) if comparable else ErrorCounts(0, 0, 0, 0))


def listen(model: Listener, utterance: Utterance) -> Stretches:
    """Log-probabilities of an utterance in the stretches that a decoder gets, (t, V) each."""
    found: Stretches = []

    def keep(log_probs: LogProbs) -> Hypothesis:
        found.append(as_array(log_probs))
        return Hypothesis((), 0.0, (), ())

    recognise(model, [load_utterance(utterance, model.sample_rate)], keep)
    return found


def _pairs(trials: dict[tuple[float, float], Trial]) -> Iterator[tuple[float, float]]:
    """The pairs to try; the later ones depend on what the earlier ones gave, which the caller adds to `trials`."""
    yield from ((weight, score) for weight in LM_WEIGHTS for score in WORD_SCORES)
    for share, nats in _REFINEMENTS:
        best = min(trials.values(), key=lambda trial: trial.rank)
        for factor in (1 - share, 1.0, 1 + share):
            for step in (-nats, 0.0, nats):
                pair = round(best.lm_weight * factor, 3), best.word_score + step
                if pair not in trials:
                    yield pair


def table(tuning: Tuning) -> str:
    """The error rates in per cent: a row for each weight, a column for each word score."""
    best = tuning.best
    scores = sorted({trial.word_score for trial in tuning.trials})
    rates = {(trial.lm_weight, trial.word_score): trial.counts.rate for trial in tuning.trials}
    rows = ["lm-weight \\ word-score  " + "".join(f"{score:>8g}" for score in scores)]
    for weight in sorted({trial.lm_weight for trial in tuning.trials}):
        cells = [f"{100 * rates[weight, score]:.2f}" if (weight, score) in rates else "" for score in scores]
        rows.append(f"{weight:>23g}  " + "".join(f"{cell:>8}" for cell in cells))
    rows.append(
        f"best: --lm-weight {best.lm_weight:g} --word-score {best.word_score:g}, {100 * best.counts.rate:.2f} %"
    )
    if tuning.greedy.reference:
        rows[-1] += f"; greedy: {100 * tuning.greedy.rate:.2f} %"
    return "\n".join(rows)


def write_weights(tuning: Tuning, lm: Path, facts: dict[str, Any]) -> Path:
    """Write the choice beside the language model, where decoders look for it; returns the file."""
    best = tuning.best
    values = {
        "lm_weight": best.lm_weight,
        "word_score": best.word_score,
        "error_rate": round(best.counts.rate, 5),
        "errors": best.counts.errors,
        "reference": best.counts.reference,
        **facts,
    }
    path = weights_path(lm)
    with atomic_text(path) as stream:
        stream.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")
    return path
