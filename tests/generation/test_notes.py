"""Notes as a network is told of them, and how an instrument's notes sound: NumPy is torch."""

import numpy as np
import pytest
import torch

from wavasr.audio.scores import LOWEST_KEY, Note
from wavasr.errors import AudioError
from wavasr.generation.instrument import Instrument, places_of
from wavasr.generation.notes import TAIL_S, guide, length_s, pitch_of, sounding, stretch
from wavasr.network import instrument as torch_instrument
from wavasr.network.config import GeneratorConfig

CHORD = [Note(0.1, 0.6, 69, 0.8), Note(0.3, 0.6, 73, 0.4)]


def test_the_tone_has_the_pitch_of_its_note() -> None:
    tone = guide([Note(0.0, 2.0, 69, 0.8)], 100, 160, 16000).ravel()
    power = np.abs(np.fft.rfft(tone * np.hanning(len(tone)))) ** 2
    low = np.arange(len(power)) < 600
    assert abs(int((power * low).argmax()) - 440) <= 1  # bins of 1 Hz
    assert abs(float(np.square(tone).mean()) - 1) < 0.1


def test_a_stretch_of_notes_is_a_stretch_of_their_tone() -> None:
    whole = guide(CHORD, 120, 160, 16000)
    part = guide(stretch(CHORD, 0.5, 0.3), 30, 160, 16000)
    assert np.abs(part - whole[50:80]).max() < 1e-3
    assert not stretch(CHORD, 3.0, 1.0) and not whole[:10].any() and not guide([], 5, 160, 16000).any()


@pytest.mark.parametrize(("keys", "count"), [((65,), 1), ((40,), 1), ((69,), 1), ((84,), 1), ((60, 67), 2)])
def test_the_period_is_the_shortest_that_holds_whole_periods_of_the_notes(keys: tuple[int, ...], count: int) -> None:
    notes = [Note(0.0, 0.5, key, 0.5) for key in keys]
    pitch = pitch_of(sounding(notes, 60, 0.01), 60, 16000)
    for note in notes:
        periods = pitch.lag_samples[20] * note.hz / 16000
        assert abs(periods - round(periods)) < 0.06  # partials are stretched
    assert round(pitch.lag_samples[20] * notes[0].hz / 16000) == count
    assert pitch.voicing[20] > 0.8
    silent = pitch_of(sounding([], 5, 0.01), 5, 16000)
    assert not silent.voicing.any()


def test_numpy_is_torch_and_powers_add() -> None:
    torch.manual_seed(0)
    network = torch_instrument.Instrument()
    torch.nn.init.normal_(network.output.weight, std=0.3)
    played = Instrument({name: values.numpy() for name, values in network.state_dict().items()})
    heard = sounding(CHORD, 140, 0.01)
    with torch.no_grad():
        keys, places = torch.from_numpy(heard.keys - LOWEST_KEY), torch.from_numpy(places_of(heard))
        expected = network(keys, places, torch.from_numpy(heard.frames), 140).numpy()
    found = played.log_mel(heard, 140)
    assert np.abs(found - expected).max() < 1e-4
    alone = [np.exp(played.log_mel(sounding([note], 140, 0.01), 140)) for note in CHORD]
    assert np.allclose(np.exp(found), sum(alone) - np.exp(network.floor.detach().numpy()), rtol=1e-3)
    frames = played.frames(CHORD, 140, GeneratorConfig(condition="notes"))
    assert frames.features.shape == (140, 82) and frames.guide.shape == (140, 160)


def test_pieces_have_an_end() -> None:
    assert length_s(CHORD, 10) == pytest.approx(0.6 + TAIL_S)
    with pytest.raises(AudioError, match="the notes take 1 s; expected 1 or fewer"):
        length_s(CHORD, 1)
    with pytest.raises(AudioError, match="there are no notes"):
        length_s([], 1)
