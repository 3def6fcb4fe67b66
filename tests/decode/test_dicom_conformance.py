# SPDX-License-Identifier: Apache-2.0
"""Every DICOM file of the development data, against a second decoder or a sibling, or listed with the reason."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgerun.decode.dicom import DicomImage, open_dicom
from edgerun.errors import DecodeError, EdgerunError, SourceError
from tests.decode.dicom_peers import Pixels, peer_of, peer_pixels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("EDGERUN_TEST_DATA", HERE.parents[2] / "shared" / "data")) / "dicom"
EXCEPTIONS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "dicom_known_exceptions.toml").read_text())
# The largest difference of a sample between two right decoders. T.81's DCT and 15444-1's 9/7 filter are not exact.
LOSSY = {"JPEG Baseline (Process 1)": 3, "JPEG 2000": 1, "HTJ2K": 1} | dict.fromkeys(
    ("JPEG Extended (Process 2 and 4)", "JPEG Spectral Selection (Process 6 and 8)",
     "JPEG Full Progression (Process 10 and 12)"), 1,
)  # fmt: skip
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file()) if FOLDER.is_dir() else []
TABLE: Counter[tuple[str, str, str]] = Counter()

pytestmark = pytest.mark.skipif(not FILES, reason=f"no development data at {FOLDER} (EDGERUN_TEST_DATA)")


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def digest(frames: list[Pixels]) -> str:
    whole = hashlib.sha256()
    for frame in frames:
        whole.update(f"{frame.shape}{frame.dtype.str}".encode())
        whole.update(np.ascontiguousarray(frame).tobytes())
    return whole.hexdigest()


def stored(image: DicomImage) -> list[Pixels]:
    return [image.stored_pixels(k) for k in range(image.frames)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
@pytest.mark.timeout(20)
def test_pixels_are_those_of_an_independent_decoder(path: Path) -> None:
    known = EXCEPTIONS.get(name_of(path), {})
    if "error" in known:
        expected = {"DecodeError": DecodeError, "SourceError": SourceError}[known["error"]]
        with pytest.raises(expected, match=known["match"]) as caught:
            stored(open_dicom(path))
        assert "\n" not in str(caught.value)
        assert path.name not in str(caught.value)
        TABLE["(refused)", "-", known["error"]] += 1
        return
    image = open_dicom(path)
    ours = stored(image)
    for k in range(image.frames):
        assert image.display_pixels(k).dtype == np.uint8
    if "same_as" in known:
        assert digest(ours) == digest(stored(open_dicom(FOLDER / known["same_as"])))
        TABLE[image.transfer_syntax.name, image.transfer_syntax.decoder, "hash of its sibling"] += 1
        return
    peer = known.get("peer", peer_of(image))
    theirs = peer_pixels(path, image, peer)
    tolerance = known.get("tolerance", LOSSY.get(image.transfer_syntax.name, 0))
    if tolerance == 0:
        assert digest(ours) == digest(theirs)
    else:
        for a, b in zip(ours, theirs, strict=True):
            assert np.abs(a.astype(np.int64) - b.astype(np.int64)).max() <= tolerance
    how = "hash" if tolerance == 0 else f"within {tolerance}"
    TABLE[image.transfer_syntax.name, image.transfer_syntax.decoder, f"{how} of {peer}"] += 1


def test_every_exception_names_a_file() -> None:
    assert set(EXCEPTIONS) <= {name_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES[::4], ids=name_of)
def test_a_damaged_file_is_an_error_of_ours(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(len(whole))
    for _ in range(6):
        broken = bytearray(whole[: int(rng.integers(1, len(whole)))] if rng.random() < 0.4 else whole)
        for _ in range(int(rng.integers(1, 12))):
            broken[int(rng.integers(0, len(broken)))] = int(rng.integers(0, 256))
        try:
            image = open_dicom(bytes(broken))
            image.display_pixels(image.frames - 1)
        except EdgerunError as error:
            assert "\n" not in str(error)  # noqa: PT017 - many are still good


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a check: what the run above found, by transfer syntax."""
    with capsys.disabled():
        for (syntax, decoder, result), count in sorted(TABLE.items()):
            print(f"\n{count:4}  {syntax:42} {decoder:16} {result}", end="")
        print()
