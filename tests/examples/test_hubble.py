from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.hubble import stages, workflow
from examples.hubble.scene import SIZES, WHITE, observe, picture

ROOT = Path(__file__).parents[2]


def run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.hubble", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the endpoint runs on Linux only")
def test_both_executors_agree_and_leave_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run_example("--size", "small", "--output", str(tmp_path), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    summary: dict[str, Any] = json.loads(figures.read_text())
    plain, proxied = summary["runs"]["plain"], summary["runs"]["proxied"]
    assert summary["right"] == {"plain": True, "proxied": True}
    assert plain["tasks"] == proxied["tasks"] == 7
    assert plain["objects_left"] == proxied["objects_left"] == 0
    assert plain["broker_bytes"] > 10e6
    assert proxied["broker_bytes"] < plain["broker_bytes"] / 100
    assert plain["store_bytes"] == 0
    assert 4e6 < proxied["store_bytes"] < plain["broker_bytes"]

    with Image.open(summary["picture"]) as drawn:
        pixels = np.asarray(drawn)
    assert pixels.shape[2] == 3
    assert pixels.std() > 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--size", "huge"], "choose from 'small', 'full', 'large'"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
        (["--threshold", "lots"], "give a size such as '100 kB'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = run_example(*arguments, "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("hubble: ")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr


def test_the_sky_is_what_was_there() -> None:
    size = SIZES["small"]
    rows = list(observe(size))
    answer = workflow.here(rows)
    truth = picture(size)[:, :, 0] / 255
    noisy = rows[0][0][0, :, :, 0] / WHITE
    height, width = noisy.shape
    assert answer["sky"].shape == truth.shape
    clean = answer["sky"][:height, :width] - truth[:height, :width]
    assert (clean**2).mean() < 0.2 * ((noisy - truth[:height, :width]) ** 2).mean()


def test_cosmic_rays_are_no_sources() -> None:
    exposures = np.full((16, 40, 40, 1), 2000, np.uint16)
    exposures[:, 10:14, 10:14] = 30_000
    exposures[3, 30:34, 30:34] = WHITE
    answer = stages.survey([stages.strip([stages.combine(exposures)])])
    (source,) = answer["catalog"]
    assert tuple(source[:3]) == (11.5, 11.5, 16)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_sizes_are_as_said(size: Any) -> None:
    first = next(observe(size))[0]
    assert first.nbytes == size.nbytes
    assert first.shape[1:] == size.tile
    assert workflow.count(size) == size.grid[0] * size.grid[1] + size.grid[0] + 1
