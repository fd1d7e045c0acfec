"""What words are worth to flashlight's search: a language model of KenLM, and hotwords."""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from wavasr.archive import Member, Source, local_file
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.wordlist import MOST_LABELS, WordList, encoded, read_out
from wavasr.errors import ConfigError, TextError
from wavasr.language import kenlm
from wavasr.language.arpa import vocabulary
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.files import asset

_SAMPLED_WORDS = 4000  # of a list, for how probable a rare one is


class Phrases:
    """Hotwords as a trie of units, with the bonus that a hypothesis has earned at each node.

    A node gives a share of its phrase's bonus, which is taken back when the phrase is not finished (as in icefall's
    context graphs: Aho & Corasick 1975). Node 0 is the start.
    """

    def __init__(self, phrases: Iterable[Hotword | tuple[tuple[int, ...], float]]) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.value = [0.0]  # earned on the way to the node
        self.kept = [0.0]  # of it, what stays when the phrase breaks off
        self.fallback = [0]  # the longest end of the node's labels that begins a phrase
        ends = {}
        for labels, bonus in phrases:
            node = 0
            for position, label in enumerate(labels, 1):
                if label not in self.children[node]:
                    self.children[node][label] = len(self.children)
                    self.children.append({})
                    self.value.append(0.0)
                    self.kept.append(0.0)
                    self.fallback.append(0)
                node = self.children[node][label]
                self.value[node] = max(self.value[node], bonus * position / len(labels))
            ends[node] = bonus
        waiting = [0]
        for node in waiting:
            for label, child in self.children[node].items():
                self.kept[child] = self.value[child] if child in ends else self.kept[node]
                if node:
                    self.fallback[child] = self._reached(self.fallback[node], label)
                waiting.append(child)

    def _reached(self, node: int, label: int) -> int:
        while node and label not in self.children[node]:
            node = self.fallback[node]
        return self.children[node].get(label, 0)

    def step(self, node: int, label: int) -> tuple[int, float]:
        """The node after a label, and what the label earns."""
        earned = 0.0
        while node and label not in self.children[node]:
            earned += self.kept[node] - self.value[node]
            node = self.fallback[node]
            earned += self.value[node]
        after = self.children[node].get(label, 0)
        return after, earned + (self.value[after] - self.value[node] if after else 0.0)

    def finish(self, node: int) -> float:
        """What is taken back at the end."""
        return self.kept[node] - self.value[node]


class Hotword(NamedTuple):
    """A word or phrase to expect.

    Attributes:
        labels: numbers of its words; without a word list its units.
        nats: what it earns.
    """

    labels: tuple[int, ...]
    nats: float


