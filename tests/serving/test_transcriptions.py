"""OpenAI's transcription API against a running server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

import wavasr
from tests.serving.conftest import Running

CLIPS = ("plain-sentence.flac", "telephone-number.wav", "street.opus", "plain-sentence-2.mp3")
PATH = "/v1/audio/transcriptions"


@pytest.fixture
def clip(repository: Path) -> Path:
    return repository / "data" / "samples" / "plain-sentence.flac"


def post(server: Running, clip: Path, **data: Any) -> httpx.Response:
    return httpx.post(server.url + PATH, files={"file": clip.read_bytes()}, data=data, timeout=60)


@pytest.mark.parametrize("name", CLIPS)
def test_text_equals_that_of_transcribe(server: Running, repository: Path, name: str) -> None:
    clip = repository / "data" / "samples" / name
    response = post(server, clip, model="whisper-1")
    assert response.status_code == 200
    expected = wavasr.transcribe(clip)
    assert response.json()["text"] == expected.text
    assert response.json()["usage"]["seconds"] == -(-expected.duration_s // 1)


def test_verbose_json_has_all_required_keys(server: Running, clip: Path) -> None:
    body = post(server, clip, response_format="verbose_json").json()
    assert {"task", "language", "duration", "text", "segments", "words", "usage"} <= set(body)
    keys = "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob".split()
    assert set(body["segments"][0]) == set(keys)
    assert body["words"] is None
    assert " ".join(segment["text"] for segment in body["segments"]) == body["text"]


@pytest.mark.parametrize(
    ("granularities", "has_words", "has_segments"),
    [(["word"], True, False), (["segment"], False, True), (["word", "segment"], True, True)],
)
@pytest.mark.parametrize("field", ["timestamp_granularities[]", "timestamp_granularities"])
def test_granularities(
    server: Running, clip: Path, field: str, granularities: list[str], has_words: bool, has_segments: bool
) -> None:
    body = post(server, clip, response_format="verbose_json", **{field: granularities}).json()
    assert (body["words"] is not None, body["segments"] is not None) == (has_words, has_segments)
    if has_words:
        assert " ".join(word["word"] for word in body["words"]) == body["text"]
        assert all(0 <= word["start"] < word["end"] <= body["duration"] for word in body["words"])


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
def test_formats_of_text_are_not_json(server: Running, clip: Path, format: str) -> None:
    response = post(server, clip, response_format=format)
    assert response.headers["content-type"].startswith("text/plain")
    assert wavasr.transcribe(clip).text in " ".join(response.text.split())
    assert response.text.startswith({"text": "", "srt": "1\n", "vtt": "WEBVTT"}[format])


def test_streamed_deltas_are_the_text(server: Running, clip: Path) -> None:
    response = post(server, clip, stream="true")
    assert response.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    events = [json.loads(line) for line in data]
    assert [event["type"] for event in events][-1] == "transcript.text.done"
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["text"] == wavasr.transcribe(clip).text


@pytest.mark.parametrize(
    ("data", "param", "says"),
    [
        ({"response_format": "xml"}, "response_format", "expected one of json"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "verbose_json"),
        ({"timestamp_granularities[]": "phone", "response_format": "verbose_json"}, "timestamp_granularities", "phone"),
        ({"keywords[]": ["left"] * 101}, "keywords", "101 hotwords; give 100 at most"),
        ({"keywords": "x" * 101}, "keywords", "a hotword of 101 characters; give 100 characters at most"),
    ],
)
def test_mistakes_name_the_field(server: Running, clip: Path, data: dict[str, Any], param: str, says: str) -> None:
    response = post(server, clip, **data)
    error = response.json()["error"]
    assert response.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize("content", [b"", b"hello " * 50, b"RIFF\xff\xff\xff\xffWAVE", b"\x00" * 999])
def test_what_is_no_recording_is_the_clients_mistake(server: Running, content: bytes) -> None:
    response = httpx.post(server.url + PATH, files={"file": ("a.wav", content)}, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "file"


@pytest.mark.parametrize("body", [b"", b"--x\r\ngarbage", b'{"file": 1}'])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "multipart/form-data", "application/json"])
def test_a_form_that_cannot_be_read_is_a_mistake(server: Running, body: bytes, kind: str) -> None:
    response = httpx.post(server.url + PATH, content=body, headers={"content-type": kind})
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_silence_keeps_the_schema(server: Running, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    body = post(server, tmp_path / "silence.wav", response_format="verbose_json").json()
    assert (body["text"], body["segments"], body["duration"]) == ("", [], 1.0)


def test_models(server: Running, small: Running) -> None:
    assert [model["id"] for model in httpx.get(server.url + "/v1/models").json()["data"]] == ["default"]
    assert httpx.get(server.url + "/v1/models/default").json()["object"] == "model"
    assert httpx.get(server.url + "/v1/models/other").status_code == 404


def test_strict_models_refuse_other_names(small: Running, speech: Path) -> None:
    headers = {"authorization": "Bearer secret"}
    files = {"file": speech.read_bytes()}
    refused = httpx.post(small.url + PATH, files=files, data={"model": "whisper-1"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert httpx.post(small.url + PATH, files=files, data={"model": "tiny"}, headers=headers).status_code == 200


def test_limits_of_size_and_length(small: Running, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    headers = {"authorization": "Bearer secret"}
    large = httpx.post(small.url + PATH, files={"file": b"RIFF" * 100_000}, headers=headers)
    assert (large.status_code, large.json()["error"]["param"]) == (413, "file")
    soundfile.write(tmp_path / "long.flac", np.zeros(16000 * 60), 16000)  # a minute in some hundred bytes
    long = httpx.post(small.url + PATH, files={"file": (tmp_path / "long.flac").read_bytes()}, headers=headers)
    assert long.status_code == 400
    assert "longer than 8 s" in long.json()["error"]["message"]


@pytest.mark.skipif("WAVASR_CLIENTS" not in os.environ, reason="WAVASR_CLIENTS: a Python with the package openai")
def test_the_real_client(server: Running, clip: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "clip.wav", *soundfile.read(clip, dtype="int16"))
    program = Path(__file__).with_name("openai_client.py")
    command = [os.environ["WAVASR_CLIENTS"], str(program), server.url, str(tmp_path / "clip.wav")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    assert set(texts.values()) == {wavasr.transcribe(clip).text}
    assert set(texts) == {"json", "verbose_json", "text", "stream", "realtime", "realtime with turns"}
