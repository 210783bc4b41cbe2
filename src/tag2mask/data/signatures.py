"""What a file is by its first bytes, to say it where it is no photo."""

from __future__ import annotations

from pathlib import Path

_STARTS = {
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 file",
    b"\xff\x0a": "a JPEG XL file",
    b"\x00\x00\x00\x0cJXL": "a JPEG XL file",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"PK\x03\x04": "a ZIP archive",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
}
_BRANDS = {b"avif": "an AVIF file", b"avis": "an AVIF file"}
_HEIF = (b"hei", b"hev", b"mif1", b"msf1")


def what_it_is(path: str | Path) -> str:
    """Return what a file is, for a message; an empty text where its first bytes do not tell."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError:
        return ""
    if not start:
        return "the file is empty"
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        known = _BRANDS.get(brand, "a HEIC file" if brand.startswith(_HEIF) else "a film or an image of a telephone")
        return f"it is {known}, whatever its name says"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not a photo: the download failed"
    return next((f"it is {name}" for mark, name in _STARTS.items() if start.startswith(mark)), "")
