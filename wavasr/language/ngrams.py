"""n-gram language models of words: estimated from text, pruned, written as ARPA files; and the words of existing ones.

    text -> words -> n-grams and counts -> modified Kneser-Ney -> entropy pruning -> lm.arpa

Everything is done on whole arrays: 16 million words took two minutes and 1.7 GB on a busy core.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import lzma
import math
import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, TextIO, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavasr.errors import ConfigError, TextError
from wavasr.files import atomic_bytes

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
MIN_ORDER, MAX_ORDER = 2, 6  # what KenLM, as it is built, can read
_SPECIAL = (UNKNOWN, BEGIN, END)
_UNKNOWN, _BEGIN, _END = range(3)
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
# How a KenLM binary begins (github.com/kpu/kenlm, lm/binary_format.cc): its version, numbers that tell the machine, and
# what it holds: at 100 whether its words are listed, at 108 how many they are.
_KENLM_BINARY = b"mmap lm http://kheafield.com/code"
_KENLM_VERSION = _KENLM_BINARY + b" format version 5\n\0"
_LOWEST_LOG10 = -99.0
WEIGHTS_SUFFIX = ".json"  # of a language model: its weights, as tuned

log = logging.getLogger("wavasr")
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """All n-grams of one length, sorted by (history, word).

    Attributes:
        history: (N,) for each n-gram the row of its first n-1 words in the order below.
        word: (N,) its last word.
        suffix: (N,) the row of its last n-1 words in the order below.
        counts: (N,) how often it occurs.
        prob: (N,) probability of the word after the history.
        backoff: (N,) what multiplies the shorter history's probabilities when this n-gram is the history.
    """

    history: Ints
    word: Ints
    suffix: Ints
    counts: Ints
    prob: Floats
    backoff: Floats

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class NgramModel:
    """A back-off model.

    Attributes:
        words: the first three are <unk>, <s>, </s>.
        orders: its n-grams by order.
        unknown: how many different words <unk> stands for, together.
    """

    words: tuple[str, ...]
    orders: tuple[Order, ...]
    unknown: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many n-grams of each order there are."""
        return tuple(len(order) for order in self.orders)


# Text -----------------------------------------------------------------------------------------------------------------


def read_sentences(paths: Iterable[Path], spell: Callable[[str], str], *, progress: bool = False) -> Iterator[str]:
    """The lines of texts (.txt, .gz, .xz) and the "text" of JSON-lines manifests, spelled, without empty ones.

    Raises:
        TextError: "file:line: ..." for bytes that are not UTF-8 and JSON lines without text; a file that is damaged.
    """
    for path in paths:
        with tqdm(desc=path.name, unit=" lines", disable=not progress, leave=False, delay=2.0) as bar:
            for number, line in enumerate(_lines(path), 1):
                if sentence := spell(_text_of(line, path, number)):
                    yield sentence
                if not number % 1000:
                    bar.update(1000)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with _opened(path) as file:
            yield from file
    except FileNotFoundError as error:
        raise TextError(f"{path}: no such file; give a text with a sentence a line, or a manifest") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise TextError(f"{path}: cannot be unpacked ({error}); it is damaged, or no {path.suffix} file") from error


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")


