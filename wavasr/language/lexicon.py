"""Pronunciation dictionaries, and the phone sets of TIMIT.

TIMIT is transcribed in 61 phones; systems are trained on 48 of them and scored on 39 (Lee and Hon 1989,
"Speaker-independent phone recognition using hidden Markov models", table II). The glottal stop `q` is deleted.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavasr.archive import Source
from wavasr.errors import CorpusError, TextError, reading
from wavasr.files import read_text

TIMIT_61: tuple[str, ...] = tuple(
    """aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl
    l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh""".split()
)

_61_TO_48: dict[str, str] = {
    **{phone: phone for phone in TIMIT_61 if phone != "q"},
    **{"ax-h": "ax", "axr": "er", "em": "m", "eng": "ng", "hv": "hh", "nx": "n", "ux": "uw"},
    **{"bcl": "vcl", "dcl": "vcl", "gcl": "vcl", "pcl": "cl", "tcl": "cl", "kcl": "cl", "h#": "sil", "pau": "sil"},
}

_48_TO_39_CHANGES: dict[str, str] = {
    **{"ao": "aa", "ax": "ah", "ix": "ih", "el": "l", "en": "n", "zh": "sh"},
    **{"cl": "sil", "vcl": "sil", "epi": "sil"},
}

TIMIT_48: tuple[str, ...] = tuple(sorted(set(_61_TO_48.values())))
TIMIT_39: tuple[str, ...] = tuple(sorted({_48_TO_39_CHANGES.get(phone, phone) for phone in TIMIT_48}))
PHONE_SETS: dict[int, tuple[str, ...]] = {61: TIMIT_61, 48: TIMIT_48, 39: TIMIT_39}

# A phone of a smaller set folds like itself, so that labels of any set can be brought down for scoring.
_TO_48: dict[str, str] = {**{phone: phone for phone in TIMIT_48}, **_61_TO_48}
_TO_39: dict[str, str] = {phone: _48_TO_39_CHANGES.get(folded, folded) for phone, folded in _TO_48.items()}
_FOLDINGS: dict[int, dict[str, str]] = {61: {phone: phone for phone in TIMIT_61}, 48: _TO_48, 39: _TO_39}


def fold(phones: Sequence[str], to: int, *, merge_silence: bool = False) -> list[str]:
    """Phones of the 61 set (or of a set between) in the 48 or 39 set.

    Args:
        phones: TIMIT labels, e.g. ["h#", "sh", "ix", "q", "h#"].
        to: 61 (checked only), 48 or 39. `q` is deleted by 48 and 39.
        merge_silence: make one "sil" of each run of them, as some toolkits score; the protocol does not.

    Raises:
        TextError: a symbol that is no TIMIT phone, or an unknown set.
    """
    folded = [phone for phone in (fold_phone(phone, to) for phone in phones) if phone is not None]
    if merge_silence:
        folded = [phone for i, phone in enumerate(folded) if phone != "sil" or i == 0 or folded[i - 1] != "sil"]
    return folded


def fold_phone(phone: str, to: int) -> str | None:
    """One phone in the set of `to` phones; None if that set deletes it.

    Raises:
        TextError: a symbol that is no TIMIT phone, or an unknown set.
    """
    if to not in _FOLDINGS:
        raise TextError(f"phone set {to}: expected one of {sorted(_FOLDINGS, reverse=True)}")
    if phone == "q" and to != 61:
        return None
    if phone not in _FOLDINGS[to]:
        raise TextError(f"{phone!r} is no phone of TIMIT; expected e.g. {' '.join(TIMIT_61[:8])} ... h#")
    return _FOLDINGS[to][phone]


# "WORD(2)" is the second pronunciation of WORD.
_VARIANT = re.compile(r"^(.+)\((\d+)\)$")
_STRESSED = re.compile(r"^([A-Za-z]+)[0-2]$")


@dataclass(frozen=True, eq=False)  # `g2p.pronouncer` keeps what one teaches, by identity
class Lexicon:
    """Words and their pronunciations, each a tuple of phones, in the order of the file.

    Attributes:
        pronunciations: at least one pronunciation for every word.
    """

    pronunciations: Mapping[str, tuple[tuple[str, ...], ...]]

    @classmethod
    def read(cls, path: Source | str, *, stress: bool = False) -> Lexicon:
        """Read a dictionary in the manner of CMUdict: `WORD  P H O N E S` a line, variants as `WORD(2)`.

        Lines that begin with ";;;", ";" or "##" and what follows " #" are comments. Pronunciations between slashes
        (TIMIT's TIMITDIC.TXT) are read too.

        Args:
            path: the dictionary.
            stress: keep the digits of stressed vowels ("AH0"); they are dropped otherwise.

        Raises:
            CorpusError: "file:line: ..." for a word without phones, and for a file that is missing, empty or not
                UTF-8.
        """
        path = Path(path) if isinstance(path, str) else path
        found: dict[str, tuple[tuple[str, ...], ...]] = {}
        for number, line in enumerate(_lines(path), start=1):
            entry = line.partition(" #")[0].strip()
            if not entry or entry.startswith((";", "##")):
                continue
            word, *phones = entry.replace("/", " ").split() if entry.endswith("/") else entry.split()
            if not phones:
                raise CorpusError(f"{path}:{number}: {word[:80]!r} has no phones; expected WORD  P H O N E S")
            if word.endswith(")") and (variant := _VARIANT.match(word)):
                word = variant[1]
            spoken = tuple(phones if stress else map(_unstressed, phones))
            known = found.get(word, ())
            if spoken not in known:
                found[word] = (*known, spoken)
        if not found:
            raise CorpusError(f"{path}: no words; expected a dictionary with WORD  P H O N E S a line")
        return cls(found)

    @property
    def phones(self) -> tuple[str, ...]:
        """Every phone in use, sorted."""
        return tuple(sorted(set().union(*itertools.chain.from_iterable(self.pronunciations.values()))))

    def in_case(self, case: str) -> Lexicon:
        """The lexicon with its words in "lower" or "upper" case, as a model spells them; "keep": as it is.

        Words that then are equal have the pronunciations of all.
        """
        change = {"lower": str.lower, "upper": str.upper}.get(case)
        if change is None or all(word == change(word) for word in self.pronunciations):
            return self
        found: dict[str, tuple[tuple[str, ...], ...]] = {}
        for word, variants in self.pronunciations.items():
            found[change(word)] = tuple(dict.fromkeys((*found.get(change(word), ()), *variants)))
        return Lexicon(found)

    def __getitem__(self, word: str) -> tuple[tuple[str, ...], ...]:
        try:
            return self.pronunciations[word]
        except KeyError:
            raise TextError(f"{word!r} is not in the lexicon; add its pronunciation") from None

    def __contains__(self, word: object) -> bool:
        return word in self.pronunciations

    def __iter__(self) -> Iterator[str]:
        return iter(self.pronunciations)

    def __len__(self) -> int:
        return len(self.pronunciations)

    def missing(self, words: Iterable[str]) -> list[str]:
        """The words that are not in the lexicon, each once, in order."""
        return [word for word in dict.fromkeys(words) if word not in self.pronunciations]


def read_words(path: Source) -> list[str]:
    """The words of a list with a word a line, or of a dictionary; each once, in order.

    Raises:
        TextError: the file cannot be read, is not UTF-8, or has no words.
    """
    with reading(path, "list of words", "give a file with a word a line", TextError):
        lines = read_text(path).splitlines()
    entries = (line.split() for line in lines if not line.startswith((";", "#")))
    found = list(dict.fromkeys(re.sub(r"\(\d+\)$", "", entry[0]) for entry in entries if entry))
    if not found:
        raise TextError(f"{path}: no words; expected a list with a word a line")
    return found


@functools.cache
def _unstressed(phone: str) -> str:
    stressed = _STRESSED.match(phone)
    return stressed[1] if stressed else phone


def _lines(path: Source) -> list[str]:
    with reading(path, "lexicon", "expected a dictionary with WORD  P H O N E S a line", CorpusError):
        return read_text(path).split("\n")
