# SPDX-License-Identifier: Apache-2.0
"""DICOM instances to pixels. Needs the extra `dicom`; nothing imports this package before a DICOM object comes."""

from __future__ import annotations

from edgerun.decode.dicom.attributes import FrameFacts, Overlay, Padding, PixelLayout, Spacing
from edgerun.decode.dicom.codecs import TRANSFER_SYNTAXES
from edgerun.decode.dicom.image import DicomImage, open_dicom
from edgerun.decode.dicom.lut import LookupTable, Rescale, VoiFunction, Window
from edgerun.decode.dicom.part10 import DicomLimits

__all__ = [
    "TRANSFER_SYNTAXES", "DicomImage", "DicomLimits", "FrameFacts", "LookupTable", "Overlay", "Padding", "PixelLayout",
    "Rescale", "Spacing", "VoiFunction", "Window", "open_dicom",
]  # fmt: skip
