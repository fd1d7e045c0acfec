"""What the package `openai` makes of a server: run by an interpreter that has it, prints the texts as JSON.

python openai_client.py http://127.0.0.1:8000 recording.wav
"""

import asyncio
import base64
import json
import sys
import wave
from pathlib import Path

from openai import AsyncOpenAI, BadRequestError, OpenAI

url, clip = sys.argv[1], Path(sys.argv[2])
client = OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def transcribe(**options: object) -> object:
    return client.audio.transcriptions.create(model="whisper-1", file=clip, **options)


def streamed() -> str:
    text = ""
    for event in transcribe(stream=True):
        if event.type == "transcript.text.delta":
            text += event.delta
        else:
            assert event.text == text
    return text


async def realtime(turns: bool) -> str:
    with wave.open(str(clip)) as file:
        rate, content = file.getframerate(), file.readframes(file.getnframes())
    options = {
        "format": {"type": "audio/pcm", "rate": rate},
        "turn_detection": {"type": "server_vad"} if turns else None,
    }
    live = AsyncOpenAI(base_url=f"{url}/v1", websocket_base_url=f"ws{url.removeprefix('http')}/v1", api_key="any")
    async with live.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.session.update(session={"type": "transcription", "audio": {"input": options}})
        for start in range(0, len(content), rate // 5):
            piece = content[start : start + rate // 5]
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        await connection.input_audio_buffer.commit()
        deltas = ""
        async for event in connection:
            if event.type.endswith("transcription.delta"):
                deltas += event.delta
            elif event.type.endswith("transcription.completed"):
                assert event.transcript.startswith(deltas)
                return event.transcript
    raise AssertionError("the connection ended before the transcript")


try:
    client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"no recording"))
except BadRequestError as error:
    assert error.param == "file"
else:
    raise AssertionError("what is no recording was recognised")
assert [model.id for model in client.models.list()] == ["default"]
print(
    json.dumps(
        {
            "json": transcribe().text,
            "verbose_json": transcribe(response_format="verbose_json", timestamp_granularities=["word"]).text,
            "text": transcribe(response_format="text").strip(),
            "stream": streamed(),
            "realtime": asyncio.run(realtime(turns=False)),
            "realtime with turns": asyncio.run(realtime(turns=True)),
        }
    )
)
