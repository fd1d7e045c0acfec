"""Bulk: the same bytes however the work is divided and whatever is killed; what cannot be read is told."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wavasr.cli import main
from wavasr.corpora.manifest import Utterance, write_manifest
from wavasr.corpora.shards import write_shards
from wavasr.recognition.bulk import Bulk, Done, units_of
from wavasr.recognition.runners import Processes, carry_out

RECORDINGS = 6


@pytest.fixture
def manifest(tmp_path: Path, speech: Path) -> Path:
    path = tmp_path / "corpus" / "calls.jsonl"
    utterances = []
    for number in range(RECORDINGS):
        recording = path.parent / "audio" / f"{number}.wav"
        recording.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(speech, recording)
        utterances.append(Utterance(f"call {number}", recording, 0.3 + 0.03 * number, "unknown"))
    write_manifest(path, utterances)
    return path


def arguments(source: Path, output: Path, model: Path, *more: str) -> list[str]:
    return ["bulk", str(source), "--output", str(output), "--model", str(model), "--block", "2", "--quiet", *more]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_workers_and_shares_give_the_same_bytes(manifest: Path, tmp_path: Path, tiny_model: Path) -> None:
    one, two, shares = (tmp_path / name for name in ("one", "two", "shares"))
    assert main(arguments(manifest, one, tiny_model, "--workers", "1")) == 0
    assert main(arguments(manifest, two, tiny_model, "--workers", "2")) == 0
    for share in ("0/2", "1/2"):
        assert main(arguments(manifest, shares, tiny_model, "--workers", "1", "--shard", share)) == 0
    assert sorted(files(one)) == ["bulk.json", *(f"calls-00000{number}.jsonl" for number in range(3))]
    assert files(one) == files(two) == files(shares)
    found = [row for number in range(3) for row in rows(one / f"calls-00000{number}.jsonl")]
    assert [row["id"] for row in found] == [f"call {number}" for number in range(RECORDINGS)]
    assert [row["duration_s"] for row in found] == pytest.approx([0.3 + 0.03 * n for n in range(RECORDINGS)])
    assert set(found[0]) == {"id", "text", "confidence", "duration_s", "words"}
    assert all(row["text"] for row in found)


def test_shards_and_folders_are_units_too(manifest: Path, tmp_path: Path, tiny_model: Path) -> None:
    shards = tmp_path / "train"
    utterances = [Utterance(f"u{n}", manifest.parent / "audio" / f"{n}.wav", 0.5, "unknown") for n in range(4)]
    assert len(list(write_shards(utterances, shards, 0.03))) > 1
    named = [unit.name for unit in units_of([shards])]
    assert named[:2] == ["train-000000", "train-000001"]
    assert [unit.name for unit in units_of([shards / "000001.tar"])] == ["train-000001"]
    assert main(arguments(shards, tmp_path / "a", tiny_model)) == 0
    assert main(arguments(manifest.parent / "audio", tmp_path / "b", tiny_model)) == 0
    url = f"file://{shards}/index.jsonl"  # not memory://, which other processes do not see
    assert main(["bulk", url, *arguments(shards, tmp_path / "c", tiny_model)[2:]]) == 0
    assert files(tmp_path / "c") == files(tmp_path / "a")
    of_shards = [row for name in named for row in rows(tmp_path / "a" / f"{name}.jsonl")]
    of_folder = [row for number in (0, 1) for row in rows(tmp_path / "b" / f"audio-00000{number}.jsonl")]
    assert [row["id"] for row in of_folder] == [f"{n}.wav" for n in range(4)]
    assert [row["text"] for row in of_shards] == [row["text"] for row in of_folder]


@pytest.mark.parametrize("quiet", [False, True])
def test_warnings_of_workers_are_those_of_the_command(
    quiet: bool, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "calls" / "a.wav"
    recording.parent.mkdir()
    tone = 0.3 * np.sin(np.arange(16_000) / 5)
    sf.write(recording, np.stack([tone, -tone], axis=1), 16_000)
    command = arguments(tmp_path / "calls", tmp_path / "out", tiny_model)
    assert main([part for part in command if quiet or part != "--quiet"]) == 0
    warned = f"wavasr: {recording}: its channels cancel each other out; one of them is read"
    assert (warned in capfd.readouterr().err.splitlines()) is not quiet


def test_a_rerun_does_what_is_missing_and_tells_failures_again(
    manifest: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (manifest.parent / "audio" / "3.wav").write_bytes(b"no sound")
    output = tmp_path / "out"
    assert main(arguments(manifest, output, tiny_model)) == 1
    whole = files(output)
    (failed,) = rows(output / "calls-000001.errors.jsonl")
    assert failed["id"] == "call 3" and "3.wav" in str(failed["error"])
    assert [row["id"] for row in rows(output / "calls-000001.jsonl")] == ["call 2"]
    (output / "calls-000002.jsonl").unlink()
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    capsys.readouterr()
    assert main(arguments(manifest, output, tiny_model)) == 1
    assert "2 of 3 units done before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert files(output) == whole
    assert main(arguments(manifest, output, tiny_model, "--max-errors", "0")) == 1
    assert "stopped" in capsys.readouterr().err


def test_words_that_have_changed_are_other_settings(
    manifest: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.txt"
    command = [*arguments(manifest, tmp_path / "out", tiny_model), "--lexicon", str(words)]
    for text, code in (("yes\nno\n", 0), ("yes\nno\n", 0), ("yes\n", 2)):
        words.write_text(text, encoding="utf-8")
        assert main(command) == code
    assert "results here come from another model or settings" in capsys.readouterr().err


def test_what_does_not_fit_is_bad_input(
    manifest: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(arguments(manifest, output, tiny_model, "--shard", "0/3")) == 0
    mistakes = {
        "expected i/n": arguments(manifest, output, tiny_model, "--shard", "2/2"),
        "another model or settings": [*arguments(manifest, output, tiny_model), "--no-vad"],
        "two inputs": ["bulk", str(manifest), *arguments(manifest, output, tiny_model)[1:]],
        "no such manifest": arguments(tmp_path / "none.jsonl", output, tiny_model),
    }
    for message, mistaken in mistakes.items():
        assert main(mistaken) == 2
        assert message in capsys.readouterr().err
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    manifest.write_text(lines[0], encoding="utf-8")
    assert main(arguments(manifest, output, tiny_model)) == 2
    assert "has 2 recordings where the input now has 1" in capsys.readouterr().err


@pytest.mark.parametrize("killed", [1, 2])
def test_a_unit_is_begun_again_once(killed: int, manifest: Path, tmp_path: Path, tiny_model: Path) -> None:
    stop = threading.Event()

    def kill() -> None:
        seen: set[int] = set()
        while len(seen) < killed and not stop.is_set():
            for child in multiprocessing.active_children():
                if child.pid and child.pid not in seen and len(seen) < killed:
                    seen.add(child.pid)
                    os.kill(child.pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        units = units_of([manifest], 2)[:2]
        done = list(carry_out(units, Processes(Bulk(tmp_path / "out", str(tiny_model))), 1))
    finally:
        stop.set()
        killer.join()
    first = Done("calls-000000", 0, 2, 0.0, lost=True) if killed == 2 else Done("calls-000000", 2, 0, 0.63)
    assert (done[0].name, done[0].recordings, done[0].lost) == (first.name, first.recordings, first.lost)
    assert (done[1].name, done[1].recordings, done[1].lost) == ("calls-000001", 2, False)
    assert (tmp_path / "out" / "calls-000000.jsonl").exists() == (killed == 1)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_killed_at_any_time_the_next_run_completes_it(manifest: Path, tmp_path: Path, tiny_model: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert main(arguments(manifest, whole, tiny_model)) == 0
    command = [sys.executable, "-m", "wavasr", *arguments(manifest, output, tiny_model, "--workers", "2")]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0.5, 2.5))
        process.kill()
        process.wait()
    assert main(arguments(manifest, output, tiny_model, "--workers", "2")) == 0
    assert files(output) == files(whole)
