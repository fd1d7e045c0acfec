"""What `benchmarks.fuzz` damages: for each kind of file, good ones and how they are read."""

from __future__ import annotations

import functools
import io
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _sounds(folder: Path) -> list[bytes]:
    import av
    import numpy as np
    import soundfile

    sound = (0.3 * np.sin(np.arange(4000) / 9)).astype(np.float32)
    made = []
    for kind, code in (
        *(("WAV", code) for code in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610")),
        *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("NIST", "PCM_16")),
        *((kind, "PCM_16") for kind in ("AIFF", "AU", "CAF", "W64", "RF64")),
        *(("CAF", "ALAC_16"), ("AU", "G721_32"), ("NIST", "ULAW")),
    ):
        stream = io.BytesIO()
        soundfile.write(stream, sound, 16000, code, format=kind)
        made.append(stream.getvalue())
    for form, codec, rate in (
        *(("ipod", "aac", 16000), ("ipod", "alac", 16000), ("mov", "pcm_s16le", 16000), ("adts", "aac", 16000)),
        *(
            ("webm", "libopus", 48000),
            ("matroska", "flac", 16000),
            ("mpegts", "aac", 16000),
            ("avi", "pcm_s16le", 16000),
        ),
        *(("flv", "aac", 44100), ("wv", "wavpack", 16000), ("tta", "tta", 16000)),
        *(
            ("amr", "libopencore_amrnb", 8000),
            ("ogg", "flac", 16000),
            ("wav", "libmp3lame", 16000),
            ("voc", "pcm_u8", 8000),
        ),
    ):
        stream = io.BytesIO()
        with av.open(stream, "w", format=form) as container:
            track = container.add_stream(codec, rate=rate, layout="mono")
            resampler = av.AudioResampler(track.format, "mono", rate, track.codec_context.frame_size or 1024)
            frame = av.AudioFrame.from_ndarray(sound[None], "flt", "mono")
            frame.sample_rate = rate
            frame.pts = 0
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
        made.append(stream.getvalue())
    return [*made, made[1] * 2, made[10] * 2, b"ID3\x03\0\0\0\0\0\x10" + bytes(16) + made[10]]


def _model(folder: Path, whole: bool = False) -> Path:
    """A small untrained model, saved once, with its network in two graphs, as `default` has it; or as one graph."""
    import torch

    from wavasr.language.config import TextConfig
    from wavasr.language.text import Units
    from wavasr.network.config import EncoderConfig, StageConfig
    from wavasr.network.recognizer import Recognizer, save_model

    path = folder / ("whole.wavasr" if whole else "halves.wavasr")
    folder.mkdir(exist_ok=True)
    if not path.exists():
        torch.manual_seed(0)
        stages = (
            StageConfig(channels=4, window=32, stride=16, dilations=(1,), pool=10),
            StageConfig(channels=4, pool=2),
            *(() if whole else (StageConfig(channels=4, dilations=(1, 2)),)),
        )
        units = Units.characters(["the quick brown fox jumps over the lazy dog"])
        save_model(Recognizer(EncoderConfig(stages=stages, init="random"), units, TextConfig()), path)
    return path


def _command(*arguments: object) -> None:
    from wavasr import cli

    if code := cli.main([str(argument) for argument in arguments]):
        raise RuntimeError(f"exit code {code} of {arguments}")


def _member(name: str, whole: bool = False) -> Callable[[Path], list[bytes]]:
    def example(folder: Path) -> list[bytes]:
        from wavasr.archive import members_of

        return [members_of(_model(folder, whole))[name].read_bytes()]

    return example


def _report(folder: Path) -> list[bytes]:
    samples = ROOT / "data" / "samples" / "samples.jsonl"
    _command("evaluate", "--model", _model(folder), "--manifest", samples, "--report", folder)
    return [(folder / "report.json").read_bytes()]


