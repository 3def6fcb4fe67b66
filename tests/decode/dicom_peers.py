# SPDX-License-Identifier: Apache-2.0
"""Second opinions on DICOM pixels: for each of our decoders a library that shares no code with it.

| ours                       | theirs                                    |
|----------------------------|-------------------------------------------|
| NumPy, imagecodecs RLE     | pydicom's own                             |
| libjpeg-turbo (JPEG)       | GDCM's IJG libjpeg (8, 12 and 16 bits)     |
| CharLS, OpenJPEG           | FFmpeg's own jpegls and jpeg2000 (HT too)  |
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from edgerun.decode.dicom import DicomImage
from edgerun.decode.dicom.codestream import jpeg2000_header

Pixels = NDArray[Any]
FFMPEG_CODECS = {"CharLS": "jpegls", "OpenJPEG": "jpeg2000"}


def peer_of(image: DicomImage) -> str:
    return {"libjpeg-turbo": "GDCM", "CharLS": "FFmpeg", "OpenJPEG": "FFmpeg"}.get(
        image.transfer_syntax.decoder, "pydicom"
    )


def peer_pixels(path: Path, image: DicomImage, peer: str = "") -> list[Pixels]:
    """Frames as `stored_pixels` gives them, or RGB where the peer transforms colour by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match peer or peer_of(image):
            case "GDCM":
                return by_gdcm(path, image)
            case "FFmpeg":
                dataset = pydicom.dcmread(path)
                frames = (get_frame(dataset.PixelData, k, number_of_frames=image.frames) for k in range(image.frames))
                return [by_ffmpeg(frame, image) for frame in frames]
            case _:
                return by_pydicom(path, image)


def by_pydicom(path: Path, image: DicomImage) -> list[Pixels]:
    dataset = pydicom.dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = "pydicom" if syntax.is_compressed and not syntax.is_deflated else ""
    arrays = get_decoder(syntax).iter_array(dataset, raw=True, decoding_plugin=plugin)
    return [np.array(array).astype(image.layout.dtype, copy=False) for array, _ in arrays]


def by_gdcm(path: Path, image: DicomImage) -> list[Pixels]:
    import gdcm  # type: ignore[import-untyped]  # not on every machine

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read(), "GDCM can't read it"
    picture = reader.GetImage()
    kind = "i" if picture.GetPixelFormat().GetPixelRepresentation() else "u"
    cells = np.frombuffer(
        picture.GetBuffer().encode("utf-8", "surrogateescape"),
        f"<{kind}{picture.GetPixelFormat().GetBitsAllocated() // 8}",
    )
    shape = (image.rows, image.columns) + ((3,) if image.layout.samples == 3 else ())
    if picture.GetPlanarConfiguration() == 1 and image.layout.samples == 3:
        planes = cells.reshape(image.frames, 3, image.rows, image.columns)
        return list(np.moveaxis(planes, 1, -1))
    return list(cells.reshape(image.frames, *shape))


def by_ffmpeg(data: bytes, image: DicomImage) -> Pixels:
    """FFmpeg shifts samples up to its format's depth and doesn't know of signs: both are undone."""
    codec = FFMPEG_CODECS[image.transfer_syntax.decoder]
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, VideoCodecContext)
    (picture, *_) = context.decode(av.Packet(data)) + context.decode(None)
    pixels: Pixels = picture.to_ndarray()
    if codec == "jpegls":
        return pixels.view(image.layout.dtype) if pixels.itemsize == image.layout.dtype.itemsize else pixels
    header = jpeg2000_header(data)
    plain = (pixels >> (8 * pixels.itemsize - header.precision)).astype(np.int64)
    if header.is_signed:
        plain -= 1 << (header.precision - 1)
    elif image.layout.is_signed:  # the codestream and the data set disagree: the bits count
        plain = np.where(plain >= 1 << (header.precision - 1), plain - (1 << header.precision), plain)
    return plain.astype(image.layout.dtype)
