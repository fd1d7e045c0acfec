"""The recogniser as its users meet it: a batch, a long recording in chunks, a file on disk, a training from nothing."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import wavasr
from wavasr.archive import members_of, write_archive
from wavasr.config import to_dict
from wavasr.errors import ModelError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network import files as modelfile
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import FORMAT_VERSION, FRONT_END_FORMAT, HEADER, WEIGHTS, asset, read_header, resolve
from wavasr.network.recognizer import Recognizer, load_front_end, load_model, save_front_end, save_model, start_from
from wavasr.recognition import chunks, transcribe

STAGES = (
    StageConfig(channels=8, window=8, stride=4, level_frames=6, dilations=(1, 2), pool=5, pooling="energy"),
    StageConfig(channels=8, dilations=(1, 2), pool=2),
)
RATE = 2000


def config_of(context: str = "noncausal", stages: tuple[StageConfig, ...] = STAGES) -> EncoderConfig:
    return EncoderConfig(preset="custom", stages=stages, context=context, sample_rate=RATE)  # type: ignore[arg-type]


def recognizer_of(context: str = "noncausal", seed: int = 0, letters: str = "abc d") -> Recognizer:
    torch.manual_seed(seed)
    return Recognizer(config_of(context), Units.characters([letters]), TextConfig(), {"name": "tiny"}).eval()


def noise(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.wavasr"
    save_model(recognizer_of(), path)
    return path


# Forward --------------------------------------------------------------------------------------------------------------


def test_log_probabilities_and_integer_lengths() -> None:
    model = recognizer_of()
    log_probs, lengths = model(noise(3, 404), torch.tensor([404, 400, 1]))
    assert log_probs.shape == (3, 11, len(model.units))
    assert log_probs.dtype == torch.float32
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(3, 11))
    assert lengths.tolist() == [11, 10, 1]
    assert lengths.dtype == torch.int64
    assert model.frame_lengths(torch.tensor([404, 400, 1])).tolist() == [11, 10, 1]


def test_what_a_model_says_of_itself() -> None:
    model = recognizer_of()
    assert model.hop_samples == 40
    assert model.sample_rate == RATE
    # Top: dilations 1 and 2, both sides, of frames of 20 samples; below: 1 and 2, window 1 and 0, level 3 and 2.
    assert model.receptive_field == (3 * 20 + (3 + 1 + 3) * 4, 3 * 20 + (3 + 0 + 2) * 4)
    assert len(model.front_end) == model.encoder_config.front_end_stages == 1


@settings(max_examples=30, deadline=None)
@given(
    context=st.sampled_from(["noncausal", "causal"]),
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    padding=st.integers(0, 300),
    scale=st.sampled_from([1e-3, 0.1, 50.0]),
    seed=st.integers(0, 1000),
)
def test_batch_invariance(context: str, lengths: list[int], padding: int, scale: float, seed: int) -> None:
    """Neighbours, their order and loudness, and padding (loud, too) do not change an utterance's log-probabilities."""
    model = recognizer_of(context, seed)
    batch = noise(len(lengths), max(lengths) + padding, seed=seed)
    batch[1:] *= scale
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        log_probs, frames = model(batch, torch.tensor(lengths))
        shuffled, _ = model(batch[order], torch.tensor(lengths)[order])
        for i, length in enumerate(lengths):
            alone, _ = model(batch[i : i + 1, :length], torch.tensor([length]))
            assert int(frames[i]) == alone.shape[1]
            assert (log_probs[i, : alone.shape[1]] - alone[0]).abs().max() < 1e-4
            place = int((order == i).nonzero())
            assert (shuffled[place, : alone.shape[1]] - alone[0]).abs().max() < 1e-4


