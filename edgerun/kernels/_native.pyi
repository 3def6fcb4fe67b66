# SPDX-License-Identifier: Apache-2.0
import numpy as np
from numpy.typing import NDArray

x86_level: int

class ResizePack:
    def __init__(
        self,
        format: int,
        width: int,
        out_size: tuple[int, int],
        offset: tuple[int, int],
        pad: int,
        interleaved: bool,
        bgr: bool,
        colour: tuple[int, int, int, int, int, int],
        x_start: NDArray[np.int32],
        x_weight: NDArray[np.uint16],
        y_start: NDArray[np.int32],
        y_weight: NDArray[np.uint16],
        chroma_x_start: NDArray[np.int32],
        chroma_x_weight: NDArray[np.uint16],
        chroma_y_start: NDArray[np.int32],
        chroma_y_weight: NDArray[np.uint16],
        /,
    ) -> None: ...
    def write(
        self,
        first: NDArray[np.uint8],
        second: NDArray[np.uint8],
        third: NDArray[np.uint8],
        out: NDArray[np.uint8],
        /,
    ) -> None: ...

def blend(
    planes: tuple[NDArray[np.uint8], ...],
    format: int,
    marks: NDArray[np.uint8],
    window: tuple[int, int, int, int],
    fill: tuple[int, int, int],
    fill_alpha: int,
    contour: tuple[int, int, int],
    contour_alpha: int,
    /,
) -> bool: ...
def threshold(
    logits: NDArray[np.float32],
    geometry: tuple[float, float, float, float],
    level: float,
    corner: tuple[int, int],
    out: NDArray[np.uint8],
    /,
) -> None: ...
