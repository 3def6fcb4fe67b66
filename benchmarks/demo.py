# SPDX-License-Identifier: Apache-2.0
"""The whole demo at 30 and 60 pictures a second, 1080p, a row each.

`python -m benchmarks.demo [--json FILE] [--seconds N]` runs `edgerun demo` as a user would, and appends what its
report says. These are absolute times of one machine: no budget rests on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RATES = (30, 60)
STAGES = ("decode", "queue", "preprocess", "infer", "postprocess", "transport", "overlay", "encode", "total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="append the rows to this JSONL file")
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    for rate in RATES:
        row = row_of(run(rate, args.seconds), rate)
        if args.json is not None:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    if args.json is None:
        print("no --json FILE: nothing was appended")


def run(rate: int, seconds: float) -> dict[str, Any]:
    """The report of one demo run, whose table goes to this terminal."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "edgerun",
            "demo",
            "--fps",
            str(rate),
            "--seconds",
            str(seconds),
            "--out",
            folder,
        ]
        subprocess.run(command, check=True)
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        return report


def row_of(report: dict[str, Any], rate: int) -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "benchmark": "demo",
        "fps": rate,
        "size": [report["source"]["width"], report["source"]["height"]],
        "frames": report["frames"],
        "stages_ms": {stage: report["stages_ms"][stage] for stage in STAGES if stage in report["stages_ms"]},
        "annotation_age_ms": report["annotation_age_ms"],
        "native_video": report["native_video"],
        "peak_rss_mb": report["memory"]["peak_rss_mb"],
        "model": report["model"],
        "accuracy": report["accuracy"],
        "machine": report["machine"],
    }


if __name__ == "__main__":
    main()