@pytest.mark.parametrize("preset", ["swift", "base"])
def test_batch_invariance_of_a_preset(preset: str) -> None:
    """At full width, where sums are long; the utterance is quiet and fades, its neighbours are loud."""
    torch.manual_seed(0)
    model = Recognizer(EncoderConfig(preset=preset), Units.characters(["abcdefg"]), TextConfig()).eval()
    length = 12_345
    batch = noise(2, 20_000, scale=0.5)
    batch[0] *= torch.linspace(0.02, 0.0, 20_000)
    with torch.no_grad():
        alone, _ = model(batch[:1, :length], torch.tensor([length]))
        together, frames = model(batch, torch.tensor([length, 20_000]))
    assert int(frames[0]) == alone.shape[1]
    assert (together[0, : alone.shape[1]] - alone[0]).abs().max() < 1e-4


# Chunks ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    context=st.sampled_from(["noncausal", "causal"]),
    samples=st.integers(1, 6000),
    chunk_s=st.sampled_from([0.02, 0.05, 0.333]),
    cuts=st.lists(st.integers(0, 6000), max_size=6),
    seed=st.integers(0, 1000),
)
def test_chunked_is_whole(context: str, samples: int, chunk_s: float, cuts: list[int], seed: int) -> None:
    """Log-probabilities of a stream in pieces of any length, in chunks of any length, are those of one pass."""
    model = recognizer_of(context, seed)
    waveform = noise(samples, seed=seed)
    with torch.no_grad():
        whole, _ = model(waveform[None], torch.tensor([samples]))
    edges = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    pieces = [waveform.numpy()[a:b] for a, b in itertools.pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_S", chunk_s)
        streamed = np.concatenate(list(chunks.stream_log_probs(model, pieces)))
        at_once = chunks.log_probs_of(model, waveform.numpy())
    assert streamed.shape == at_once.shape == whole[0].shape
    assert np.abs(streamed - whole[0].numpy()).max() < 1e-4
    assert np.abs(at_once - whole[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("context", ["noncausal", "causal"])
def test_one_sample_less_context_is_not_enough(context: str) -> None:
    """The chunk test would pass with too large a receptive field; this one would not with too small a one."""
    model = recognizer_of(context).double()
    before, after = model.receptive_field
    hop = model.hop_samples
    frame = before // hop + 2
    start, end = frame * hop - before, (frame + 1) * hop + after
    waveform = noise(1, end + 5 * hop).double()

    def change(sample: int) -> bool:
        louder = waveform.clone()
        louder[0, sample] += 1.0
        features, others = (model.features(w, torch.tensor([w.shape[1]]))[-1].frames for w in (waveform, louder))
        return not torch.equal(features[:, :, frame], others[:, :, frame])

    assert change(start)
    assert change(end - 1)
    assert not change(start - 1)
    assert not change(end)


def test_streaming_a_causal_model_hop_by_hop_is_offline() -> None:
    """What it says of a hop does not change when more arrives."""
    model = recognizer_of("causal")
    waveform = noise(1, 20 * model.hop_samples)
    with torch.no_grad():
        offline, _ = model(waveform, torch.tensor([waveform.shape[1]]))
        for frames in (1, 2, 7, 19):
            past = waveform[:, : frames * model.hop_samples]
            early, _ = model(past, torch.tensor([past.shape[1]]))
            assert (early[0] - offline[0, :frames]).abs().max() < 1e-5


# The file -------------------------------------------------------------------------------------------------------------


def test_a_model_file_gives_the_same_model(saved: Path) -> None:
    model, loaded = recognizer_of(), load_model(saved)
    waveform, lengths = noise(2, 999), torch.tensor([999, 500])
    with torch.no_grad():
        assert torch.equal(model(waveform, lengths)[0], loaded(waveform, lengths)[0])
    assert not loaded.training
    assert loaded.units == model.units
    assert (loaded.text, loaded.encoder_config, loaded.metadata) == (model.text, model.encoder_config, {"name": "tiny"})
    assert all(p.dtype == torch.float32 and p.requires_grad and not p.is_meta for p in loaded.parameters())
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_wavasr_load_is_the_same(saved: Path) -> None:
    assert isinstance(wavasr.load(str(saved)), nn.Module)


def test_a_loaded_model_can_be_trained_and_its_file_removed(saved: Path) -> None:
    model = load_model(saved)
    saved.write_bytes(bytes(saved.stat().st_size))
    saved.unlink()
    model.train()(noise(1, 400), torch.tensor([400]))[0].square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    torch.manual_seed(3)
    load_model(saved)
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(()))


def test_metadata_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "m.wavasr"
    save_model(recognizer_of(), path, {"dev": {"wer": 0.25}, "note": "Über ∑"})
    assert load_model(path).metadata == {"name": "tiny", "dev": {"wer": 0.25}, "note": "Über ∑"}
    assert read_header(path)["metadata"]["note"] == "Über ∑"


def test_half_precision_is_half_the_size_and_close(tmp_path: Path) -> None:
    model = recognizer_of()
    save_model(model, tmp_path / "full.wavasr")
    save_model(model, tmp_path / "half.wavasr", half=True)
    full, half = (load_model(tmp_path / f"{name}.wavasr") for name in ("full", "half"))
    assert all(p.dtype == torch.float32 for p in half.parameters())
    weights = sum(p.numel() for p in model.parameters())
    saving = (tmp_path / "full.wavasr").stat().st_size - (tmp_path / "half.wavasr").stat().st_size
    assert abs(saving - 2 * weights) < 1000
    with torch.no_grad():
        a, b = (m(noise(1, 999), torch.tensor([999]))[0] for m in (full, half))
    assert 0 < (a - b).abs().max() < 0.01


def test_the_file_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_model(recognizer_of(), tmp_path / "m.wavasr")
    finally:
        os.umask(before)
    if os.name == "posix":
        assert (tmp_path / "m.wavasr").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    step: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = saved.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="No space left") as error:
        save_model(recognizer_of(seed=1), saved)
    assert error.value.filename == str(saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == old


def test_shipped_names(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assets").mkdir()
    saved.rename(tmp_path / "assets" / "default.wavasr")
    monkeypatch.setattr(modelfile, "asset", lambda name: tmp_path / "assets" / name)
    monkeypatch.chdir(tmp_path)
    assert resolve("default") == tmp_path / "assets" / "default.wavasr"
    assert load_model().units == recognizer_of().units
    with pytest.raises(ModelError, match=r"defualt: no such model file; shipped models: default$"):
        resolve("defualt")
    with pytest.raises(ModelError, match="no such model file"):
        resolve("elsewhere/default")
    (tmp_path / "default").write_bytes(b"a file goes before a name")
    assert resolve("default") == Path("default")


def test_names_without_any_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfile, "asset", lambda name: tmp_path / "none" / name)
    with pytest.raises(ModelError, match="shipped models: none"):
        resolve("default")


class Exploit:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.canary,)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The model file with another header."""
    header = read_header(path)
    return with_header(path, json.dumps(change(header) or header))


def with_header(path: Path, text: str) -> bytes:
    write_archive(path, {**members_of(path), HEADER: text.encode()})
    return path.read_bytes()


def without(path: Path, name: str) -> bytes:
    write_archive(path, {key: member for key, member in members_of(path).items() if key != name})
    return path.read_bytes()


def zipped(path: Path, **options: int) -> bytes:
    with zipfile.ZipFile(path, "w", **options) as archive:  # type: ignore[arg-type]
        archive.writestr("data.pkl", b"x" * 1000)
    return path.read_bytes()


def bomb(path: Path) -> bytes:
    """Unpacked, 100 MB of zeros."""
    parts = {name: member.read_bytes() for name, member in members_of(path).items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**parts, WEIGHTS: bytes(100_000_000)}.items():
            archive.writestr(name, content)
    return path.read_bytes()


def twice(path: Path) -> bytes:
    content = path.read_bytes()
    return content.replace(b"graph.onnx", HEADER.encode())


def checkpoint(path: Path) -> bytes:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "canary": Exploit(path.parent / "canary")}, path)
    return path.read_bytes()


def foreign(path: Path, metadata: dict[str, str] | None) -> bytes:
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    return path.read_bytes()


def flipped(path: Path, text: bytes) -> bytes:
    """A bit of the text is wrong."""
    content = bytearray(path.read_bytes())
    content[content.index(text)] ^= 0x80
    return bytes(content)


BAD: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda path: b"",
    "header only": lambda path: path.read_bytes()[:8],
    "truncated in its header": lambda path: path.read_bytes()[:500],
    "truncated at its end": lambda path: path.read_bytes()[:-1],
    "a flipped bit": lambda path: flipped(path, b'"encoder"'),
    "a flipped bit of the weights": lambda path: flipped(path, b'"F32"'),
    "without weights": lambda path: without(path, WEIGHTS),
    "without a header": lambda path: without(path, HEADER),
    "two headers": twice,
    "compressed": bomb,
    "old": lambda path: foreign(path, {"wavasr": json.dumps({"format": "wavasr-model", "format_version": 2})}),
    "text": lambda path: b"this is no model\n" * 100,
    "zeros": lambda path: bytes(10_000),
    "a huge header": lambda path: b"\xff" * 100,
    "zip": zipped,
    "pickle": lambda path: pickle.dumps(Exploit(path.parent / "canary")),
    "torch checkpoint": checkpoint,
    "another safetensors": lambda path: foreign(path, None),
    "another safetensors with metadata": lambda path: foreign(path, {"format": "pt"}),
    "JSON that is none": lambda path: with_header(path, "{"),
    "JSON that is a list": lambda path: with_header(path, "[1]"),
    "JSON nested too deep": lambda path: with_header(path, "[" * 100_000),
    "a version that is no number": lambda path: rewritten(path, lambda h: h.update(format_version="x")),
    "no version": lambda path: rewritten(path, lambda h: {k: v for k, v in h.items() if k != "format_version"}),
    "a front end": lambda path: rewritten(path, lambda h: h.update(format=FRONT_END_FORMAT)),
    "newer": lambda path: rewritten(path, lambda h: h.update(format_version=FORMAT_VERSION + 1)),
    "no encoder": lambda path: rewritten(path, lambda h: {k: v for k, v in h.items() if k != "encoder"}),
    "no units": lambda path: rewritten(path, lambda h: h.update(units={})),
    "other units": lambda path: rewritten(path, lambda h: h.update(units=Units.characters(["ab"]).to_dict())),
    "an unknown encoder key": lambda path: rewritten(path, lambda h: h["encoder"].update(colour="red")),
    "another encoder": lambda path: rewritten(path, lambda h: h.update(encoder=to_dict(EncoderConfig()))),
    "an encoder that is a list": lambda path: rewritten(path, lambda h: h.update(encoder=[1])),
    "channels that are text": lambda path: rewritten(path, lambda h: h["encoder"]["stages"][0].update(channels="8")),
    "metadata that is text": lambda path: rewritten(path, lambda h: h.update(metadata="text")),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_in_one_line(case: str, saved: Path) -> None:
    saved.write_bytes(BAD[case](saved))
    with pytest.raises(ModelError) as caught:
        load_model(saved)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(saved))
    assert not (saved.parent / "canary").exists()


def test_the_exploit_of_the_test_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Exploit(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_messages_say_what_to_do(saved: Path) -> None:
    saved.write_bytes(BAD["newer"](saved))
    with pytest.raises(ModelError, match=r"newer wavasr \(format 4, this one reads 3\).*pip install --upgrade"):
        read_header(saved)
    with pytest.raises(ModelError, match="is a folder; expected a model file"):
        load_model(saved.parent)
    with pytest.raises(ModelError, match="no such model file"):
        load_model(saved.parent / "missing.wavasr")


def test_a_header_is_read_without_torch(saved: Path) -> None:
    program = (
        "import sys\nsys.modules['torch'] = None\n"
        "from wavasr.cli import main\n"
        f"sys.exit(main(['info', {str(saved)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "noncausal" in done.stdout


# The front end ----------------------------------------------------------------------------------------------------


def other_top(seed: int) -> Recognizer:
    """The same front end under another top."""
    stages = (STAGES[0], StageConfig(channels=5, dilations=(1,)))
    torch.manual_seed(seed)
    return Recognizer(config_of(stages=stages), Units.characters(["xyz"]), TextConfig())


@pytest.mark.parametrize("kind", ["front-end", "model"])
def test_a_front_end_starts_another_model(kind: str, tmp_path: Path) -> None:
    source, path = recognizer_of(), tmp_path / "source"
    save_front_end(source, path) if kind == "front-end" else save_model(source, path)
    model = other_top(seed=1)
    top = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("encoder.stages.0.")}
    load_front_end(model, str(path))
    for own, theirs in zip(model.front_end.parameters(), source.front_end.parameters(), strict=True):
        # A front end is stored in 16 bits.
        assert torch.allclose(own, theirs, atol=2e-3 if kind == "front-end" else 0, rtol=0)
        assert own.requires_grad
    assert all(torch.equal(top[name], p) for name, p in model.named_parameters() if name in top)


def test_the_shipped_front_end_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_front_end(recognizer_of(), tmp_path / "front-end.safetensors", {"minutes": 3})
    assert read_header(tmp_path / "front-end.safetensors", FRONT_END_FORMAT)["metadata"] == {"minutes": 3}
    monkeypatch.setattr("wavasr.network.recognizer.asset", lambda name: tmp_path / name)
    model = other_top(seed=1)
    before = [p.clone() for p in model.parameters()]
    load_front_end(model, "random")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    load_front_end(model, "front-end")
    assert not torch.equal(before[0], next(model.parameters()))


@pytest.mark.parametrize("preset", ["base", "swift"])
def test_there_is_a_shipped_front_end_for(preset: str) -> None:
    random, warm = (Recognizer(EncoderConfig(preset=preset), Units.characters(["a"]), TextConfig()) for _ in range(2))
    load_front_end(warm, "front-end")
    assert all(
        not torch.equal(a, b) for a, b in zip(random.front_end.parameters(), warm.front_end.parameters(), strict=True)
    )
    if preset == "base":  # the one without labels, whatever the default model is
        tensors = load_file(asset("front-end.safetensors"))
        assert all(torch.equal(warm.front_end.state_dict()[name], tensor.float()) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 9},
        {"dilations": (1, 2, 4)},
        {"dilations": (2, 2)},  # these leave no trace in the weights' shapes
        {"level_frames": 7},
        {"pool": 10},
    ],
    ids=str,
)
def test_a_front_end_of_another_build_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    save_front_end(recognizer_of(), tmp_path / "front-end.safetensors")
    stage = StageConfig(**{**STAGES[0].__dict__, **change})
    model = Recognizer(config_of(stages=(stage, STAGES[1])), Units.characters(["a"]), TextConfig())
    with pytest.raises(ModelError, match=r"front-end\.safetensors: its front end differs from encoder\.stages; set"):
        load_front_end(model, str(tmp_path / "front-end.safetensors"))


def test_what_is_no_front_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "front-end.safetensors"
    for content in (b"", b"PK", pickle.dumps(Exploit(tmp_path / "canary"))):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"front-end\.safetensors: not a wavasr model file"):
            load_front_end(other_top(0), str(path))
    with pytest.raises(ModelError, match="no such model file"):
        load_front_end(other_top(0), str(tmp_path / "missing"))
    assert not (tmp_path / "canary").exists()


# Training -------------------------------------------------------------------------------------------------------------


def spelled_in_tones(text: str, rng: np.random.Generator) -> Tensor:
    """A tone of its own for each letter, 120 ms long, and a little noise."""
    time_s = np.arange(round(0.12 * RATE)) / RATE
    tones = [0.3 * np.sin(2 * np.pi * (150 + 180 * "abcd".index(c)) * time_s) for c in text]
    waveform = np.concatenate(tones)
    return torch.from_numpy((waveform + 0.01 * rng.standard_normal(len(waveform))).astype(np.float32))


def test_it_learns_to_read_tones_by_heart() -> None:
    rng = np.random.default_rng(0)
    texts = ["abca", "dacb", "bd", "cabdac", "dd", "acbd"]
    torch.manual_seed(0)
    stages = (
        StageConfig(16, window=16, stride=4, level_frames=8, dilations=(1, 2, 4), pool=5, pooling="energy"),
        StageConfig(24, dilations=(1, 2), pool=2),
    )
    model = Recognizer(config_of(stages=stages), Units.characters(["abcd"]), TextConfig())
    waveforms = [spelled_in_tones(text, rng) for text in texts]
    batch = nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    targets = [torch.tensor(model.units.encode(text)) for text in texts]
    target_lengths = torch.tensor([len(target) for target in targets])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    loss = torch.tensor(np.inf)
    in_a_row = 0  # good steps: a bad one may follow a good one, which differs with the rounding of the processor
    for _ in range(600):  # about 300 are needed
        log_probs, frames = model(batch, lengths)
        loss = nn.functional.ctc_loss(log_probs.transpose(0, 1), torch.cat(targets), frames, target_lengths)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        in_a_row = in_a_row + 1 if loss < 0.03 else 0
        if in_a_row == 20:
            break
    assert loss < 0.1
    found = [model.units.decode(h.ids) for h in transcribe.recognise(model.eval(), [w.numpy() for w in waveforms])]
    assert found == texts


def test_a_model_starts_from_another_ones_weights_unit_by_unit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = Recognizer(config_of(), Units.characters(["abc"]), TextConfig()).eval()
    save_model(source, tmp_path / "source.wavasr")
    model = Recognizer(config_of(), Units.characters(["caBin"]), TextConfig()).eval()
    fresh = model.output.weight.clone()
    start_from(model, tmp_path / "source.wavasr")
    waveform, lengths = torch.randn(1, 400), torch.tensor([400])
    ours, theirs = (m.encoder(waveform, lengths)[-1].frames for m in (model, source))
    assert torch.equal(ours, theirs)
    for label, symbol in enumerate(model.units.symbols):
        known = symbol.lower() in source.units.symbols  # CMUdict's AE is TIMIT's ae
        expected = source.output.weight[source.units.symbols.index(symbol.lower())] if known else fresh[label]
        assert torch.equal(model.output.weight[label], expected)


def test_outputs_are_new_where_no_unit_is_shared(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = Recognizer(config_of(), Units.characters(["abc"]), TextConfig())
    save_model(source, tmp_path / "source.wavasr")
    model = Recognizer(config_of(), Units.characters(["xyz"]), TextConfig())
    fresh = model.output.weight.clone()
    start_from(model, tmp_path / "source.wavasr")
    assert torch.equal(model.output.weight, fresh)
    assert all(map(torch.equal, model.encoder.parameters(), source.encoder.parameters()))


def test_a_model_does_not_start_from_one_that_is_built_otherwise(tmp_path: Path) -> None:
    source = Recognizer(config_of("causal"), Units.characters(["abc"]), TextConfig())
    save_model(source, tmp_path / "source.wavasr")
    with pytest.raises(ModelError, match=r"source\.wavasr: its encoder is not built"):
        start_from(Recognizer(config_of(), Units.characters(["abc"]), TextConfig()), tmp_path / "source.wavasr")
