"""WebSocket as the proxy sees it: the handshake's answer, and where frames end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.websocket import TO_CLIENT, TO_SERVICE, Frames, accept, check_granted

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_answer_to_a_key() -> None:
    """The example of RFC 6455 section 1.3."""
    assert accept(KEY) == ACCEPT


def test_what_was_asked_for_is_granted() -> None:
    check_granted(KEY, b"websocket", [ACCEPT])


@pytest.mark.parametrize(
    ("key", "upgrade", "accepts"),
    [
        (b"", b"websocket", [ACCEPT]),
        (b"", b"", []),
        (KEY, b"", [ACCEPT]),
        (KEY, b"h2c", [ACCEPT]),
        (KEY, b"websocket,h2c", [ACCEPT]),
        (KEY, b"websocket", []),
        (KEY, b"websocket", [b""]),
        (KEY, b"websocket", [ACCEPT.lower()]),
        (KEY, b"websocket", [ACCEPT, ACCEPT]),
    ],
)
def test_anything_else_is_the_services_fault(key: bytes, upgrade: bytes, accepts: list[bytes]) -> None:
    """RFC 6455 section 4.1, the client's checks; contract item 7."""
    with pytest.raises(UpstreamError) as caught:
        check_granted(key, upgrade, accepts)
    assert (caught.value.kind, caught.value.status) == ("protocol", 502)


def frame(size: int, opcode: int = 2, masked: bool = False) -> bytes:
    """A frame of zeros, with the shortest length field that will do."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, mask | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, mask | 127)) + size.to_bytes(8)
    return head + bytes(4 * masked) + bytes(size)


SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536])


@given(st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=6), st.data())
def test_ends_are_found_in_pieces_of_any_size(frames: list[tuple[int, bool]], data: st.DataObject) -> None:
    """RFC 6455 section 5.2: a Close may stand exactly where as many bytes went by as some frames have together."""
    stream = b"".join(frame(size, masked=masked) for size, masked in frames)
    ends, end = {0}, 0
    for size, masked in frames:
        end += len(frame(size, masked=masked))
        ends.add(end)
    around = [at for end in ends for at in range(end - 12, end + 12) if 0 < at < len(stream)]
    cuts = sorted(data.draw(st.sets(st.sampled_from(around), max_size=40)))
    tracker = Frames()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        tracker.feed(stream[start:stop])
        assert tracker.can_close == (stop in ends)


def test_nothing_follows_a_close() -> None:
    """RFC 6455 section 5.5.1."""
    tracker = Frames()
    tracker.feed(frame(5) + TO_CLIENT[:1])
    assert not tracker.has_closed
    tracker.feed(TO_CLIENT[1:])
    assert tracker.has_closed
    assert not tracker.can_close


@pytest.mark.parametrize(("close", "masked"), [(TO_CLIENT, 0), (TO_SERVICE, 0x80)], ids=["client", "service"])
def test_our_own_close_is_one_frame(close: bytes, masked: int) -> None:
    """Masked as a client's are and a server's are not, with a code of section 7.4.1."""
    tracker = Frames()
    tracker.feed(frame(0) + close)
    assert tracker.has_closed
    assert close[:2] == bytes((0x88, masked | 2))
    assert close[2:-2] == bytes(4 if masked else 0)
    assert int.from_bytes(close[-2:]) == 1001
