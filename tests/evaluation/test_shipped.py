"""How well the shipped recognisers do on the clips that ship, so that no change makes them worse unnoticed."""

from importlib import resources
from pathlib import Path

import pytest

from wavasr.corpora.manifest import read_manifest
from wavasr.errors import ModelError
from wavasr.evaluation.evaluate import evaluate
from wavasr.network.files import FORMAT, read_header
from wavasr.recognition.models import load_acoustic_model

CEILINGS = {"default": 14}  # word errors in the 60 words of samples.jsonl


def shipped() -> list[str]:
    """The names of the recognisers among the assets."""
    found = []
    for path in sorted(Path(str(resources.files("wavasr") / "assets")).glob("*.wavasr")):
        try:
            read_header(path, FORMAT)
        except ModelError:
            continue
        found.append(path.stem)
    return found


def test_every_shipped_recogniser_has_a_ceiling() -> None:
    assert set(shipped()) == CEILINGS.keys()


@pytest.mark.parametrize("name", CEILINGS)
def test_word_errors_on_the_clips_that_ship(name: str, repository: Path) -> None:
    clips = read_manifest(repository / "data" / "samples" / "samples.jsonl")
    found = evaluate(load_acoustic_model(name), clips, progress=False)
    assert found.rate.counts.reference == 60 and not found.failures
    texts = "; ".join(f"{u.reference} -> {u.hypothesis}" for u in found.utterances if u.counts.errors)
    assert found.rate.counts.errors <= CEILINGS[name], texts
    # The confidences are worth something: calibrated, words at 0.8 are right about eight times in ten.
    reliability = found.reliability(found.calibration)
    assert reliability is not None and reliability.ece < 0.15
