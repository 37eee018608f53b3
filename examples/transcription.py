"""Transcribe a recording, sleep for a month, then index what was said.

    python -m paddock.examples.transcription                  with a sleep of two seconds
    python -m paddock.examples.transcription --sleep 30d      as it is meant

The recording is Morse code in a WAV file, and the transcription really listens to it. The program follows the instance from outside
as other programs would: it asks for its status, waits for its end, cancels a second one in its sleep, and cleans both up.
"""

import argparse
import array
import asyncio
import hashlib
import itertools
import math
import os
import tempfile
import wave

from pydantic import BaseModel

from paddock import AppServer, FlowContext, flow

RATE = 8000
DOT = RATE // 50
LOUD = 2000
WINDOW = 40
BETWEEN_LETTERS, BETWEEN_WORDS = 2, 5
CODE = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..".split(),  # noqa: SIM905  a table reads best like this
        strict=True,
    )
)
LETTERS = {code: letter for letter, code in CODE.items()}


class Recording(BaseModel):
    """Where the recording lies, and how long to sleep before it is indexed."""

    path: str
    sleep: str = "30d"


class Entry(BaseModel):
    """What goes into the index."""

    text: str
    embedding: list[float]


def record(path: str, text: str) -> None:
    """Make a recording: a tone for a dot, three times as long for a dash."""
    lengths: list[int] = []  # in dots; a tone is positive, silence negative
    for word in text.upper().split():
        for letter in word:
            for sign in CODE[letter]:
                lengths += [1 if sign == "." else 3, -1]
            lengths[-1] = -3
        lengths[-1] = -7
    samples = array.array("h")
    for length in lengths:
        loud = 16000 if length > 0 else 0
        samples.extend(int(loud * math.sin(2 * math.pi * 600 * n / RATE)) for n in range(abs(length) * DOT))
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes(samples.tobytes())


def transcribe(path: str) -> str:
    """Listen to a recording and return what it says."""
    with wave.open(path, "rb") as file:
        samples = array.array("h", file.readframes(file.getnframes()))
    loud = [max(map(abs, samples[n : n + WINDOW])) > LOUD for n in range(0, len(samples), WINDOW)]
    text, code = "", ""
    for tone, run in itertools.groupby(loud):
        dots = len(list(run)) * WINDOW / DOT
        if tone:
            code += "." if dots < BETWEEN_LETTERS else "-"
        elif dots > BETWEEN_LETTERS:
            text, code = text + LETTERS.get(code, "?") + (" " if dots > BETWEEN_WORDS else ""), ""
    return (text + LETTERS.get(code, "")).strip()


def embed(text: str) -> list[float]:
    """Return a vector for a text: words are hashed into eight numbers of length one. A model would do better."""
    found = [0.0] * 8
    for word in text.split():
        digest = hashlib.sha256(word.encode()).digest()
        found[digest[0] % 8] += 1 if digest[1] % 2 else -1
    length = math.hypot(*found) or 1.0
    return [round(number / length, 3) for number in found]


@flow("transcription", description="Transcribes a recording, and indexes it a month later.")
async def transcription(recording: Recording, ctx: FlowContext) -> Entry:
    """Transcribe, sleep, index."""
    text = await ctx.step("transcribe", transcribe, recording.path, timeout="10min")
    await ctx.sleep("a month", recording.sleep)
    embedding = await ctx.step("embed", embed, text)
    return Entry(text=text, embedding=embedding)


async def asleep(server: AppServer, ident: str) -> None:
    """Return once the instance sleeps; print what it is doing."""
    async for _ in server.events.subscribe("workflow.suspended", instance_id=ident, after=0):
        break
    instance = await server.workflows.get_instance(ident)
    if instance is not None:
        done = [step.step_name for step in instance.step_results.values() if step.status == "completed"]
        print(f"{ident}: {instance.status.value} at {instance.current_step!r}, done: {', '.join(done)}")


async def main() -> None:
    """Transcribe one recording to its end, and another one that is cancelled."""
    parser = argparse.ArgumentParser(prog="transcription", description="Transcribe, sleep for a month, index.")
    parser.add_argument("--sleep", default="2s", help="how long to sleep, such as 30d (default: 2s)")
    parser.add_argument("--text", default="what hath god wrought", help="what the recording says (letters only)")
    options = parser.parse_args()
    if not options.text.replace(" ", "").isascii() or not options.text.replace(" ", "").isalpha():
        parser.error("the recording can only say the letters from A to Z")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "recording.wav")
        record(path, options.text)
        async with AppServer(db=os.path.join(folder, "index.db")) as server:
            server.workflows.register(transcription)
            first = await server.workflows.start(transcription, Recording(path=path, sleep=options.sleep), id="first")
            other = await server.workflows.start(transcription, Recording(path=path), id="other")
            await asleep(server, other)
            print(f"{other}: cancelled in its sleep: {await server.workflows.cancel(other)}")
            entry = await server.workflows.result(first)
            print(entry.model_dump_json())
            for ident in (first, other):
                await server.workflows.cleanup(ident)
            print(f"{len(await server.workflows.get_instances('transcription'))} left")


if __name__ == "__main__":
    asyncio.run(main())