def _rescorer(_: Path) -> list[bytes]:
    """Its matrices are long: what stands before and behind them is damaged as often as they."""
    from safetensors.numpy import load, save

    from wavasr.network.files import language_of, resolve

    member = language_of(resolve("default")).rescorer
    assert member is not None, "the shipped recogniser has a second language model"
    stored = load(member.read_bytes())
    return [save({name: values for name, values in stored.items() if not name.startswith(("2", "3", "4"))})]


def _generator(folder: Path) -> Path:
    """A small untrained generator, saved once."""
    import torch

    from wavasr.network.config import GeneratorConfig
    from wavasr.network.generator import Generator, save_generator

    path = folder / "generator.wavasr"
    folder.mkdir(exist_ok=True)
    if not path.exists():
        torch.manual_seed(0)
        small = GeneratorConfig(channels=4, skip_channels=8, dilations=(1, 2), condition_channels=4, condition="past")
        save_generator(Generator(small), path, {"config": {"data": {"sources": ["noise, CC0"]}}})
    return path


def _shards(folder: Path) -> Path:
    """Shards of two recordings, written once."""
    from wavasr.corpora.manifest import read_manifest
    from wavasr.corpora.shards import write_shards

    if not (folder / "shards").exists():
        list(write_shards(read_manifest(ROOT / "data" / "samples" / "samples.jsonl")[:2], folder / "shards"))
    return folder / "shards"


