"""The master key: where it comes from, and what is said when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.accounts.sealing import KEY_VARIABLE, Seal, SealError, load, new_key


def test_a_key_file_holds_the_present_key_first(tmp_path: Path) -> None:
    path, old, new = tmp_path / "key", new_key(), new_key()
    path.touch(0o600)
    path.write_text(f"{old}\n")
    signature = load(path).sign(b"content")
    path.write_text(f"{new}\n{old}\n")
    both = load(path)
    both.check(b"content", signature)
    assert both.sign(b"content") != signature
    path.write_text(f"{new}\n")
    with pytest.raises(SealError, match="not in the key file"):
        load(path).check(b"content", signature)


def test_the_environment_serves_where_no_file_is_named() -> None:
    key = new_key()
    assert load(None, {KEY_VARIABLE: key}).key_id == Seal([bytes.fromhex(key)]).key_id
    with pytest.raises(SealError, match="gcompute account init"):
        load(None, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds 0 keys"),
        ("00" * 31 + "\n", "line 1: a key is 64 hexadecimal digits"),
        ("00" * 32 + "\nkey\n", "line 2"),
        (("00" * 32 + "\n") * 9, "holds 9 keys"),
        ("é", "not a key file"),
    ],
)
def test_a_key_file_that_is_none_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(text, "utf-8")
    with pytest.raises(SealError, match=said) as caught:
        load(path)
    assert text.strip() not in str(caught.value) or not text


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(new_key())
    path.chmod(0o640)
    with pytest.raises(SealError, match="chmod 600"):
        load(path)
    with pytest.raises(SealError, match="No such file"):
        load(tmp_path / "absent")


def test_a_changed_content_or_signature_is_found(seal: Seal) -> None:
    signature = seal.sign(b"content")
    seal.check(b"content", signature)
    key_id, _, mac = signature.partition(".")
    for content, claimed in (
        (b"other", signature),
        (b"content", f"{key_id}.{mac[:-1]}"),
        (b"content", f"{key_id}.{'0' * 64}"),
        (b"content", f"{key_id}."),
        (b"content", ""),
        (b"content", f"{key_id}.é"),
    ):
        with pytest.raises(SealError):
            seal.check(content, claimed)


def test_secrets_of_two_purposes_differ(seal: Seal) -> None:
    assert seal.secret("access tokens") != seal.secret("book")
    assert seal.secret("access tokens") == seal.secret("access tokens", seal.key_id)
