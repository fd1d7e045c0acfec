"""Notes from MIDI files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from wavasr.errors import AudioError, WavasrError

LOWEST_KEY, HIGHEST_KEY = 21, 108  # of a piano
_DRUMS = 9  # the channel whose keys are no pitches
_PEDAL = 64
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


class Note(NamedTuple):
    """A note of a piano.

    Attributes:
        start_s: when its key is struck.
        end_s: when it is let go.
        key: of MIDI: 60 is C4, 69 is A4, 440 Hz.
        velocity: how hard it is struck, above 0 to 1.
    """

    start_s: float
    end_s: float
    key: int
    velocity: float

    @property
    def hz(self) -> float:
        """Its pitch."""
        return float(440.0 * 2 ** ((self.key - 69) / 12))


def read_midi(path: str | Path) -> list[Note]:
    """The notes of a MIDI file by their beginnings; the sustain pedal holds them, drums are left out.

    Raises:
        AudioError: the file cannot be read, is no MIDI file, or holds no notes that a piano has.
        WavasrError: mido is not installed.
    """
    try:
        events = list(_opened(path))
    except OSError as error:
        if error.errno is None:
            raise AudioError(f"{path}: is no MIDI file ({error}); give one with the suffix .mid") from error
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    except (EOFError, ValueError, IndexError, KeyError, TypeError, ArithmeticError) as error:
        raise AudioError(f"{path}: is no MIDI file, or damaged ({error}); export it again") from error
    notes = sorted(_played(events))
    if not notes:
        raise AudioError(f"{path}: holds no notes; expected a melody or chords outside the drums' channel")
    for note in notes:
        if not LOWEST_KEY <= note.key <= HIGHEST_KEY:
            name = f"{_NAMES[note.key % 12]}{note.key // 12 - 1}"
            raise AudioError(f"{path}: the note {name} at {note.start_s:.2f} s is none of a piano's; transpose it")
    return notes


def _opened(path: str | Path) -> Any:
    """Mido's messages with their times in seconds."""
    try:
        import mido
        from mido.midifiles.meta import KeySignatureError
    except ImportError:
        raise WavasrError("reading notes needs mido; pip install 'wavasr[generate]'") from None
    try:
        return mido.MidiFile(path, clip=True)
    except KeySignatureError as error:
        raise ValueError(str(error)) from error


def _played(events: list[Any]) -> list[Note]:
    """Messages in turn, each with the seconds since the one before, as notes."""
    now = 0.0
    struck: dict[tuple[int, int], tuple[float, float]] = {}  # channel and key -> beginning, velocity
    held: dict[tuple[int, int], tuple[float, float]] = {}  # let go while the pedal is down
    pedals: set[int] = set()
    notes: list[Note] = []

    def end(place: tuple[int, int], beginning: tuple[float, float]) -> None:
        if now > beginning[0]:
            notes.append(Note(beginning[0], now, place[1], beginning[1]))

    for event in events:
        now += event.time
        if event.type == "control_change" and event.control == _PEDAL and event.value < 64:
            pedals.discard(event.channel)
            for place in [place for place in held if place[0] == event.channel]:
                end(place, held.pop(place))
        elif event.type == "control_change" and event.control == _PEDAL:
            pedals.add(event.channel)
        elif event.type in ("note_on", "note_off") and event.channel != _DRUMS:
            place = event.channel, event.note
            is_struck = event.type == "note_on" and event.velocity > 0
            if place in struck and not is_struck and event.channel in pedals:
                held[place] = struck.pop(place)
            elif place in struck:
                end(place, struck.pop(place))
            if is_struck:
                if place in held:
                    end(place, held.pop(place))
                struck[place] = now, event.velocity / 127
    for place, beginning in (held | struck).items():
        end(place, beginning)
    return notes
