"""Text to what a voice says of it: phones in words in phrases, with pauses where punctuation asks for them.

"Hello there, Dr. Lee." -> sil HH AH L OW | DH EH R , sil D AA K T ER | L IY . sil
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_letters

import numpy as np
import numpy.typing as npt

from wavasr.errors import TextError
from wavasr.language.spoken import spoken
from wavasr.network.config import PHONE_PLACES

log = logging.getLogger("wavasr")

PAUSE = "sil"
_CLOSING = (".", "!", "?", '."', '!"', '?"', ".”", "!”", "?”")
LONGEST_PHONES = 400  # of a sentence, which its frames take memory for
LONGEST_WORDS = 60  # of a sentence: longer ones are cut at a comma, or wherever they are
ENDINGS = (",", ".", "?", "!")
_FAR = 20.0  # phones from the beginning or the end of a phrase from which on distance does not matter
_ENDING_OF = {";": ",", ":": ",", "-": ",", "(": ",", ")": ",", '"': ",", "...": "."}
# Words longer than 40 letters are cut: no word is that long, and a sentence of such would not fit into memory.
_PIECES = re.compile(r"\.\.\.|[A-Za-z][A-Za-z']{0,39}|(?<![A-Za-z])-|[^\sA-Za-z'-]")  # no pause in a-b
_FUNCTION_WORDS = frozenset(
    "a an the and or but nor so if as than that this these those of to in on at by for from with into onto up out over "
    "under is am are was were be been being do does did has have had can could will would shall should may might must "
    "i you he she it we they me him her us them my your his its our their who whom which what when where there".split()
)
_LETTERS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        "EY|B IY|S IY|D IY|IY|EH F|JH IY|EY CH|AY|JH EY|K EY|EH L|EH M|EH N|OW|P IY|K Y UW|AA R|EH S|T IY|Y UW|V IY|"
        "D AH B AH L Y UW|EH K S|W AY|Z IY".split("|"),
        strict=True,
    )
)

Pronounce = Callable[[str], Sequence[str] | None]


@dataclass(frozen=True)
class Word:
    """A word and its phones.

    Attributes:
        text: in small letters.
        phones: how it is said.
        ending: the punctuation behind it, one of `ENDINGS`, or "".
    """

    text: str
    phones: tuple[str, ...]
    ending: str = ""


@dataclass(frozen=True)
class Token:
    """A phone, or a pause, and its place.

    Attributes:
        phone: its symbol; `PAUSE` for a pause.
        starts_word: whether a word begins with it.
        ends_word: whether a word ends with it.
        is_function_word: whether its word is an article, a preposition, a pronoun or the like.
        ending: how its phrase ends, one of `ENDINGS`.
        before: phones of the phrase before it.
        after: phones of the phrase after it.
    """

    phone: str
    starts_word: bool
    ends_word: bool
    is_function_word: bool
    ending: str
    before: int
    after: int

    @property
    def features(self) -> tuple[float, ...]:
        """The place as `PHONE_PLACES` numbers from 0 to 1."""
        ends = [float(self.ending == ending) for ending in ENDINGS]
        word = float(self.starts_word) - float(self.ends_word) * 0.5
        near = [min(count, _FAR) / _FAR for count in (self.before, self.after)]
        return (word, float(self.is_function_word), *near, *ends)


def sentences(text: str | Iterable[str], pronounce: Pronounce) -> Iterator[list[Word]]:
    """The words of each sentence; what is written otherwise than it is said is read out first.

    Args:
        text: English, with punctuation; or its lines, of which no more are taken than the next sentence needs.
        pronounce: a word in small letters to its phones, or None where it has no idea; then it is spelled.

    Raises:
        TextError: nothing in the text can be said.
    """
    found, shown = False, ""
    for paragraph in _paragraphs(text):
        shown = shown or paragraph.strip()[:40]
        said = _without_accents(spoken(paragraph))
        if said.isupper() and all(pronounce(word.lower()) for word in re.findall(r"[A-Z']{2,}", said)):
            said = said.lower()  # shouted: no abbreviations
        words = list(_words(said, pronounce))
        if words:
            _name_unsaid(said)
        for sentence in _cut(words):
            found = True
            yield sentence
    if not found:
        raise TextError(f"the text has nothing that can be said ({shown!r}); expected English words or numbers")


def _paragraphs(text: str | Iterable[str]) -> Iterator[str]:
    """Parts that can be said without those that follow: lines come together until one ends a sentence, or is empty."""
    if isinstance(text, str):
        yield from re.split(r"\n\s*\n", text)
        return
    lines: list[str] = []
    for line in text:
        lines.append(line)
        if line.rstrip().endswith(_CLOSING) or not line.strip():
            yield "".join(lines)
            lines = []
    yield "".join(lines)


def _name_unsaid(text: str) -> None:
    """Warn of words in other alphabets and of symbols, which are left out."""
    kept = "".join(c if not c.isascii() and unicodedata.category(c)[0] in "LNS" else " " for c in text)
    if unsaid := kept.split():
        more = f" and {len(unsaid) - 3} more" if len(unsaid) > 3 else ""
        log.warning("left out, because only English is read: %s%s", ", ".join(unsaid[:3]), more)


def _without_accents(text: str) -> str:
    """Letters without accents, as the lexicon has them."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def _words(text: str, pronounce: Pronounce) -> Iterator[Word]:
    """Words in order; punctuation becomes the ending of the word before it."""
    last: Word | None = None
    for piece in _PIECES.findall(text):
        if piece[0] in ascii_letters:
            if last is not None:
                yield last
            last = Word(piece.lower(), _phones(piece, pronounce))
        elif last is not None:
            ending = _ENDING_OF.get(piece, piece)
            if ending in ENDINGS and ENDINGS.index(ending) >= (ENDINGS.index(last.ending) if last.ending else 0):
                last = Word(last.text, last.phones, ending)
    if last is not None:
        yield last


