# SPDX-License-Identifier: Apache-2.0
"""Small instances written here, against values worked out by hand from PS3.3 and PS3.5."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID

from edgerun.decode.dicom import DicomImage, DicomLimits, LookupTable, VoiFunction, Window, open_dicom
from edgerun.errors import DecodeError, SourceError
from tests.coded_video import write_video

EXPLICIT = "1.2.840.10008.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PATIENT = "Doe^Jane"


def written(pixels: NDArray[Any], syntax: str = EXPLICIT, data: bytes | None = None, **attributes: Any) -> bytes:
    """A Part 10 file of [H, W], or [H, W, 3] with samples=3; `data` replaces the pixels' own bytes."""
    dataset = FileDataset("", {}, preamble=bytes(128), file_meta=FileMetaDataset())
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = UID(SECONDARY_CAPTURE)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.SOPClassUID, dataset.PatientName = SECONDARY_CAPTURE, PATIENT
    bits = 8 * pixels.itemsize
    defaults: dict[str, Any] = {
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": pixels.shape[0],
        "Columns": pixels.shape[1], "BitsAllocated": bits, "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }  # fmt: skip
    values = defaults | attributes
    values.setdefault("HighBit", values["BitsStored"] - 1)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    raw = pixels.tobytes() if data is None else data
    is_compressed = syntax not in ("1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.1.99")
    dataset.PixelData = raw if is_compressed else raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if is_compressed or bits == 8 else "OW"
    dataset["PixelData"].is_undefined_length = is_compressed
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def opened(pixels: NDArray[Any], **options: Any) -> DicomImage:
    return open_dicom(written(pixels, **options))


def row(*values: int, dtype: str = "<u2") -> NDArray[Any]:
    return np.array([values], dtype)


def table(first: int, bits: int, *entries: int) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new(0x00283006, "US", list(entries))
    return Sequence([item])


@pytest.mark.parametrize(
    ("cell", "stored", "high", "is_signed", "expected"),
    [
        (0x0FFF, 12, 11, 1, -1),
        (0x0800, 12, 11, 1, -2048),
        (0xF7FF, 12, 11, 1, 2047),  # an overlay above the bits stored
        (0xFFFF, 10, 9, 0, 1023),
        (0x3FF0, 10, 13, 0, 1023),  # bits below, too
        (0x2000, 10, 13, 1, -512),
        (0x8000, 16, 15, 1, -32768),
    ],
)
def test_only_the_stored_bits_count(cell: int, stored: int, high: int, is_signed: int, expected: int) -> None:
    image = opened(row(cell, 0), BitsStored=stored, HighBit=high, PixelRepresentation=is_signed)
    assert image.stored_pixels().tolist() == [[expected, 0]]
    assert image.stored_pixels().dtype == ("i2" if is_signed else "u2")


def test_rescale_is_an_integer_only_where_it_can_be() -> None:
    hounsfield = opened(row(0, 1024), RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU").modality_pixels()
    assert hounsfield.dtype == np.int32
    assert hounsfield.tolist() == [[-1024, 0]]
    slow = opened(row(0, 100), RescaleSlope="0.25", RescaleIntercept="-5").modality_pixels()
    assert slow.dtype == np.float32
    assert slow.tolist() == [[-5.0, 20.0]]


# PS3.3 C.11.2.1.2.1: c = 2048, w = 4096: black up to 0, white above 4095, and between x / 4095.
@pytest.mark.parametrize(
    ("window", "x", "expected"),
    [
        (Window(2048, 4096), (0, 2048, 4095), (0, 128, 255)),
        (Window(2048, 1), (2047, 2048, 2049), (0, 255, 255)),  # c - 0.5 is the threshold
        (Window(0, 100), (-50, 0, 49), (0, 129, 255)),  # 0.5 / 99 + 0.5 of 255
        (Window(0, 100, VoiFunction.LINEAR_EXACT), (-50, 0, 25, 50), (0, 128, 191, 255)),
        (Window(2048, 4096, VoiFunction.SIGMOID), (0, 2048, 4096), (30, 128, 225)),  # 255 / (1 + e^2) = 30.4
    ],
)
def test_windows(window: Window, x: tuple[int, ...], expected: tuple[int, ...]) -> None:
    image = opened(row(*x, dtype="<i2"))
    assert image.display_pixels(window=window).tolist() == [list(expected)]


def test_several_windows_luts_and_the_one_asked_for() -> None:
    image = opened(
        row(0, 50, 100, 200), WindowCenter=[50, 100], WindowWidth=[100, 200], VOILUTFunction="LINEAR_EXACT",
        WindowCenterWidthExplanation=["narrow", "wide"], VOILUTSequence=table(50, 8, 10, 20, 30),
    )  # fmt: skip
    assert [window.explanation for window in image.facts(0).windows] == ["narrow", "wide"]
    assert image.display_pixels(window=0).tolist() == [[0, 128, 255, 255]]
    assert image.display_pixels(window=1).tolist() == [[0, 64, 128, 255]]
    assert image.display_pixels(window=2).tolist() == [[10, 10, 30, 30]]
    with pytest.raises(IndexError, match="window 3 of 3"):
        image.display_pixels(window=3)


def test_modality_lut_comes_before_the_window() -> None:
    image = opened(
        row(-2, -1, 0, 5, dtype="<i2"), ModalityLUTSequence=table(-1, 16, 100, 300), WindowCenter=200,
        WindowWidth=200, VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    assert image.modality_pixels().tolist() == [[100, 100, 300, 300]]
    assert image.display_pixels().tolist() == [[0, 0, 255, 255]]


def test_monochrome1_is_inverted_and_padding_is_black() -> None:
    plain = {"WindowCenter": 50, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    image = opened(row(0, 25, 100, 900, 950), PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=900,
                   PixelPaddingRangeLimit=1000, **plain)  # fmt: skip
    assert image.display_pixels().tolist() == [[255, 191, 0, 0, 0]]
    assert image.padding_mask().tolist() == [[False, False, False, True, True]]


def test_padding_is_left_out_of_the_range_of_a_frame_without_window() -> None:
    image = opened(row(-2000, 100, 300, dtype="<i2"), PixelPaddingValue=-2000)
    assert image.display_pixels().tolist() == [[0, 0, 255]]


def test_embedded_and_plain_overlays() -> None:
    pixels = np.array([[0x1001, 2], [3, 0x1004]], "<u2")
    data = open_dicom(written(pixels, BitsStored=12))
    assert data.overlays == ()
    source = io.BytesIO(written(pixels, BitsStored=12))
    from pydicom import dcmread

    dataset = dcmread(source)
    for group, position in ((0x6000, 12), (0x6002, 0)):
        for element, vr, value in ((0x10, "US", 2), (0x11, "US", 2), (0x40, "CS", "G"), (0x102, "US", position)):
            dataset.add_new((group, element), vr, value)
    dataset.add_new((0x6002, 0x50), "SS", [2, 1])  # one row down: its second row falls off
    dataset.add_new((0x6002, 0x3000), "OW", b"\x0e\x00")
    stream = io.BytesIO()
    dataset.save_as(stream)
    image = open_dicom(stream.getvalue())
    assert image.stored_pixels().tolist() == [[1, 2], [3, 4]]
    assert image.overlay_mask(0).tolist() == [[True, False], [False, True]]
    assert image.overlay_mask(1).tolist() == [[False, False], [False, True]]


def test_palette_and_ybr_become_rgb() -> None:
    palette: dict[str, Any] = {}
    for colour, entries in (("Red", [0, 65535]), ("Green", [65535, 0]), ("Blue", [0, 257])):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = np.array(entries, "<u2").tobytes()
    image = opened(row(0, 1, 9, dtype="u1"), PhotometricInterpretation="PALETTE COLOR", **palette)
    assert image.display_pixels().tolist() == [[[0, 255, 0], [255, 0, 1], [255, 0, 1]]]
    ybr = np.array([[[76, 85, 255], [255, 128, 128]]], "u1")  # red and white
    planar = np.moveaxis(ybr, -1, 0).tobytes()
    colour_by_plane = opened(
        ybr, data=planar, SamplesPerPixel=3, PlanarConfiguration=1, PhotometricInterpretation="YBR_FULL"
    )
    assert colour_by_plane.stored_pixels().tolist() == ybr.tolist()
    assert colour_by_plane.display_pixels().tolist() == [[[254, 0, 0], [255, 255, 255]]]


def test_functional_groups_differ_by_frame() -> None:
    def groups(slope: float) -> Dataset:
        item, transform = Dataset(), Dataset()
        transform.RescaleSlope, transform.RescaleIntercept = slope, 0
        item.PixelValueTransformationSequence = Sequence([transform])
        return item

    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    shared.PixelMeasuresSequence = Sequence([measures])
    image = opened(
        row(1, 2), data=row(1, 2, 3, 4).tobytes(), NumberOfFrames=2, SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence([groups(1), groups(10)]), ImagerPixelSpacing=[9, 9],
    )  # fmt: skip
    assert [image.modality_pixels(k).tolist() for k in range(2)] == [[[1, 2]], [[30, 40]]]
    spacing = image.facts(1).spacing
    assert spacing is not None
    assert (spacing.row_mm, spacing.column_mm, spacing.attribute) == (0.5, 0.25, "PixelSpacing")


RAMP = (np.arange(32 * 40).reshape(32, 40) * 51 % 4096).astype("<u2")


@pytest.mark.parametrize("predictor", range(1, 8))
def test_each_predictor_of_lossless_jpeg(predictor: int) -> None:
    data = imagecodecs.jpeg8_encode(RAMP, lossless=True, predictor=predictor, bitspersample=12)
    image = opened(RAMP, syntax="1.2.840.10008.1.2.4.57", data=encapsulate([bytes(data)]), BitsStored=12)
    assert np.array_equal(image.stored_pixels(), RAMP)


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("has_table", [True, False])
def test_frames_over_several_fragments(fragments: int, has_table: bool) -> None:
    frames = [imagecodecs.jpegls_encode(RAMP + np.uint16(k)) for k in range(3)]
    data = encapsulate([bytes(frame) for frame in frames], fragments_per_frame=fragments, has_bot=has_table)
    image = opened(RAMP, syntax="1.2.840.10008.1.2.4.80", data=data, NumberOfFrames=3)
    for k in (2, 0, 1):
        assert np.array_equal(image.stored_pixels(k), RAMP + k)


def test_video_frames_in_any_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mpg", 5, codec="mpeg2video")
    from tests.coded_video import HEIGHT, WIDTH

    image = opened(
        np.zeros((HEIGHT, WIDTH), "u1"), syntax="1.2.840.10008.1.2.4.100", data=encapsulate([path.read_bytes()]),
        SamplesPerPixel=3, PhotometricInterpretation="YBR_PARTIAL_420", PlanarConfiguration=0, NumberOfFrames=5,
    )  # fmt: skip
    ordered = [image.display_pixels(k) for k in range(5)]
    assert ordered[0].shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(image.display_pixels(1), ordered[1])
    assert not np.array_equal(ordered[1], ordered[4])


def test_bombs_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(DecodeError, match=r"65535x65535x1 samples; at most"):
        opened(row(1, 2), Rows=65535, Columns=65535, NumberOfFrames=2000000)
    huge = bytearray(imagecodecs.jpegls_encode(RAMP))
    at = huge.index(b"\xff\xf7")
    huge[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    image = opened(RAMP, syntax="1.2.840.10008.1.2.4.80", data=encapsulate([bytes(huge)]))
    with pytest.raises(DecodeError, match=r"65535, 65535, 1.*the data set says"):
        image.stored_pixels()
    bomb = written(np.zeros((1, 1), "u1"), syntax="1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    meta = bomb[: 132 + 12 + int.from_bytes(bomb[140:144], "little")]
    with pytest.raises(DecodeError, match="inflates to more than"):
        open_dicom(meta + packer.compress(bytes(1 << 24)) + packer.flush(), DicomLimits(inflated_bytes=1 << 20))


def test_nested_sequences_without_end_are_an_error() -> None:
    plain = written(row(1, 2))
    at = plain.index(b"\x28\x00\x02\x00")
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20000
    with pytest.raises(DecodeError, match="damaged"):
        open_dicom(plain[:at] + nest + plain[at:])


def test_no_message_has_the_patient_or_the_path_in_it(tmp_path: Path) -> None:
    path = tmp_path / f"{PATIENT}.dcm"
    path.write_bytes(written(row(1, 2), BitsStored=17, HighBit=16))
    for wrong in (path, tmp_path / f"{PATIENT}.none"):
        with pytest.raises((DecodeError, SourceError)) as caught:
            open_dicom(wrong)
        assert "Doe" not in str(caught.value)
    with pytest.raises(
        DecodeError, match="Secondary Capture Image Storage, Explicit VR Little Endian: BitsStored = 17"
    ):
        open_dicom(path)


def test_look_up_tables_end_where_they_end() -> None:
    lut = LookupTable(10, 8, np.array([1, 2, 3], np.uint16))
    assert lut.apply(np.array([-5, 10, 11, 999])).tolist() == [1, 1, 2, 3]


def test_nothing_imports_pydicom_by_itself() -> None:
    code = "import edgerun.decode.video, edgerun.cli, sys; sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
