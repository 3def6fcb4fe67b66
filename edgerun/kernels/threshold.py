# SPDX-License-Identifier: Apache-2.0
"""From a model's logits to marks at source resolution, without the float picture in between.

Equal to `edgerun.kernels.reference.threshold` but where the interpolated logit is within rounding (1e-5) of the level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Geometry
from edgerun.kernels import _native
from edgerun.kernels.planes import Window, check_map, check_window, check_writeable

_UINT8 = np.dtype(np.uint8)
_FLOAT32 = np.dtype(np.float32)


def threshold(
    logits: NDArray[np.float32],
    geometry: Geometry,
    window: Window,
    out: NDArray[np.uint8],
    level: float = 0.0,
) -> None:
    """Write 1 to `out` [h, w] where the bilinear logit is above `level` and 0 elsewhere, for `window` (x, y, w, h).

    `geometry` maps samples of the [rows, columns] logit grid to the source: for a grid coarser than the model's input
    by n, scales are n times and offsets 1/n of the input's. Outside the grid its edge is repeated. Logits are finite;
    `p > 0.3` is `level=log(0.3 / 0.7)`. Runs without the GIL.
    """
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"logits have shape {logits.shape}; expected [rows, columns], neither empty")
    check_map("logits", logits, _FLOAT32, logits.shape)
    check_window(window, geometry.source_width, geometry.source_height)
    check_map("out", out, _UINT8, (window[3], window[2]))
    check_writeable((out,), "out")
    if geometry.scale_x <= 0 or geometry.scale_y <= 0:
        raise ValueError(f"geometry scales {geometry.scale_x}, {geometry.scale_y}; expected above 0")
    axes = geometry.scale_x, geometry.scale_y, geometry.offset_x, geometry.offset_y
    _native.threshold(logits, axes, level, (window[0], window[1]), out)