def _phones(word: str, pronounce: Pronounce) -> tuple[str, ...]:
    """As the lexicon says; capitals that it lacks, letter by letter."""
    text = word.lower().strip("'")
    is_spelled = len(text) == 1 or (word.isupper() and len(text) <= 5)
    found = None if is_spelled and text not in ("a", "i") and not _is_known(text, word, pronounce) else pronounce(text)
    if found:
        return tuple(found)
    return tuple(phone for letter in text if letter in _LETTERS for phone in _LETTERS[letter].split())


def _is_known(text: str, word: str, pronounce: Pronounce) -> bool:
    """Whether capitals are a word that is shouted rather than an abbreviation: it has a vowel and can be looked up."""
    return len(word) > 3 and bool(set(text) & set("aeiou")) and pronounce(text) is not None


def _cut(words: Sequence[Word]) -> Iterator[list[Word]]:
    """At full stops, question and exclamation marks; sentences that go on too long at a comma, or anyway."""
    sentence: list[Word] = []
    for word in words:
        sentence.append(word)
        room = LONGEST_WORDS - len(sentence)
        is_full = room <= 0 or sum(len(one.phones) for one in sentence) >= LONGEST_PHONES
        if word.ending in ENDINGS[1:] or is_full or (word.ending and room < LONGEST_WORDS // 2):
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def tokens(words: Sequence[Word], pauses: Sequence[bool] | None = None) -> list[Token]:
    """The phones of a sentence, with a pause before, after, and behind words.

    Args:
        words: of the sentence.
        pauses: whether there is a pause behind each word; None: behind those with punctuation.
    """
    if pauses is None:
        pauses = [bool(word.ending) for word in words]
    found: list[Token] = []
    for phrase, ending in _phrases(words):
        if not found:
            found.append(_pause(ending))
        length = sum(len(words[index].phones) for index in phrase)
        before = 0
        for index in phrase:
            word = words[index]
            for place, phone in enumerate(word.phones):
                found.append(
                    Token(
                        phone=phone,
                        starts_word=place == 0,
                        ends_word=place == len(word.phones) - 1,
                        is_function_word=word.text in _FUNCTION_WORDS,
                        ending=ending,
                        before=before,
                        after=length - before - 1,
                    )
                )
                before += 1
            if pauses[index] or index == len(words) - 1:
                found.append(_pause(ending))
    return found


def _phrases(words: Sequence[Word]) -> Iterator[tuple[list[int], str]]:
    """Indices of the words up to each punctuation mark, and that mark; the last phrase ends a sentence in any case."""
    phrase: list[int] = []
    for index, word in enumerate(words):
        phrase.append(index)
        if word.ending or index == len(words) - 1:
            yield phrase, word.ending or "."
            phrase = []


def _pause(ending: str) -> Token:
    return Token(PAUSE, False, False, False, ending, 0, 0)


def arrays(found: Iterable[Token], phones: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Tokens as numbers: (P,) indices into `phones`, (P, PHONE_PLACES) places.

    Raises:
        TextError: a phone that the voice does not have.
    """
    index = {phone: number for number, phone in enumerate(phones)}
    found = list(found)
    if missing := sorted({token.phone for token in found} - set(index)):
        raise TextError(f"this voice has no phone {', '.join(missing)}; it speaks with {' '.join(phones)}")
    ids = np.array([index[token.phone] for token in found], np.int64)
    return ids, np.array([token.features for token in found], np.float32).reshape(-1, PHONE_PLACES)
