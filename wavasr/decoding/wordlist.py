"""The words that a decoder may output, and how they are spelled in the units of a model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from wavasr.archive import Source
from wavasr.decoding.config import DecodingConfig
from wavasr.errors import ConfigError, TextError
from wavasr.language.arpa import vocabulary
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import TIMIT_39, TIMIT_48, Lexicon, fold_phone, read_words
from wavasr.language.pronunciation import completed
from wavasr.language.spoken import spoken as as_said
from wavasr.language.text import Units, normalise

_GUESSES = 3  # pronunciations of a word that a lexicon lacks
_MOST_GUESSED = 2000  # words of a language model
MOST_LABELS = 1000  # of a word or phrase: the search's tree takes a call for each, and would end the process
log = logging.getLogger("wavasr")


@dataclass(frozen=True)
class WordList:
    """Words that may be output.

    Attributes:
        words: as they are written in transcripts.
        names: as the language model knows them.
        spellings: for each word the ways to spell it in units.
        lm_unknown: numbers of the words that the language model does not know.
    """

    words: list[str]
    names: list[str]
    spellings: list[list[tuple[int, ...]]]
    lm_unknown: frozenset[int] = frozenset()


def word_list(config: DecodingConfig, units: Units, text: TextConfig) -> WordList | None:
    """The words of the lexicon or else of the language model; None for a search over the units themselves.

    Raises:
        ConfigError: the model can spell none of the words, or lexicon and language model share none.
    """
    if config.lexicon is None and (units.kind in ("phones", "words") or config.lm is None):
        return None
    known = vocabulary(config.lm) if config.lm else []
    if units.is_phones:
        assert config.lexicon is not None
        pronounced = Lexicon.read(config.lexicon).in_case(text.case)
        wanted = pronounced.missing(_normal(known, text))[:_MOST_GUESSED] if config.only_lm_words else []
        wanted += hotword_words(config.hotwords, text, pronounced)
        spoken = pronunciations(completed(pronounced, wanted, _GUESSES), units, str(config.lexicon))
    else:
        lexicon = None if config.only_lm_words else config.lexicon
        listed = read_words(lexicon) if lexicon else known
        spoken = {word: [tuple(ids)] for word, ids in _spelled(listed, units, text, lexicon or config.lm)}
        for word in hotword_words(config.hotwords, text):
            spoken.setdefault(word, [tuple(encoded(word, units))])
    names = set(known)
    by_spelling = {} if names >= spoken.keys() else dict(zip(_normal(known, text), known, strict=True))
    named = {word: word if word in names else by_spelling.get(normalise(word, text), word) for word in spoken}
    if units.is_phones and config.only_lm_words:
        expected = set(hotword_words(config.hotwords, text, spoken))
        named = {word: name for word, name in named.items() if name in names or word in expected}
        if not named:
            raise ConfigError(f"{config.lm} and {config.lexicon} share no word; name a lexicon of the model's words")
        if lacking := names.difference(named.values()):
            log.info(
                "%s: %d of its %d words are not in %s and cannot be recognised, e.g. %r",
                *(config.lm, len(lacking), len(names), config.lexicon, min(lacking)),
            )
    if len(set(named.values())) < len(named):
        named, spoken = _united(named, spoken)
    lm_unknown = frozenset(number for number, name in enumerate(named.values()) if names and name not in names)
    return WordList(list(named), list(named.values()), [spoken[word] for word in named], lm_unknown)


def _united(
    named: Mapping[str, str], spoken: Mapping[str, list[tuple[int, ...]]]
) -> tuple[dict[str, str], dict[str, list[tuple[int, ...]]]]:
    """Words that the language model does not tell apart (boys, boys') as one, written as it has it, spelled as all."""
    together: dict[str, list[str]] = {}
    for word, name in named.items():
        together.setdefault(name, []).append(word)
    written = {name: name if name in words else words[0] for name, words in together.items()}
    spellings = {
        written[name]: list(dict.fromkeys(ids for word in words for ids in spoken[word]))
        for name, words in together.items()
    }
    return {word: name for name, word in written.items()}, spellings


def _normal(words: Sequence[str], text: TextConfig) -> Sequence[str]:
    """Each word normalised; one at a time is slow, and lists are mostly normal."""
    together = normalise(" ".join(words), text).split()
    return words if together == list(words) else [normalise(word, text) for word in words]


def _spelled(
    listed: Sequence[str], units: Units, text: TextConfig, source: Source | None
) -> Iterator[tuple[str, Sequence[int]]]:
    """The words as transcripts have them, and their labels; those that the units cannot spell are counted."""
    normal = _normal(listed, text)
    odd = []
    count = 0
    for original, word in zip(listed, normal, strict=True):
        try:
            ids = units.encode(word) if word and " " not in word else ()
        except TextError:
            ids = ()
        if 0 < len(ids) <= MOST_LABELS:
            count += 1
            yield word, ids
        else:
            odd.append(original)
    if not count:
        raise ConfigError(
            f"{source}: the model can spell none of its {len(listed)} words; was it made for another model?"
        )
    if odd:
        log.info(
            "%s: left out %d of %d words that the model cannot spell, e.g. %r", source, len(odd), len(listed), odd[0]
        )


def pronunciations(lexicon: Lexicon, units: Units, source: str) -> dict[str, list[tuple[int, ...]]]:
    """The words of a lexicon and their pronunciations in the labels of a phone model; `source` is named in messages.

    Raises:
        ConfigError: the model knows none of the phones, or a word has very many.
    """
    label_of = {symbol: label for label, symbol in enumerate(units.symbols) if label}
    size = next((len(known) for known in (TIMIT_39, TIMIT_48) if label_of.keys() <= set(known)), 0)
    found: dict[str, list[tuple[int, ...]]] = {}
    unknown: dict[str, str] = {}
    labels_of = {phone: label for phone in lexicon.phones if (label := _phone_label(phone, label_of, size))}
    for word, variants in lexicon.pronunciations.items():
        known: list[tuple[int, ...]] = []
        for phones in variants:
            if len(phones) > MOST_LABELS:
                raise ConfigError(
                    f"{source}: {word[:80]!r} has {len(phones)} phones; expected {MOST_LABELS} or fewer: correct it"
                )
            try:
                ids = tuple(map(labels_of.__getitem__, phones))
            except KeyError as error:
                unknown.setdefault(word, error.args[0])
            else:
                if ids not in known:
                    known.append(ids)
        if known:
            found[word] = known
    if not found:
        phone = next(iter(unknown.values()))
        raise ConfigError(
            f"{source}: the model knows none of its words' phones, e.g. {phone!r}; give a lexicon in its phones"
        )
    if unknown:
        word, phone = next(iter(unknown.items()))
        log.info(
            "%s: %d words have phones that the model does not know, e.g. %r in %s", source, len(unknown), phone, word
        )
    return found


def _phone_label(phone: str, label_of: dict[str, int], size: int) -> int | None:
    """The label of a dictionary's phone, in whichever case; folded where the model's phones are TIMIT's."""
    for symbol in (phone, phone.lower(), phone.upper()):
        if symbol in label_of:
            return label_of[symbol]
    if size:
        with contextlib.suppress(TextError):
            return label_of.get(fold_phone(phone.lower(), size) or "")
    return None


def hotword_words(hotwords: Iterable[str], text: TextConfig, known: Container[str] = ()) -> list[str]:
    """The words of all hotwords, as the model spells them, see `read_out`."""
    return [word for phrase in hotwords for word in read_out(phrase, text, known)]


def read_out(text: str, config: TextConfig, known: Container[str]) -> list[str]:
    """The words of a text as a model spells them; of an English one also those of its numbers and abbreviations.

    Args:
        text: as people write it.
        config: the model's spelling.
        known: a lexicon or list of words, which tells whether the language is English.
    """
    is_english = all(word in known or word.upper() in known for word in ("twenty", "doctor", "the"))
    return normalise(as_said(text) if is_english else text, config).split()


def encoded(hotword: str, units: Units) -> list[int]:
    """The labels of a hotword.

    Raises:
        ConfigError: the units cannot spell it.
    """
    try:
        return units.encode(hotword)
    except TextError as error:
        raise ConfigError(f"hotword {hotword!r}: {error}") from error
