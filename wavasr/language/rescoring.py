"""A second language model, for the last choice among a few texts: a small Transformer over pieces of words, in NumPy.

An n-gram model sees the last three words; this one the last `REACH` pieces. It is too slow for every step of a search.
Vaswani et al. 2017 (arXiv 1706.03762), with normalisation before each part, rotary positions (arXiv 2104.09864) and
gated layers (arXiv 2002.05202). `data/lm/train_rescorer.py` trains it and writes the file: matrices in 8 bits, each row
with its scale, and the pieces, a model of sentencepiece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from wavasr.archive import Source
from wavasr.errors import ModelError

Floats = NDArray[np.float32]

REACH = 64  # pieces that training saw together
PIECES, SCALE, FREQUENCIES = "pieces", ".scale", "frequencies"
_BREAK = 1  # the piece between sentences
_LOUDNESS = 16.0  # of the pieces' vectors at the input
_LEAST = 1e-6


class Rescorer:
    """Texts to the logarithms of their probabilities. Threads may share it.

    Args:
        pieces: a model of sentencepiece, as bytes.
        weights: `embedding` (V, C), `output.norm` (C,), `frequencies` (C / heads / 2,) and, of each block,
            `N.norm` (C,), `N.query_key_value` (3C, C), `N.mix` (C, C), `N.second_norm` (C,), `N.gate_up` (2F, C),
            `N.down` (C, F).

    Raises:
        ValueError, KeyError, RuntimeError: they do not fit together.
    """

    def __init__(self, pieces: bytes, weights: Mapping[str, Floats]) -> None:
        from sentencepiece import SentencePieceProcessor

        self._pieces = SentencePieceProcessor()
        self._pieces.LoadFromSerializedProto(pieces)
        self._weights = dict(weights)
        self._blocks = sum(name.endswith(".mix") for name in weights)
        if self._pieces.GetPieceSize() > len(weights["embedding"]):
            raise ValueError("there are more pieces than vectors")
        if not np.isfinite(self(["a text"])).all():
            raise ValueError("its weights are not numbers")

    @classmethod
    def read(cls, source: Source) -> Rescorer:
        """From a file.

        Raises:
            ModelError: it cannot be read, or is none.
        """
        try:
            stored = load(source.read_bytes())
            weights = {
                name: _widened(values, stored.get(name + SCALE))
                for name, values in stored.items()
                if name != PIECES and not name.endswith(SCALE)
            }
            return cls(stored[PIECES].tobytes(), weights)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"{source}: is no second language model ({reason}); see data/lm/README.md") from error

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Nats of each text as a whole sentence, (N,)."""
        coded = [[_BREAK, *self._pieces.EncodeAsIds(text), _BREAK] for text in texts]
        ids = np.zeros((len(coded), max(map(len, coded), default=1)), np.intp)
        for row, one in enumerate(coded):
            ids[row, : len(one)] = one
        found = self._states(ids[:, :-1])
        return np.array([self._nats(states[: len(one) - 1], one[1:]) for states, one in zip(found, coded, strict=True)])

    def _nats(self, states: Floats, following: list[int]) -> float:
        """What the states (L, C) say of the pieces that follow each; one text at a time, since it is (L, V) numbers."""
        logits = states @ self._weights["embedding"].T
        highest = logits.max(axis=1)
        total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        return float((logits[np.arange(len(following)), following] - total).sum(dtype=np.float64))

    def _states(self, ids: NDArray[np.intp]) -> Floats:
        """Behind each piece: (N, L) -> (N, L, C). Padding at the end changes nothing before it."""
        weights = self._weights
        x = weights["embedding"][ids] * np.float32(_LOUDNESS)
        place = np.arange(ids.shape[1])
        angles = np.outer(place, weights[FREQUENCIES])
        turn = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        behind = place[:, None] - place
        hidden = np.where((behind >= 0) & (behind < REACH), 0, -np.inf).astype(np.float32)
        for block in range(self._blocks):
            x = x + self._attended(x, f"{block}.", turn, hidden)
            inner = _normal(x, weights[f"{block}.second_norm"]) @ weights[f"{block}.gate_up"].T
            gate, up = np.split(inner, 2, axis=2)
            x = x + (gate * (1 + np.tanh(gate / 2)) / 2 * up) @ weights[f"{block}.down"].T
        return _normal(x, weights["output.norm"])

    def _attended(self, x: Floats, block: str, turn: tuple[Floats, Floats], hidden: Floats) -> Floats:
        weights = self._weights
        texts, length, channels = x.shape
        half = len(weights[FREQUENCIES])
        parts = _normal(x, weights[block + "norm"]) @ weights[block + "query_key_value"].T
        query, key, value = parts.reshape(texts, length, 3, -1, 2 * half).transpose(2, 0, 3, 1, 4)
        scores = _turned(query, turn) @ _turned(key, turn).swapaxes(2, 3) / np.float32(np.sqrt(2 * half)) + hidden
        scores = np.exp(scores - scores.max(axis=3, keepdims=True))
        found = scores / scores.sum(axis=3, keepdims=True) @ value  # (N, heads, L, 2 * half)
        return np.asarray(found.swapaxes(1, 2).reshape(texts, length, channels) @ weights[block + "mix"].T)


def _normal(x: Floats, gain: Floats) -> Floats:
    return np.asarray(x / np.sqrt(np.square(x).mean(axis=2, keepdims=True) + _LEAST) * gain)


def _turned(x: Floats, turn: tuple[Floats, Floats]) -> Floats:
    """Rotary positions: the halves of each vector, turned by an angle for each pair."""
    first, second = np.split(x, 2, axis=3)
    cosine, sine = turn
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=3)


def _widened(values: NDArray[Any], scale: NDArray[Any] | None) -> Floats:
    return values.astype(np.float32) * (scale.astype(np.float32)[:, None] if scale is not None else np.float32(1))


def narrowed(weights: Mapping[str, Floats]) -> dict[str, NDArray[Any]]:
    """Weights as they are stored: matrices in 8 bits, each row with its scale."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in weights.items():
        if values.ndim < 2:
            found[name] = values.astype(np.float32)
            continue
        scale = np.maximum(np.abs(values).max(axis=1), 1e-12) / 127
        found[name] = np.rint(values / scale[:, None]).astype(np.int8)
        found[name + SCALE] = scale.astype(np.float32)
    return found
