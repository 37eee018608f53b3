"""Frames come out the same however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.ipc.errors import FrameTooLarge, ProtocolError
from paddock.ipc.frames import HEADER_SIZE, MAX_FRAME, FrameDecoder, encode

PAYLOADS = st.lists(st.binary(max_size=40), max_size=6)


def test_every_split_of_a_stream_gives_the_same_frames():
    payloads = [b"", b"a", "Grüße, 世界".encode(), bytes(300)]
    stream = b"".join(map(encode, payloads))
    for offset in range(len(stream) + 1):
        decoder = FrameDecoder()
        assert decoder.feed(stream[:offset]) + decoder.feed(stream[offset:]) == payloads
        assert decoder.at_boundary


@given(payloads=PAYLOADS, cuts=st.lists(st.integers(0, 300), max_size=12))
def test_any_cuts(payloads: list[bytes], cuts: list[int]):
    stream = b"".join(map(encode, payloads))
    decoder, out, last = FrameDecoder(), [], 0
    for cut in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        out += decoder.feed(stream[last:cut])
        last = cut
    assert out == payloads
    decoder.close()


@given(payload=st.binary(min_size=1, max_size=50), kept=st.integers(0, 53))
def test_a_cut_off_frame_is_seen(payload: bytes, kept: int):
    stream = encode(payload)
    decoder = FrameDecoder()
    decoder.feed(stream[: min(kept, len(stream) - 1)])
    assert decoder.at_boundary == (kept == 0)
    if kept:
        with pytest.raises(ProtocolError, match="inside a frame"):
            decoder.close()


def test_an_oversized_frame_is_refused_at_its_header():
    decoder = FrameDecoder(max_frame=10)
    assert decoder.feed(encode(bytes(10))) == [bytes(10)]
    assert decoder.feed(b"\0\0\0") == []
    with pytest.raises(FrameTooLarge) as caught:
        decoder.feed(b"\x0b")
    assert (caught.value.size, caught.value.limit) == (11, 10)
    with pytest.raises(FrameTooLarge):
        decoder.feed(b"")


def test_nothing_oversized_is_sent():
    assert len(encode(bytes(MAX_FRAME))) == MAX_FRAME + HEADER_SIZE
    with pytest.raises(FrameTooLarge):
        encode(bytes(MAX_FRAME + 1))


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_hostile_bytes_give_frames_or_a_refusal(chunks: list[bytes]):
    decoder = FrameDecoder(max_frame=32)
    for chunk in chunks:
        try:
            assert all(len(payload) <= 32 for payload in decoder.feed(chunk))
        except FrameTooLarge:
            return
