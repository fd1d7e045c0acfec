"""Notes of MIDI files: times through tempo changes, the pedal, drums; and one line about what is no music."""

import re
from pathlib import Path

import mido
import pytest

from wavasr.audio.scores import Note, read_midi
from wavasr.errors import AudioError

# Format 1, 96 ticks a quarter: a track with the tempo (half a second a quarter), one with A4 for a quarter, by running
# status and a note-on of velocity 0.
BYTES = bytes.fromhex(
    "4d546864 00000006 0001 0002 0060  4d54726b 0000000b 00ff5103 07a120 00ff2f00"
    "4d54726b 0000000b 00904540 604500 00ff2f00".replace(" ", "")
)


def write(path: Path, *messages: mido.Message | mido.MetaMessage) -> Path:
    file = mido.MidiFile(ticks_per_beat=100)
    file.tracks.append(mido.MidiTrack(messages))
    file.save(path)
    return path


def message(kind: str, key: int, time: int, velocity: int = 127, channel: int = 0) -> mido.Message:
    return mido.Message(kind, note=key, time=time, velocity=velocity, channel=channel)


def test_a_file_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(BYTES)
    assert read_midi(path) == [Note(0.0, 0.5, 69, 64 / 127)]
    assert read_midi(path)[0].hz == 440


def test_tempo_changes_and_repeated_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path / "b.mid",
        mido.MetaMessage("set_tempo", tempo=1_000_000),
        message("note_on", 60, 0),
        message("note_on", 60, 100),  # struck again: the first one ends
        mido.MetaMessage("set_tempo", tempo=500_000),
        message("note_off", 60, 100),
        message("note_on", 38, 0, channel=9),  # a drum
        message("note_on", 72, 100, velocity=0),  # ends nothing
        message("note_on", 64, 0),  # never let go: it ends with the piece
        mido.MetaMessage("end_of_track", time=200),
    )
    assert read_midi(path) == [Note(0, 1, 60, 1), Note(1, 1.5, 60, 1), Note(2, 3, 64, 1)]


def test_the_pedal_holds_notes(tmp_path: Path) -> None:
    def pedal(value: int, time: int) -> mido.Message:
        return mido.Message("control_change", control=64, value=value, time=time)

    path = write(
        tmp_path / "c.mid",
        pedal(127, 0),
        message("note_on", 60, 0),
        message("note_off", 60, 100),
        message("note_on", 62, 0),
        message("note_on", 60, 100),  # held, and struck again
        message("note_off", 60, 0),
        pedal(0, 100),
        message("note_off", 62, 100),
    )
    assert read_midi(path) == [Note(0, 1, 60, 1), Note(0.5, 2, 62, 1), Note(1, 1.5, 60, 1)]


MISTAKES = [
    (b"", "is no MIDI file"),
    (b"RIFF" + bytes(60), "is no MIDI file"),
    (BYTES[:-6], "is no MIDI file, or damaged"),
    (BYTES[:22], "is no MIDI file, or damaged"),
    (BYTES.replace(b"\x90\x45\x40\x60\x45", b"\x90\x45\x00\x60\x45"), "holds no notes"),
    (BYTES.replace(b"\x45", b"\x7d"), "the note F9 at 0.00 s is none of a piano's"),
]


@pytest.mark.parametrize(("content", "told"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_are_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "d.mid"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=re.escape(told)) as caught:
        read_midi(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(AudioError, match="cannot be read"):
        read_midi(tmp_path / "gone.mid")
