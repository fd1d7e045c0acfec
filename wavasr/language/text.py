"""From a transcript to labels and back: normalisation, and the inventory of units a CTC head spells with.

    "Don't  STOP!"  --normalise-->  "don't stop"  --Units.encode-->  [6, 16, 15, ...]  --Units.decode-->  "don't stop"

Label 0 is the CTC blank in every inventory.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wavasr.errors import ConfigError, ModelError, TextError
from wavasr.language.config import TextConfig, UnitsConfig

BLANK = "<blank>"
_KINDS = ("characters", "words", "phones", "sentencepiece")
WORD_START = "\u2581"  # SentencePiece's mark of a space
# Typographic apostrophes, and what people type for one: right and left single quotes, reversed-9 quote, modifier
# letter, full width, grave and acute accents, prime.
_APOSTROPHES = dict.fromkeys(map(ord, "\u2019\u2018\u201b\u02bc\uff07\u0060\u00b4\u2032"), "'")
_JOINERS = "\u200c\u200d"  # zero-width, but part of the spelling in Persian and in Indic scripts
_SIMPLE = re.compile("[a-z][a-z' ]*[a-z]|[a-z]")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class _CharacterMap(dict[int, str]):
    """A table for `str.translate` that decides about each code point once, by its Unicode category."""

    def __init__(self, punctuation: str) -> None:
        self._drop_punctuation = punctuation == "drop"

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character == "'" or character in _JOINERS:
            replacement = character
        elif character.isspace() or category == "Cc":
            replacement = " "
        elif category in ("Cf", "Cs"):  # byte-order marks, soft hyphens, text direction, broken surrogates
            replacement = ""
        elif category[0] in "PS" and self._drop_punctuation:
            replacement = " "
        else:
            replacement = character
        self[code] = replacement
        return replacement


@functools.lru_cache(maxsize=2)
def _character_map(punctuation: str) -> _CharacterMap:
    return _CharacterMap(punctuation)


def normalise(text: str, config: TextConfig) -> str:
    """Spell a transcript as `config` says; normalising twice changes nothing more.

    Unicode NFC; typographic apostrophes become "'"; `strip_symbols` go; digits are spelled where asked; case;
    punctuation and symbols become spaces (so "well-known" is two words), except apostrophes inside a word; invisible
    characters go; runs of white space become one space. Works for any script: what is punctuation is Unicode's word.
    """
    if config.case == "lower" and not config.strip_symbols and _is_normal(text):
        return text
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    for symbol in unicodedata.normalize("NFC", config.strip_symbols):
        text = text.replace(symbol, "")
    if config.digits == "spell":
        text = re.sub(r"\d", lambda match: f" {_DIGITS[int(match.group())]} ", text)
    if config.case != "keep":
        text = text.lower() if config.case == "lower" else text.upper()
    text = text.translate(_character_map(config.punctuation))
    words = text.split()
    if config.punctuation == "drop":
        words = re.sub("''+", " ", text).split()  # a doubled apostrophe is a quotation mark
        words = [stripped for word in words if (stripped := word.strip("'" + _JOINERS))]
    return unicodedata.normalize("NFC", " ".join(words))


def _is_normal(text: str) -> bool:
    """Whether nothing of a text would change in lower case: texts of millions of lines are often so."""
    return bool(_SIMPLE.fullmatch(text)) and not any(pair in text for pair in ("  ", " '", "' ", "''"))


@dataclass(frozen=True)
class Units:
    """An inventory of output units; immutable, comparable, and stored inside the model file.

    Attributes:
        kind: "characters", "words", "phones" or "sentencepiece".
        symbols: the written form of each label; `symbols[0]` is "<blank>". `len(units)` is the width V of the head.
        model: the serialised SentencePiece model; empty for the other kinds.
    """

    kind: str
    symbols: tuple[str, ...]
    model: bytes = field(default=b"", repr=False)

    blank = 0

    @classmethod
    def characters(cls, texts: Iterable[str]) -> Units:
        """Every character of the (normalised) texts, the space among them, in code-point order."""
        found = sorted({character for text in texts for character in " ".join(text.split())})
        return cls("characters", (BLANK, *_not_empty(found, "characters")))

    @classmethod
    def words_of(cls, texts: Iterable[str]) -> Units:
        """Every word of the (normalised) texts, sorted: for closed vocabularies, such as digits or commands."""
        return cls("words", (BLANK, *_not_empty(sorted({word for text in texts for word in text.split()}), "words")))

    @classmethod
    def phones(cls, symbols: Iterable[str]) -> Units:
        """The given phones, sorted, each once; transcripts are phones separated by spaces."""
        found = sorted(set(symbols))
        bad = [symbol for symbol in found if symbol == BLANK or symbol.split() != [symbol]]
        if bad:
            raise TextError(f"{bad[0]!r} cannot be a phone; expected a symbol without spaces other than {BLANK}")
        return cls("phones", (BLANK, *_not_empty(found, "phones")))

    @classmethod
    def sentencepiece(cls, texts: Iterable[str], size: int) -> Units:
        """Train a unigram SentencePiece model with `size` labels (blank included) on the normalised texts.

        Source: Kudo 2018, arXiv 1804.10959. The same texts in the same order give the same units.

        Raises:
            ConfigError: the texts do not support that many pieces, or have more characters than `size`.
        """
        import sentencepiece

        lines = _not_empty([line for text in texts if (line := " ".join(text.split()))], "words")
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=written,
                vocab_size=size,
                model_type="unigram",
                character_coverage=1.0,
                normalization_rule_name="identity",
                # Label 0 is the unknown piece, which the head never needs: the CTC blank takes its place.
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                max_sentence_length=max(len(line.encode()) for line in lines) + 1,  # longer ones would be skipped
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ConfigError(_sentencepiece_remedy(size, str(error))) from error
        model = written.getvalue()
        return cls("sentencepiece", _piece_symbols(model), model)

    def __len__(self) -> int:
        return len(self.symbols)

    def __repr__(self) -> str:
        return f"Units({self.kind}, {len(self)} labels)"

    @property
    def is_phones(self) -> bool:
        """Whether the error rate of these units is a phone error rate."""
        return self.kind == "phones"

    @property
    def _spaced(self) -> bool:
        """Whether transcripts are labels separated by spaces."""
        return self.kind in ("phones", "words")

    @functools.cached_property
    def _label_of(self) -> dict[str, int]:
        return {symbol: label for label, symbol in enumerate(self.symbols) if label != self.blank}

    @functools.cached_property
    def _alphabet(self) -> frozenset[str]:
        return frozenset(character for symbol in self._label_of for character in symbol)

    @functools.cached_property
    def _processor(self) -> Any:
        return _load_sentencepiece(self.model)

    def __getstate__(self) -> tuple[str, tuple[str, ...], bytes]:
        return self.kind, self.symbols, self.model

    def __setstate__(self, state: tuple[str, tuple[str, ...], bytes]) -> None:
        for name, value in zip(("kind", "symbols", "model"), state, strict=True):
            object.__setattr__(self, name, value)

    def encode(self, text: str) -> list[int]:
        """Labels of a normalised transcript (for words and phones: of symbols separated by spaces); "" gives [].

        Raises:
            TextError: names the symbols that the inventory lacks.
        """
        parts = text.split()
        if self.kind == "sentencepiece":
            spaced = "".join(WORD_START + part for part in parts)
            unknown = set(spaced) - self._alphabet
            if unknown:
                raise TextError(self._unknown(unknown))
            return list(self._processor.encode(" ".join(parts)))
        symbols: Sequence[str] = parts if self._spaced else " ".join(parts)
        try:
            return [self._label_of[symbol] for symbol in symbols]
        except KeyError:
            raise TextError(self._unknown(set(symbols) - set(self._label_of))) from None

    def _unknown(self, symbols: set[str]) -> str:
        named = [_describe(symbol) for symbol in sorted(symbols)]
        listed = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
        what = f"{len(self) - 1} " + {"sentencepiece": "SentencePiece units"}.get(self.kind, self.kind)
        remedy = "check the phone set" if self.is_phones else "check the text normalisation (text.*)"
        return f"{listed} not in the inventory of {what}; {remedy}, or set units.out_of_inventory: drop"

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a sequence of labels; blanks (padding) are passed over. Inverse of `encode`."""
        return " ".join(word for word, _, _ in self.words(ids))

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words of a sequence of labels: (word, index of its first label, index after its last label).

        The labels of spaces belong to no word. With phones, every phone is a word of its own.
        """
        found: list[tuple[str, int, int]] = []
        open_word = False
        for index, label in enumerate(ids):
            if label == self.blank:
                continue
            symbol = self.symbols[label]
            starts = self._spaced or not open_word
            if self.kind == "sentencepiece" and symbol.startswith(WORD_START):
                starts, symbol = True, symbol[1:]
            letters = symbol.strip(" ")
            if not letters:
                open_word = False
            elif starts:
                found.append((letters, index, index + 1))
                open_word = True
            else:
                word, first, _ = found[-1]
                found[-1] = (word + letters, first, index + 1)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; the SentencePiece model as base64."""
        values: dict[str, Any] = {"kind": self.kind, "symbols": list(self.symbols)}
        if self.model:
            values["model"] = base64.b64encode(self.model).decode("ascii")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Units:
        """The inverse of `to_dict`.

        Raises:
            ModelError: the values are not those of an inventory.
        """
        kind, symbols = values.get("kind"), values.get("symbols")
        if kind not in _KINDS:
            raise ModelError(f"units.kind is {kind!r}; expected one of {', '.join(_KINDS)}")
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) and symbol for symbol in symbols):
            raise ModelError("units.symbols is not a list of symbols; the model file is damaged")
        if symbols[:1] != [BLANK] or len(symbols) < 2 or len(set(symbols)) != len(symbols):
            raise ModelError(f"units.symbols does not start with {BLANK} or repeats a unit; the model file is damaged")
        if kind == "characters" and any(len(symbol) != 1 for symbol in symbols[1:]):
            raise ModelError("units.symbols has entries longer than one character; the model file is damaged")
        if kind != "sentencepiece":
            return cls(kind, tuple(symbols))
        try:
            model = base64.b64decode(values.get("model", ""), validate=True)
            agrees = _piece_symbols(model) == tuple(symbols)
        except (binascii.Error, RuntimeError, TypeError, ValueError) as error:
            raise ModelError("units.model is not a SentencePiece model; the model file is damaged") from error
        if not agrees:
            raise ModelError("units.symbols and units.model do not agree; the model file is damaged")
        return cls(kind, tuple(symbols), model)


