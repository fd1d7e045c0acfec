"""The second language model: NumPy against torch, and what makes no difference."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from wavasr.errors import ModelError
from wavasr.language.rescoring import PIECES, REACH, Rescorer, narrowed

SCRIPT = Path(__file__).parents[2] / "data" / "lm" / "train_rescorer.py"
SIZES = dict(CHANNELS=16, BLOCKS=2, HEADS=2, INNER=24, VOCABULARY=28, FOR_PIECES=0.36, SHARE=1.0)
SENTENCES = ["the old man walked slowly", "he said that it was late", "a small boat came down the river"]


@pytest.fixture(scope="module")
def trained() -> ModuleType:
    """The program that trains it, for a tiny one."""
    spec = importlib.util.spec_from_file_location("train_rescorer", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(SIZES)
    return module


@pytest.fixture(scope="module")
def file(trained: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, its weights random."""
    folder = tmp_path_factory.mktemp("rescorer")
    (folder / "text.txt").write_text("\n".join(SENTENCES * 40) + "\n", encoding="utf-8")
    pieces, text = trained.encoded([folder / "text.txt"], np.random.default_rng(0))
    assert (text == 1).sum() == 120 and text.max() < 28
    torch.manual_seed(0)
    network = trained.Network()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    path = folder / "rescorer.safetensors"
    path.write_bytes(save({PIECES: np.frombuffer(pieces, np.uint8), **narrowed(network.named())}))
    return path


def test_it_says_what_torch_says(trained: ModuleType, file: Path) -> None:
    rescorer = Rescorer.read(file)
    network = trained.Network()
    own = dict(network.named_parameters())
    with torch.no_grad():
        for name, values in rescorer._weights.items():
            key = name.replace("output.norm", "output_norm")
            if key != "frequencies":
                own[f"blocks.{key}" if key[0].isdigit() else key].copy_(torch.from_numpy(values))
    for text in SENTENCES:
        ids = torch.tensor([[1, *rescorer._pieces.EncodeAsIds(text), 1]])
        with torch.no_grad():
            logits = network(ids[:, :-1])
        nats = torch.log_softmax(logits[0], -1).gather(1, ids[0, 1:, None]).sum().item()
        assert rescorer([text])[0] == pytest.approx(nats, abs=1e-3)


def test_texts_side_by_side_are_as_each_alone(file: Path) -> None:
    rescorer = Rescorer.read(file)
    texts = [*SENTENCES, "", "the " * 40]
    np.testing.assert_allclose(rescorer(texts), [rescorer([text])[0] for text in texts], atol=1e-3)


def test_what_lies_further_back_than_training_saw_is_not_looked_at(file: Path) -> None:
    rescorer = Rescorer.read(file)
    ids = np.random.default_rng(0).integers(3, 28, (1, 4 * REACH))
    other = ids.copy()
    other[0, 0] = 2
    blocks = 2
    away = np.abs(rescorer._states(ids) - rescorer._states(other)).max(axis=2)[0]
    assert away[: REACH - 1].max() > 1e-3 and away[blocks * (REACH - 1) + 1 :].max() == 0


def test_a_step_of_training_lowers_the_loss(trained: ModuleType) -> None:
    torch.manual_seed(0)
    network, text = trained.Network(), torch.arange(8 * 17).remainder(7).view(8, 17)
    optimizer, losses = trained.Muon(network), []
    for _ in range(60):
        loss = network.loss(text)
        loss.backward()
        optimizer.step(0.5)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_files_that_are_none(file: Path, tmp_path: Path) -> None:
    stored = load(file.read_bytes())
    spoilt = {
        "nothing": b"",
        "no pieces": save({name: values for name, values in stored.items() if name != PIECES}),
        "other pieces": save({**stored, PIECES: np.zeros(30, np.uint8)}),
        "no numbers": save({**stored, "output.norm": np.full_like(stored["output.norm"], np.nan)}),
        "no fit": save({**stored, "0.down": stored["0.down"][:, :5].copy()}),
        "few vectors": save({**stored, "embedding": stored["embedding"][:9].copy()}),
    }
    for name, content in spoilt.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        line = rf"^{re.escape(str(path))}: is no second language model \(.*\); see data/lm"
        with pytest.raises(ModelError, match=line):
            Rescorer.read(path)
    with pytest.raises(ModelError, match="is no second language model"):
        Rescorer.read(tmp_path / "missing")
