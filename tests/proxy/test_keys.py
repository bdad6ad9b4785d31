"""How key files read."""

from __future__ import annotations

import pytest

from proxy import keys

GOOD = {name: keys.serialise(bytes([number]) * 32) for number, name in enumerate(keys.NAMES)}


def test_each_file_is_one_secret() -> None:
    """surface.md, settings: cookie, identity, split, preview, synthetic, control; each may have a previous one."""
    parsed = keys.parse(GOOD | {"cookie.previous": keys.serialise(b"p" * 32)})
    assert parsed.cookie == keys.Secret(bytes(32), b"p" * 32)
    assert [getattr(parsed, name).current[0] for name in keys.NAMES] == list(range(6))
    assert parsed.control.previous is None


def test_other_files_beside_the_keys_do_no_harm() -> None:
    """A mounted Secret has ``..data``, an editor leaves backups."""
    assert keys.parse(GOOD | {"cookie~": b"?", "..data": b""}) == keys.parse(GOOD)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"], ids=["none", "lf", "crlf"])
def test_the_line_end_of_a_key_file_is_free(ending: bytes) -> None:
    """``kubectl create secret --from-literal`` writes none."""
    assert keys.parse(GOOD | {"split": b"AB" * 32 + ending}).split.current == b"\xab" * 32


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"ab" * 31, b"ab" * 33, b"zz" * 32, b"ab" * 32 + b"\n\n", b" " + b"ab" * 32,
        b"\xef\xbb\xbf" + b"ab" * 32, bytes(32),
    ],
    ids=["empty", "line", "short", "long", "no-hex", "two-lines", "blank", "mark", "raw"],
)  # fmt: skip
def test_a_key_file_of_another_form_is_refused_by_name_without_its_content(content: bytes) -> None:
    """house-style.md: an error says what was expected and what came; a secret is not shown."""
    with pytest.raises(keys.KeyFileError, match=r"^identity: expected 64 hexadecimal digits") as caught:
        keys.parse(GOOD | {"identity": content})
    assert "abab" not in str(caught.value)


def test_a_faulty_previous_key_is_refused_and_not_left_out() -> None:
    """Left out, every user whom it signed would be somebody else."""
    with pytest.raises(keys.KeyFileError, match=r"^cookie\.previous: "):
        keys.parse(GOOD | {"cookie.previous": b""})


@pytest.mark.parametrize("name", keys.NAMES)
def test_a_missing_key_is_named(name: str) -> None:
    """Every secret but the previous ones must be there."""
    with pytest.raises(keys.KeyFileError, match=f"^{name}: .* found none"):
        keys.parse({other: content for other, content in GOOD.items() if other != name})


def test_a_secret_does_not_show_in_a_traceback_or_a_log() -> None:
    """security: secrets never in logs."""
    assert "61" not in repr(keys.Secret(b"a" * 32, b"a" * 32))
    assert "aaa" not in repr(keys.parse({name: keys.serialise(b"a" * 32) for name in keys.NAMES}))
