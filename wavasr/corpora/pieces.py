"""Utterances cut between phones: training from a random start takes many short steps better than few long ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from wavasr.corpora.manifest import SILENCE, AlignedPhone, Utterance
from wavasr.errors import ConfigError


def in_pieces(utterances: Sequence[Utterance], piece_s: float) -> Sequence[Utterance]:
    """Pieces of about `piece_s` seconds; an utterance whose text is not its time-aligned phones stays whole.

    Raises:
        ConfigError: none can be cut.
    """
    if not piece_s:
        return utterances
    pieces = [piece for utterance in utterances for piece in pieces_of(utterance, piece_s)]
    if len(pieces) == len(utterances) and max((u.duration_s for u in utterances), default=0) >= 2 * piece_s:
        raise ConfigError(
            f"data.piece_s is {piece_s:g}, and no training utterance has the times of its phones to be cut between; "
            "find them with `wavasr align --manifest FILE --output PHONES`, or set data.piece_s: 0"
        )
    return pieces


def pieces_of(utterance: Utterance, piece_s: float) -> list[Utterance]:
    """One utterance as pieces of equal length, but that phones stay whole; those without a text are left out."""
    phones, end_s = utterance.alignment, utterance.duration_s
    count = max(1, round(end_s / piece_s))
    spoken = utterance.text.split()
    if count == 1 or [phone.phone for phone in phones if is_spoken(phone, spoken)] != spoken:
        return [utterance]
    starts_s = [phone.start_s for phone in phones[1:]]
    cuts_s = {min(starts_s, key=lambda start: abs(start - place * end_s / count)) for place in range(1, count)}
    bounds_s = [0.0, *sorted(cuts_s), end_s]
    pieces = (_piece(utterance, number, first_s, last_s) for number, (first_s, last_s) in enumerate(pairwise(bounds_s)))
    return [piece for piece in pieces if piece.text]


def is_spoken(phone: AlignedPhone, spoken: Collection[str]) -> bool:
    """Whether the text has this phone: `wavasr align` puts silences between phones, TIMIT's texts have them too."""
    return phone.phone != SILENCE or SILENCE in spoken


def _piece(utterance: Utterance, number: int, first_s: float, end_s: float) -> Utterance:
    inside = tuple(
        AlignedPhone(phone.phone, max(0.0, phone.start_s - first_s), min(phone.end_s, end_s) - first_s)
        for phone in utterance.alignment
        if first_s <= phone.start_s < end_s
    )
    spoken = utterance.text.split()
    return replace(
        utterance,
        id=f"{utterance.id}-{number}",
        duration_s=end_s - first_s,
        offset_s=utterance.offset_s + first_s,
        text=" ".join(phone.phone for phone in inside if is_spoken(phone, spoken)),
        alignment=inside,
    )