def _text_of(line: bytes, path: Path, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}:{number}: not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`") from error
    if ".jsonl" not in path.suffixes or not text.strip():
        return text
    try:
        spoken = json.loads(text)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise TextError(f'{path}:{number}: expected a JSON object with "text"') from error
    if not isinstance(spoken, str):
        raise TextError(f'{path}:{number}: "text" is {spoken!r}; expected a string')
    return spoken


# Estimation -----------------------------------------------------------------------------------------------------------


def estimate(sentences: Iterable[str], *, order: int = 3, words: int = 0) -> NgramModel:
    """Estimate an interpolated modified Kneser-Ney model (Chen & Goodman 1999, section 3), unpruned.

    Args:
        sentences: words separated by spaces.
        order: longest n-gram, 2 to 6.
        words: keep only this many words, the most frequent; 0 keeps all. The rest is <unk>, which has in ARPA files the
            probability of one of them.

    Raises:
        ConfigError: `order` or `words` is out of range.
        TextError: there is no word.
    """
    if not MIN_ORDER <= order <= MAX_ORDER:
        raise ConfigError(f"--order is {order}; expected {MIN_ORDER} to {MAX_ORDER}")
    if words < 0:
        raise ConfigError(f"--words is {words}; expected 1 or more, or 0 for all")
    inventory, unknown, stream = _words_of(sentences, words)
    counted = _counted(stream, len(inventory), order)
    orders: list[Order] = []
    for level, grams in enumerate(counted):
        weights = _continuations(grams, counted[level + 1], level) if level + 1 < order else grams.counts.copy()
        if level == 0:
            weights[_BEGIN] = 0  # nothing predicts it
        prob, backoff = _smoothed(grams, weights, orders[-1].prob if orders else None)
        if orders:
            orders[-1] = replace(orders[-1], backoff=backoff)
        orders.append(replace(grams, prob=prob))
    return NgramModel(inventory, tuple(orders), max(1, unknown))


def _words_of(sentences: Iterable[str], limit: int) -> tuple[tuple[str, ...], int, Ints]:
    """The inventory, most frequent first after the three special words; how many words are not in it; and the text as
    <s> word ... </s> <s> ...
    """
    known: dict[str, int] = {word: label for label, word in enumerate(_SPECIAL)}
    stream = array("i")
    for sentence in sentences:
        stream.append(_BEGIN)
        # A special word spelled out in the text is none.
        stream.extend(_UNKNOWN if word in _SPECIAL else known.setdefault(word, len(known)) for word in sentence.split())
        stream.append(_END)
    if len(known) == len(_SPECIAL):
        raise TextError("the texts have no words; expected a sentence a line")
    found = np.frombuffer(stream, np.int32).astype(np.int64)
    counts = np.bincount(found, minlength=len(known))
    names = list(known)
    ranked = sorted(range(len(_SPECIAL), len(names)), key=lambda label: (-counts[label], names[label]))
    kept = ranked[: limit or None]
    labels = np.full(len(names), _UNKNOWN)
    labels[[_BEGIN, _END]] = _BEGIN, _END
    labels[kept] = np.arange(len(_SPECIAL), len(_SPECIAL) + len(kept))
    return (*_SPECIAL, *(names[label] for label in kept)), len(ranked) - len(kept), labels[found]


def _counted(stream: Ints, vocabulary: int, order: int) -> list[Order]:
    """The n-grams of each order within sentences, with their counts; probabilities are still to come."""
    rows = stream  # of the n-gram that ends at each place of the text, -1 where there is none
    orders = [
        _order(np.zeros(vocabulary, np.int64), np.arange(vocabulary), np.zeros(vocabulary, np.int64),
               np.bincount(stream, minlength=vocabulary))
    ]  # fmt: skip
    for _ in range(1, order):
        ends = 1 + np.flatnonzero((stream[1:] != _BEGIN) & (rows[:-1] >= 0))
        keys, found, counts = np.unique(
            rows[ends - 1] * vocabulary + stream[ends], return_inverse=True, return_counts=True
        )
        suffix = np.empty(len(keys), np.int64)
        suffix[found] = rows[ends]
        rows = np.full(len(stream), -1)
        rows[ends] = found
        orders.append(_order(keys // vocabulary, keys % vocabulary, suffix, counts))
    return orders


def _order(history: Ints, word: Ints, suffix: Ints, counts: Ints) -> Order:
    nothing = np.zeros(len(word))
    return Order(history, word, suffix, counts, nothing, np.ones(len(word)))


def _continuations(grams: Order, above: Order, level: int) -> Ints:
    """How many different words stand before each n-gram; for those that begin a sentence, how often they do."""
    before = np.bincount(above.suffix, minlength=len(grams))
    return np.where(before == 0, grams.counts, before) if level else before


def _smoothed(grams: Order, weights: Ints, lower: Floats | None) -> tuple[Floats, Floats]:
    """Probabilities of one order, and the back-off weights of the order below that go with them.

    Args:
        grams: the n-grams.
        weights: (N,) counts, or those of continuations.
        lower: probabilities of the order below; None: these are single words.
    """
    discount = _discounts(weights)[np.minimum(weights, 3)]
    histories = len(lower) if lower is not None else 1
    total = np.bincount(grams.history, weights, minlength=histories)
    seen = total > 0
    left = np.divide(
        np.bincount(grams.history, discount, minlength=histories), total, out=np.ones(histories), where=seen
    )
    shorter = lower[grams.suffix] if lower is not None else np.full(len(grams), 1.0 / (len(grams) - 1))
    prob = (weights - discount) / total[grams.history] + left[grams.history] * shorter
    if lower is None:
        prob[_BEGIN] = 0.0
    return prob, left


def _discounts(counts: Ints) -> Floats:
    """What is taken from counts of 0, 1, 2, and 3 or more; texts too small to tell get fixed discounts, as in KenLM."""
    ones, twos, threes, fours = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if ones and twos and threes:
        y = ones / (ones + 2 * twos)
        found = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
        if all(0 < discount < count for count, discount in enumerate(found, 1)):
            return np.array([0.0, *found])
    return np.array([0.0, *_FALLBACK_DISCOUNTS])


# Pruning --------------------------------------------------------------------------------------------------------------


def prune(model: NgramModel, threshold: float = 0.0, ngrams: int = 0) -> NgramModel:
    """Leave out the n-grams that are worth least (Stolcke 1998, "Entropy-based pruning of backoff language models").

    An n-gram stays when leaving it out alone would raise the perplexity by `threshold` or more (relatively), or when a
    longer one that stays begins or ends with it. How often a history occurs is counted, not taken from the model, whose
    shorter n-grams are about continuations (Chelba et al. 2010). Those with <unk> go in any case.

    Args:
        model: an unpruned model of `estimate`.
        threshold: relative rise of the perplexity; 0 keeps everything.
        ngrams: at most this many n-grams of two words and more: raises the threshold as needed; 0 for any number.

    Raises:
        ConfigError: a negative value.
    """
    if threshold < 0 or ngrams < 0:
        raise ConfigError(f"--prune is {threshold:g} and --ngrams {ngrams}; expected 0 or more")
    worth = _worth(model)
    kept = _kept(model, worth, threshold)
    if ngrams and _count(kept) > ngrams:
        candidates = np.sort(np.concatenate([values[values > threshold] for values in worth[1:]]))
        low, high = 0, len(candidates)  # the threshold of `high` keeps few enough
        while low < high:
            middle = (low + high) // 2
            if _count(_kept(model, worth, float(candidates[middle]))) > ngrams:
                low = middle + 1
            else:
                high = middle
        threshold = float(candidates[low]) if low < len(candidates) else math.inf
        kept = _kept(model, worth, threshold)
        log.info("pruned at %.2e to keep at most %d n-grams of two words and more", threshold, ngrams)
    return _without(model, kept)


def _worth(model: NgramModel) -> list[Floats]:
    """For each n-gram the relative rise of the perplexity without it; -inf for those with <unk>."""
    words = max(1, int(model.orders[0].counts.sum() - model.orders[0].counts[_BEGIN]))
    found = [np.full(len(model.orders[0]), np.inf)]
    unknown = model.orders[0].word == _UNKNOWN
    for below, here in zip(model.orders, model.orders[1:], strict=False):
        lower = below.prob[here.suffix]
        free = np.maximum(1.0 - np.bincount(here.history, lower, minlength=len(below)), 1e-12)
        weight = below.backoff[here.history]
        left = free[here.history] * weight  # probability of what the history leaves to back-off
        weight_after = (left + here.prob) / (free[here.history] + lower)
        change = here.prob * (np.log(lower * weight_after) - np.log(here.prob)) + left * np.log(weight_after / weight)
        worth = np.expm1(-below.counts[here.history] / words * change)
        unknown = unknown[here.history] | (here.word == _UNKNOWN)
        found.append(np.where(unknown, -np.inf, worth))
    return found


def _kept(model: NgramModel, worth: Sequence[Floats], threshold: float) -> list[NDArray[np.bool_]]:
    kept: list[NDArray[np.bool_]] = []
    above: Order | None = None
    for here, values in zip(reversed(model.orders), reversed(worth), strict=True):
        stays = (values >= threshold) if threshold else np.isfinite(values) | (values > 0)
        if above is not None:
            stays[above.history[kept[-1]]] = True
            stays[above.suffix[kept[-1]]] = True
        kept.append(stays)
        above = here
    return kept[::-1]


def _count(kept: Sequence[NDArray[np.bool_]]) -> int:
    return sum(int(np.count_nonzero(stays)) for stays in kept[1:])


def _without(model: NgramModel, kept: Sequence[NDArray[np.bool_]]) -> NgramModel:
    """The n-grams that are kept; the histories that lost some give what is left to back-off."""
    orders = list(model.orders)
    for level in range(1, len(orders)):
        below, here, stays = orders[level - 1], orders[level], kept[level]
        rows = len(below)
        lost = np.bincount(here.history[~stays], minlength=rows) > 0
        told = np.bincount(here.history[stays], here.prob[stays], minlength=rows)
        shorter = np.bincount(here.history[stays], below.prob[here.suffix[stays]], minlength=rows)
        backoff = np.where(lost, np.maximum(1 - told, 1e-12) / np.maximum(1 - shorter, 1e-12), below.backoff)
        orders[level - 1] = replace(below, backoff=backoff)
    renumbered = np.arange(len(orders[0]))
    result = [orders[0]]
    for here, stays in zip(orders[1:], kept[1:], strict=True):
        order = Order(
            renumbered[here.history[stays]], here.word[stays], renumbered[here.suffix[stays]],
            here.counts[stays], here.prob[stays], here.backoff[stays],
        )  # fmt: skip
        if not len(order):
            break
        renumbered = np.cumsum(stays) - 1
        result.append(order)
    return replace(model, orders=tuple(result))


# ARPA files -----------------------------------------------------------------------------------------------------------


def write_arpa(model: NgramModel, path: Path, *, progress: bool = False) -> None:
    """Write an ARPA file (packed where the name ends in .gz), whole or not at all."""
    with atomic_bytes(path) as plain, _encoded(plain, path) as file:
        file.write("\\data\\\n")
        for length, size in enumerate(model.sizes, 1):
            file.write(f"ngram {length}={size}\n")
        with tqdm(total=sum(model.sizes), desc=path.name, unit=" n-grams", disable=not progress, delay=2.0) as bar:
            for length, line in _entries(model):
                file.write(line)
                bar.update(length)
        file.write("\n\\end\\\n")


@contextlib.contextmanager
def _encoded(plain: BinaryIO, path: Path) -> Iterator[TextIO]:
    """A stream of text into this one, compressed where the name ends in .gz."""
    packed = gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) if path.suffix == ".gz" else plain
    stream = io.TextIOWrapper(cast(BinaryIO, packed), encoding="utf-8", newline="\n")
    yield stream
    stream.detach()
    if packed is not plain:
        packed.close()


def _entries(model: NgramModel, chunk: int = 10_000) -> Iterator[tuple[int, str]]:
    """The n-grams as lines, so many at a time: (how many, the text)."""
    spelled = list(model.words)  # of every n-gram of the order below
    for length, order in enumerate(model.orders, 1):
        if length > 1:
            spelled = [
                f"{spelled[history]} {model.words[word]}"
                for history, word in zip(order.history.tolist(), order.word.tolist(), strict=True)
            ]
        # A lexicon may list words that are not here: each is as probable as one of those that <unk> stands for.
        one = np.where(order.word == _UNKNOWN, 1.0 / model.unknown, 1.0)
        probs, backoffs = _log10(order.prob * one), _log10(order.backoff)
        header = f"\n\\{length}-grams:\n"
        for first in range(0, len(order), chunk):
            part = slice(first, first + chunk)
            entries = zip(probs[part], spelled[part], backoffs[part], strict=True)
            lines = [
                f"{prob:.5g}\t{text}\t{backoff:.5g}\n" if backoff else f"{prob:.5g}\t{text}\n"
                for prob, text, backoff in entries
            ]
            yield len(lines), header + "".join(lines)
            header = ""


def _log10(values: Floats) -> list[float]:
    with np.errstate(divide="ignore"):
        found = np.maximum(np.log10(values), _LOWEST_LOG10)
    return [float(value) for value in np.round(found, 5)]


def vocabulary(path: Path) -> list[str]:
    """The words of an ARPA file (also .gz) or a KenLM binary, without <unk>, <s> and </s>.

    Raises:
        TextError: the file is neither, or is damaged, or is a binary made without its words.
    """
    try:
        with path.open("rb") as file:
            binary = file.read(len(_KENLM_BINARY)) == _KENLM_BINARY
        words = _words_of_binary(path) if binary else _words_of_arpa(path)
    except OSError as error:
        raise TextError(
            f"{path}: cannot be read ({error.strerror or error}); give an ARPA file or a KenLM binary"
        ) from error
    found = [word for word in words if word.lower() not in _SPECIAL]
    if not found:
        raise TextError(f"{path}: this language model has no words; build it anew, e.g. with wavasr lm build")
    return found


def _words_of_arpa(path: Path) -> Iterator[str]:
    advice = "expected an ARPA file as wavasr lm build writes it, or a KenLM binary"
    section = 0  # 1: the counts, 2: the single words
    for number, raw in enumerate(_lines(path), 1):
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise TextError(f"{path}:{number}: not UTF-8; {advice}") from error
        if not line.strip():
            continue
        if section == 0:
            if line.strip() != "\\data\\":
                raise TextError(f"{path}:{number}: begins with {line[:40]!r} instead of \\data\\; {advice}")
            section = 1
        elif section == 1:
            section = 2 if line.strip() == "\\1-grams:" else 1
        elif line.startswith("\\"):
            return
        else:
            entry = line.split()
            if len(entry) not in (2, 3) or not _is_number(entry[0]):
                raise TextError(f"{path}:{number}: {line[:40]!r} is no entry of \\1-grams; {advice}")
            yield entry[1]
    raise TextError(f"{path}: ends before its \\1-grams do; it is damaged: {advice}")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _words_of_binary(path: Path) -> list[str]:
    """KenLM appends the words, ended by zero bytes, in the order of their numbers: <unk> is the first."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[: len(_KENLM_VERSION)] != _KENLM_VERSION:
            raise TextError(f"{path}: a KenLM binary of another version, or an unfinished one; build it anew")
        if content[100:101] == b"\0":
            raise TextError(f"{path}: a KenLM binary without its words; build it anew, without build_binary's -v")
        start = content.rfind(b"\0" + UNKNOWN.encode() + b"\0")
        if start < 0:
            start = content.rfind(UNKNOWN.encode() + b"\0") - 1
        words = content[start + 1 :].split(b"\0")[:-1] if start >= 0 else []
        if not words or len(words) < int.from_bytes(content[108:116], "little"):
            raise TextError(f"{path}: this KenLM binary is cut off; copy it again, or build it anew")
    return [word.decode("utf-8", "replace") for word in words]


def weights_path(path: Path) -> Path:
    """Where `wavasr lm tune` leaves its choice for a language model."""
    return path.with_name(path.name + WEIGHTS_SUFFIX)


class Weights(NamedTuple):
    """What a decoder weighs a language model with, in the terms of `DecodingConfig`."""

    lm_weight: float
    word_score: float
    blank_penalty: float = 0.0


def tuned_weights(path: Path) -> Weights | None:
    """The weights that were tuned for a language model; None where they were not.

    Raises:
        ConfigError: the file beside the language model is damaged.
    """
    file = weights_path(path)
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = Weights(**{name: float(values[name]) for name in Weights._fields if name in values})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file}: expected JSON with lm_weight and word_score; run wavasr lm tune again") from error
    if not all(map(math.isfinite, found)) or found.lm_weight < 0:
        raise ConfigError(f"{file}: {found} cannot be used; run wavasr lm tune again")
    return found