def _text(*contents: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [content.encode() for content in contents]


def _kenlm(folder: Path) -> list[bytes]:
    """Hash tables; a trie; a trie with values and pointers in tables."""
    return [path.read_bytes() for path in sorted((ROOT / "tests" / "decoding").glob("kenlm-*.bin"))]


EXAMPLES: dict[str, Callable[[Path], list[bytes]]] = {
    "audio": _sounds,
    "manifest": _text(
        '{"audio_filepath": "a.wav", "duration": 2.5, "text": "yes", "speaker": "anna", "offset": 1.0, "id": "a"}\n'
        '{"audio_filepath": "b.wav", "duration": 1, "text": "a b", "alignment": [["a", 0, 0.5], ["b", 0.5, 1]]}\n'
    ),
    "recipe": lambda folder: [
        (ROOT / "configs" / name).read_bytes() for name in ("an4.yaml", "fsdd.yaml", "paper.yaml")
    ],
    "arpa": _text(
        "\\data\\\nngram 1=5\nngram 2=3\n\n\\1-grams:\n-1.0\t<unk>\n-99\t<s>\t-0.3\n-0.5\t</s>\n"
        "-0.4\tyes\t-0.1\n-0.6\tno\n\n"
        "\\2-grams:\n-0.1\t<s> yes\n-0.4\tyes no\n-0.2\tno </s>\n\n\\end\\\n"
    ),
    "kenlm": _kenlm,
    "rescorer": _rescorer,
    "lexicon": _text(
        "YES  Y EH1 S\nNO  N OW1\nNO(2)  N AA1\nTHE  DH AH0 # article\n;;; comment\nO'CLOCK  AH0 K L AA1 K\n"
    ),
    "model": lambda folder: [_model(folder).read_bytes()],
    "header": _member("model.json"),
    "weights": _member("weights.safetensors"),
    "graph": _member("graph.onnx", whole=True),
    "front": _member("front.onnx"),
    "back": _member("back.onnx"),
    "generator": lambda folder: [_generator(folder).read_bytes()],
    "shard": lambda folder: [(_shards(folder) / "000000.tar").read_bytes()],
    "index": lambda folder: [(_shards(folder) / "index.jsonl").read_bytes()],
    "report": _report,
}

GRAPHS = ("graph", "front", "back")


def _read_audio(path: Path) -> str:
    from wavasr.audio.reading import audio_duration_s, load_audio

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    audio_duration_s(path)
    load_audio(path)
    load_audio(path, 16000, 0.05, 0.05)
    load_audio(Pipe(path.read_bytes()))
    return "read"


def _read_manifest(path: Path) -> str:
    from wavasr.corpora.listing import read_listing
    from wavasr.corpora.manifest import read_manifest, write_manifest

    write_manifest(path.with_suffix(".copy"), read_manifest(path))
    path.with_suffix(".copy").unlink()
    list(read_listing([path]))
    return "read"


def _read_recipe(path: Path) -> str:
    from wavasr.training import recipe as recipes

    if not isinstance(recipes._parser, functools._lru_cache_wrapper):
        recipes._parser = functools.cache(recipes._parser)  # it is half the work, and the same for all
    recipe = path.with_suffix(".yaml")
    shutil.copy(path, recipe)
    try:
        recipes.parse(["--config", str(recipe)])
    finally:
        recipe.unlink()
    return "read"


def _read_lm(path: Path) -> str:
    from wavasr.decoding.hotwords import _load
    from wavasr.language.arpa import vocabulary

    words = vocabulary(path)[:30]
    lm = _load(path, words)
    for first, second in itertools.product(range(len(words)), repeat=2):
        state = lm.start(False)
        for word in (first, second, second, first):
            state, _ = lm.score(state, word)
        lm.finish(state)
    return "read"


def _read_lexicon(path: Path) -> str:
    from wavasr.language.lexicon import Lexicon, read_words

    Lexicon.read(path)
    read_words(path)
    return "read"


def _read_rescorer(path: Path) -> str:
    from wavasr.language.rescoring import Rescorer

    Rescorer.read(path)(["the old man", ""])
    return "read"


def _read_model(path: Path) -> str:
    import numpy as np

    from wavasr.recognition.transcribe import transcribe

    noise = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    transcribe(noise, model=path, sample_rate=16000)
    return "read"


def _read_weights(path: Path) -> str:
    from wavasr.network.recognizer import load_model

    load_model(path)
    return "read"


def _read_member(name: str, reader: Callable[[Path], str], whole: bool = False) -> Callable[[Path], str]:
    """A part of a model file, put into a good one: the checksums are right, the content is not."""

    def read(path: Path) -> str:
        from wavasr.archive import members_of, write_archive

        with tempfile.TemporaryDirectory() as folder:
            good = members_of(_model(path.parent / "good", whole))
            rebuilt = Path(folder) / "rebuilt.wavasr"
            write_archive(
                rebuilt, {key: member.read_bytes() for key, member in good.items()} | {name: path.read_bytes()}
            )
            return reader(rebuilt)

    return read


def _read_generator(path: Path) -> str:
    from wavasr.generation.voice import Voice

    next(Voice.load(path).improvise_blocks(0.01))
    return "read"


def _read_shard(path: Path, damaged: str = "000000.tar") -> str:
    from wavasr.corpora.listing import read_listing
    from wavasr.corpora.recordings import load_utterance

    good = _shards(path.parent)
    with tempfile.TemporaryDirectory() as folder:
        for file in good.iterdir():
            shutil.copy(path if file.name == damaged else file, Path(folder) / file.name)
        for utterance in read_listing([Path(folder)]):
            load_utterance(utterance, 16000)
    return "read"


def _read_report(path: Path) -> str:
    from wavasr.evaluation import report

    report.read(path)
    return "read"


READERS: dict[str, Callable[[Path], str]] = {
    "audio": _read_audio,
    "manifest": _read_manifest,
    "recipe": _read_recipe,
    "arpa": _read_lm,
    "kenlm": _read_lm,
    "lexicon": _read_lexicon,
    "rescorer": _read_rescorer,
    "model": _read_model,
    "header": _read_member("model.json", _read_model),
    "weights": _read_member("weights.safetensors", _read_weights),
    "graph": _read_member("graph.onnx", _read_model, whole=True),
    "front": _read_member("front.onnx", _read_model),
    "back": _read_member("back.onnx", _read_model),
    "generator": _read_generator,
    "shard": _read_shard,
    "index": functools.partial(_read_shard, damaged="index.jsonl"),
    "report": _read_report,
}
