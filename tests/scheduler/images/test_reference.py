"""Image references: what is taken, what is refused and with which words."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import BadRequest
from scheduler.images.reference import MAX_CHARS, Reference, parse_reference

SHA = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "domain", "path", "tag", "digest", "tagged"),
    [
        ("imgproc", "", "imgproc", "latest", "", "imgproc:latest"),
        ("imgproc:1", "", "imgproc", "1", "", "imgproc:1"),
        ("vision/ocr:2024-11", "", "vision/ocr", "2024-11", "", "vision/ocr:2024-11"),
        ("host:5000/acme/ocr:1", "host:5000", "acme/ocr", "1", "", "host:5000/acme/ocr:1"),
        ("host:5000/ocr", "host:5000", "ocr", "latest", "", "host:5000/ocr:latest"),
        (f"host:5000/acme/ocr@{SHA}", "host:5000", "acme/ocr", "", SHA, ""),
        (f"ocr:3@{SHA}", "", "ocr", "3", SHA, ""),
        ("localhost/ocr", "localhost", "ocr", "latest", "", "localhost/ocr:latest"),
        ("docker.io/library/debian:12", "docker.io", "library/debian", "12", "", "debian:12"),
        ("docker.io/acme/x:1", "docker.io", "acme/x", "1", "", "acme/x:1"),
        (
            "[::1]:5000/a__b/c-.d".replace("-.", "--"),
            "[::1]:5000",
            "a__b/c--d",
            "latest",
            "",
            "[::1]:5000/a__b/c--d:latest",
        ),
    ],
)
def test_what_a_reference_says(text: str, domain: str, path: str, tag: str, digest: str, tagged: str) -> None:
    parsed = parse_reference(text)
    assert parsed == Reference(text=text, domain=domain, path=path, tag=tag, digest=digest)
    assert parsed.tagged == tagged


def test_an_image_id_is_no_tag() -> None:
    assert parse_reference(SHA) == Reference(text=SHA, image_id=SHA)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no image was named"),
        ("Imgproc:1", "lower case"),
        ("acme/OCR", "lower case"),
        ("a" * (MAX_CHARS + 1), "513 characters"),
        ("a" * 256, "256 characters"),
        ("ocr:", "tag"),
        ("ocr:" + "x" * 129, "tag"),
        ("ocr:.x", "tag"),
        ("ocr:ä", "tag"),
        ("ocr@", "digest"),
        ("ocr@sha256:12", "digest"),
        (f"ocr@{SHA}@{SHA}", "digest"),
        ("/ocr", "empty"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("../etc", "not the name of a registry"),
        ("a/../etc", "not an image reference"),
        ("ocr 1", "not an image reference"),
        ("ocr\n", "not an image reference"),
        ("-ho.st/x", "registry"),
        ("host:99999999/x", "registry"),
        ("a\udcff", "not an image reference"),
        ("http://host/x", "empty|registry"),
    ],
)
def test_what_is_refused_names_the_field_and_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        parse_reference(text)
    assert caught.value.field == "image"
    assert str(caught.value).isprintable()


PART = st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+)?", fullmatch=True)


@given(
    domain=st.sampled_from(["", "host:5000", "r.example", "localhost"]),
    parts=st.lists(PART, min_size=1, max_size=4),
    tag=st.text(string.ascii_letters + string.digits + "_", max_size=20),
    digest=st.booleans(),
)
def test_every_part_comes_back(domain: str, parts: list[str], tag: str, digest: bool) -> None:
    if not domain:
        # A first part with a dot is a registry's name.
        parts = [part.replace(".", "_") if len(parts) > 1 else part for part in parts]
        parts = ["x" + parts[0].removeprefix("localhost"), *parts[1:]]
    path = "/".join(parts)
    name = "/".join(filter(None, [domain, path]))
    text = name + (":" + tag if tag else "") + ("@" + SHA if digest else "")
    parsed = parse_reference(text)
    assert (parsed.domain, parsed.path) == (domain, path)
    assert parsed.tag == (tag or ("" if digest else "latest"))
    assert parsed.digest == (SHA if digest else "")


@given(st.text(max_size=600))
def test_anything_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except BadRequest:
        return
    assert parsed.text == text
    assert parsed.path or parsed.image_id
