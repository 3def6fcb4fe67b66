# SPDX-License-Identifier: Apache-2.0
"""Writes a model package whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import tomli_w

from edgerun.errors import ModelError
from edgerun.model_package import MANIFEST, Manifest, load_package, write_sums
from exporters.calibrate import CalibrationTable

MAX_BYTES = 6 * 1024 * 1024  # what a wheel can carry


def write_package(
    folder: Path,
    manifest: Manifest,
    graphs: Mapping[str, onnx.ModelProto],
    table: CalibrationTable,
    report: Mapping[str, Any],
    card: str,
    licence: str,
) -> None:
    """Build beside `folder`, verify, then rename; an old package there is replaced. Raises ModelError above 6 MiB."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        write_manifest(fresh, manifest)
        for graph, model in graphs.items():
            onnx.save(model, fresh / manifest.graphs[graph])  # type: ignore[index]
        table.write(fresh / "calibration.json")
        (fresh / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (fresh / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        (fresh / "LICENSE").write_text(licence, encoding="utf-8")
        write_sums(fresh)
        load_package(fresh)
        _check_size(fresh)
        _swap(fresh, folder, Path(scratch) / "old")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = tomli_w.dumps(manifest.model_dump(mode="json"))
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > MAX_BYTES:
        raise ModelError(f"{folder.name}: package has {size} bytes; at most {MAX_BYTES} fit. Leave out a graph.")


def _swap(fresh: Path, folder: Path, old: Path) -> None:
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