def build_units(texts: Iterable[str], config: UnitsConfig) -> Units:
    """The inventory that `config` asks for, collected from (or trained on) normalised training texts."""
    if config.kind == "sentencepiece":
        return Units.sentencepiece(texts, config.size)
    if config.kind == "phones":
        return Units.phones(phone for text in texts for phone in text.split())
    return Units.words_of(texts) if config.kind == "words" else Units.characters(texts)


def ctc_frames_needed(ids: Sequence[int]) -> int:
    """Frames that the shortest CTC path of these labels takes: one a label, and a blank between equal neighbours."""
    return len(ids) + sum(first == second for first, second in itertools.pairwise(ids))


def _not_empty(found: list[str], what: str) -> list[str]:
    if not found:
        raise TextError(f"the transcripts have no {what}, so there are no units to learn; check the manifest's texts")
    return found


def _describe(symbol: str) -> str:
    if len(symbol) != 1:
        return repr(symbol)
    shown = " " if symbol == WORD_START else symbol
    return f"{shown!r} (U+{ord(shown):04X} {unicodedata.name(shown, 'unnamed')})"


def _load_sentencepiece(model: bytes) -> Any:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


def _piece_symbols(model: bytes) -> tuple[str, ...]:
    processor = _load_sentencepiece(model)
    return (BLANK, *(processor.id_to_piece(label) for label in range(1, len(processor))))


def _sentencepiece_remedy(size: int, message: str) -> str:
    """SentencePiece's own message names a bound in passing; say which way `units.size` must go."""
    if bound := re.search(r"<= (\d+)", message):
        return f"units.size is {size}; this text supports at most {bound.group(1)} labels: lower units.size"
    if bound := re.search(r"(\d+) vs (\d+)", message):
        return f"units.size is {size}; the text's characters alone need {bound.group(2)}: raise units.size"
    return f"units.size is {size}; SentencePiece cannot train on this text: {' '.join(message.split())}"