@dataclass(frozen=True)
class LanguageScore:
    """What words (or units, without a word list) are worth: flashlight's language model, and hotwords.

    Attributes:
        lm: flashlight's model.
        is_zero: whether it is no model, only a place for one.
        hotwords: what to expect.
    """

    lm: Any
    is_zero: bool
    hotwords: tuple[Hotword, ...] = ()

    @classmethod
    def of(
        cls, config: DecodingConfig, lm: Any, units: Units, words: WordList | None, text: TextConfig
    ) -> LanguageScore:
        """What a configuration asks for, with the language model that was read for it.

        Raises:
            ConfigError: a hotword cannot be said.
        """
        return cls(lm, config.lm is None, tuple(_hotwords(config, units, words, text)))

    def balanced(self, words: WordList | None, boost: float, scale: float, word_score: float) -> LanguageScore:
        """The same with phrases that earn no more than makes the whole of them as probable as one boosted rare word.

        With the full boost for each word, phrases of common words would be everywhere.

        Args:
            words: the list of words; phrases of units stay as they are.
            boost: nats of one word.
            scale: nats of a unit of the language model's logarithms.
            word_score: nats that each word earns anyway.
        """
        if words is None or self.is_zero or not any(len(hotword.labels) > 1 for hotword in self.hotwords):
            return self
        numbers = range(0, len(words.words), max(1, len(words.words) // _SAMPLED_WORDS))
        start = self.lm.start(True)
        known = [float(self.lm.score(start, number)[1]) for number in numbers if number not in words.lm_unknown]
        rare = statistics.median(known) if known else 0.0

        def earned(hotword: Hotword) -> float:
            state, total = start, 0.0
            for number in hotword.labels:
                state, score = self.lm.score(state, number)
                total += rare if number in words.lm_unknown else float(score)
            more = len(hotword.labels) - 1
            return min(hotword.nats, max(0.0, boost + scale * (rare - total) - more * word_score))

        return replace(
            self,
            hotwords=tuple(
                hotword._replace(nats=earned(hotword)) if len(hotword.labels) > 1 else hotword
                for hotword in self.hotwords
            ),
        )


def read_language_model(path: Source | None, units: Units, words: WordList | None) -> Any:
    """KenLM for the words, or else for the units; without a path a model in which everything is free.

    Raises:
        TextError: the language model is damaged.
        ConfigError: it does not know the units.
    """
    if path and words is None:
        _check_units_known(path, units)
    return _load(path, words.names if words else units.symbols)


def _check_units_known(path: Source, units: Units) -> None:
    known = set(vocabulary(path))
    if not any(symbol in known for symbol in units.symbols[1:]):
        raise ConfigError(
            f"{path}: knows none of the model's {units.kind}, e.g. {units.symbols[1]!r}; "
            f"give a language model of {units.kind}, or --lexicon with how its words are pronounced"
        )


def _hotwords(config: DecodingConfig, units: Units, words: WordList | None, text: TextConfig) -> Iterator[Hotword]:
    numbers = {word: number for number, word in enumerate(words.words)} if words and config.hotwords else {}
    for hotword in config.hotwords:
        spoken = hotword.split() if words is None and units.is_phones else read_out(hotword, text, numbers)
        if not spoken:
            raise ConfigError(f"hotword {hotword!r} has no words; expected a word or a phrase")
        if words is None:
            labels = encoded(" ".join(spoken), units)
        elif missing := [word for word in spoken if word not in numbers]:
            raise ConfigError(f"hotword {hotword!r}: {missing[0]!r} is not in {config.lexicon}; add its pronunciation")
        else:
            labels = [numbers[word] for word in spoken]
        size = len(labels) if words is None else sum(1 + max(map(len, words.spellings[number])) for number in labels)
        if size > MOST_LABELS:
            raise ConfigError(f"hotword {hotword!r} is too long; give words or short phrases")
        yield Hotword(tuple(labels), config.hotword_boost * len(spoken))


def _load(path: Source | None, names: Sequence[str]) -> Any:
    """KenLM with our words, or a model in which everything is free."""
    from flashlight.lib.text.decoder import ZeroLM
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    if path is None:
        return ZeroLM()
    try:
        with local_file(path) as opened, _unmarked(opened) as local, _quiet():
            if not _ships(path):  # what ships was looked at when it was made, and has a checksum
                kenlm.check(local, path)
            return KenLM(str(local), Dictionary(list(names)))
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (RuntimeError, UnicodeDecodeError) as error:  # its message may quote bytes of the file
        reason = " ".join(str(error).split("Exception")[-1].split()).strip(" .")
        raise TextError(f"{path}: is no usable language model: {reason[-200:]}; build it anew") from error


@contextlib.contextmanager
def _unmarked(path: Path) -> Iterator[Path]:
    """A copy without the mark that some Windows programs put before text; the file itself where it has none."""
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="wavasr-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / "copy"
            with copy.open("wb") as target:
                shutil.copyfileobj(file, target)
            yield copy


def _ships(path: Source) -> bool:
    return isinstance(path, Member) and path.archive.parent == asset("")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without KenLM's own progress bar, which it writes to the standard error of the process."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def biased(inner: Any, hotwords: Iterable[Hotword], bonus: float, scale: float) -> Any:
    """Another flashlight model, with a bonus for each label and for hotwords, both times `scale`."""
    return _biased_class()(inner, Phrases(hotwords), bonus, scale)


@functools.cache
def _biased_class() -> Any:
    """A flashlight language model written here (the base class exists only where the library does)."""
    from flashlight.lib.text.decoder import LM

    class Biased(LM):  # type: ignore[misc]
        """Another model, with a bonus for each label and for hotwords."""

        def __init__(self, inner: Any, phrases: Phrases, bonus: float, scale: float) -> None:
            LM.__init__(self)
            self._inner = inner
            self._phrases = phrases
            self._bonus = bonus
            self._scale = scale
            self._known: dict[Any, tuple[Any, int]] = {}

        def start(self, start_with_nothing: bool) -> Any:
            from flashlight.lib.text.decoder import LMState

            state = LMState()
            self._known = {state: (self._inner.start(start_with_nothing), 0)}
            return state

        def score(self, state: Any, label: int) -> tuple[Any, float]:
            inner, node = self._known[state]
            inner_after, score = self._inner.score(inner, label)
            node_after, earned = self._phrases.step(node, label)
            after = state.child(label)
            self._known[after] = (inner_after, node_after)
            return after, score + (earned + self._bonus) * self._scale

        def finish(self, state: Any) -> tuple[Any, float]:
            inner, node = self._known[state]
            _, score = self._inner.finish(inner)
            return state, score + self._phrases.finish(node) * self._scale

    return Biased
