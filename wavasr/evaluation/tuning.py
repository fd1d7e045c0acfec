"""Weights of a language model, chosen on a dev set.

recordings -> model -> log-probabilities, once -> decoded with many weights -> the fewest errors
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.config import GREEDY
from wavasr.decoding.decoder import Decoder, GreedyDecoder
from wavasr.decoding.search import LMDecoder
from wavasr.errors import TextError
from wavasr.evaluation import metrics
from wavasr.evaluation.metrics import ErrorCounts
from wavasr.evaluation.scoring import Scale
from wavasr.language.weights import Weights
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.stretches import joined
from wavasr.recognition.transcribe import decoded
from wavasr.recognition.workers import Workers

LM_WEIGHTS = (0.15, 0.3, 0.5, 0.8, 1.2, 1.6)
BLANK_PENALTIES = (0.0, 1.0, 2.0, 3.0)
_FINER = ((0.25, 1.0, 0.5), (0.1, 0.5, 0.25))  # steps: shares of the weight, nats of the word score and the penalty
_SHOWN = 12

Stretches = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Trial:
    """Weights, and the errors of the dev set with them."""

    weights: Weights
    counts: ErrorCounts


@dataclass(frozen=True)
class Tuning:
    """All trials in their order, and what greedy decoding gives."""

    trials: tuple[Trial, ...]
    greedy: ErrorCounts

    @property
    def best(self) -> Trial:
        """The trial with the fewest errors; of equals that in the middle by weight of the language model.

        Speakers that the model was trained on need little of a language model: on them many weights are equal, and the
        first of these would leave too little of it for new speakers.
        """
        fewest = min(map(_errors, self.trials))
        equals = [trial for trial in self.trials if _errors(trial) == fewest]
        logs = [math.log(trial.weights.lm_weight) for trial in equals]
        middle = (min(logs) + max(logs)) / 2
        return min(zip(equals, logs, strict=True), key=lambda found: abs(found[1] - middle))[0]


def tune(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    decoder: LMDecoder,
    *,
    progress: bool = True,
    processes: int = 0,
) -> Tuning:
    """Try a coarse grid of weights, then go from the best to better neighbours, in steps and in smaller steps.

    Args:
        model: in eval mode.
        utterances: the dev set; its speakers should be new to the model.
        decoder: whose weights are chosen.
        progress: show bars on stderr.
        processes: workers that decode, see `workers.usable_processes`; 0: none.

    Raises:
        TextError: there is no utterance, or a transcript that cannot be spelled.
        AudioError: a recording cannot be read.
    """
    if not utterances:
        raise TextError("there are no utterances to tune on; expected a manifest with at least one line")
    scale = Scale.of(model.units, model.text, words=decoder.spells_words)
    references = [scale.reference(utterance) for utterance in utterances]
    log_probs = [
        listen(model, u, decoder.config.vad)
        for u in tqdm(utterances, desc="log-probabilities", unit=" utterances", disable=not progress)
    ]

    def errors(decode: Decoder) -> ErrorCounts:
        with Workers(decode, processes if decode.is_search else 0) as workers:
            begun = [[workers.submit(values) for values in parts] for parts in log_probs]
            texts = [joined([part.result() for part in parts], model.units).text(model.units) for parts in begun]
        return ErrorCounts.total(metrics.count_all(references, [scale.symbols(text) for text in texts]))

    trials: dict[Weights, Trial] = {}
    with tqdm(desc="decode", unit=" trials", disable=not progress) as bar:
        for weights in _to_try(trials):
            trials[weights] = Trial(weights, errors(decoder.with_weights(weights)))
            bar.update()
    plain = Scale.of(model.units, model.text)
    comparable = plain.is_phones == scale.is_phones
    return Tuning(tuple(trials.values()), errors(GreedyDecoder(GREEDY)) if comparable else ErrorCounts(0, 0, 0, 0))


def listen(model: AcousticModel, utterance: Utterance, vad: bool = True) -> Stretches:
    """Log-probabilities of an utterance in the stretches that a decoder gets, (t, V) each."""
    plain = GreedyDecoder(replace(GREEDY, vad=vad))
    return decoded(model, [load_utterance(utterance, model.sample_rate)], plain, Workers(np.copy))[0]


def _errors(trial: Trial) -> int:
    return trial.counts.errors


def _to_try(trials: dict[Weights, Trial]) -> Iterator[Weights]:
    """What to try; the later ones depend on what the earlier ones gave, which the caller adds to `trials`."""
    yield from (Weights(weight, 0.0, penalty) for weight in LM_WEIGHTS for penalty in BLANK_PENALTIES)
    for share, score, penalty in _FINER:
        centre = None
        while centre != (best := min(trials.values(), key=_errors).weights):
            centre = best
            # More words and fewer blanks make up for each other, so both go together too.
            for factor, words, blanks in (
                *((1 - share, 0, 0), (1 + share, 0, 0), (1, -1, 0), (1, 1, 0)),
                *((1, 0, -1), (1, 0, 1), (1, -1, 1), (1, 1, -1)),
            ):
                near = Weights(
                    round(best.lm_weight * factor, 3),
                    best.word_score + words * score,
                    max(0.0, best.blank_penalty + blanks * penalty),
                )
                if near not in trials:
                    yield near


def table(tuning: Tuning) -> str:
    """The best trials, a row each with its error rate in per cent, and the options that repeat the first."""
    rows = ["lm-weight  word-score  blank-penalty  errors"]
    for trial in sorted(tuning.trials, key=_errors)[:_SHOWN]:
        weight, score, penalty = trial.weights
        rows.append(f"{weight:>9g}  {score:>10g}  {penalty:>13g}  {100 * trial.counts.rate:.2f} %")
    weight, score, penalty = tuning.best.weights
    rows.append(
        f"best of {len(tuning.trials)}: --lm-weight {weight:g} --word-score {score:g} --blank-penalty {penalty:g}, "
        f"{100 * tuning.best.counts.rate:.2f} %"
    )
    if tuning.greedy.reference:
        rows[-1] += f"; greedy: {100 * tuning.greedy.rate:.2f} %"
    return "\n".join(rows)


def chosen(tuning: Tuning) -> dict[str, Any]:
    """The choice as a model file carries it."""
    best = tuning.best
    return {
        **best.weights._asdict(),
        "error_rate": round(best.counts.rate, 5),
        "errors": best.counts.errors,
        "reference": best.counts.reference,
    }
