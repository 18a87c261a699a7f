from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.imaging import stages
from examples.imaging.scene import MARGIN, SIZES, Field, load, plan

ROOT = Path(__file__).parents[2]


def run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.imaging", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_both_executors_agree_and_leave_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run_example("--size", "small", "--output", str(tmp_path), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert "33/33 tasks" in done.stdout
    assert done.stderr == ""

    summary: dict[str, Any] = json.loads(figures.read_text())
    plain, proxied = summary["runs"]["plain"], summary["runs"]["proxied"]
    assert summary["identical"] is True
    assert plain["tasks"] == proxied["tasks"] == 33
    assert plain["shift_error"] == proxied["shift_error"] < 0.35
    assert plain["objects_left"] == proxied["objects_left"] == 0
    # 10 MB of frames; what is made of them is larger, and plain Parsl carries each of it twice.
    assert plain["parsl_bytes"] > 100e6
    assert proxied["parsl_bytes"] < plain["parsl_bytes"] / 100
    assert plain["store_bytes"] == 0
    assert 30e6 < proxied["store_bytes"] < plain["parsl_bytes"]
    for cost in (*plain.values(), *proxied.values()):
        assert cost >= 0

    with Image.open(summary["picture"]) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[2] == 3
    assert pixels.std() > 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--size", "huge"], "choose from 'small', 'full'"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
        (["--threshold", "lots"], "give a size such as '100 kB'"),
        (["--output", "/dev/null/x"], "cannot make /dev/null/x"),
        (["--json", "/nowhere/x.json"], "cannot write in /nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    if "--output" not in arguments:
        arguments = [*arguments, "--output", str(tmp_path)]
    done = run_example(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("imaging: ")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr


@pytest.mark.parametrize("size", SIZES)
def test_fields_cover_every_picture(size: str) -> None:
    for name, (rows, columns) in SIZES[size].pictures.items():
        picture = load(name)
        assert picture.shape[0] >= rows
        assert picture.shape[1] >= columns
        seen = np.zeros((rows, columns), bool)
        for field in (field for row in plan(SIZES[size])[name] for field in row):
            place = seen[
                field.top : field.top + field.height, field.left : field.left + field.width
            ]
            assert place.shape == (field.height, field.width)
            place[...] = True
        assert seen.all()


def test_stages_recover_one_field() -> None:
    field = plan(SIZES["small"])["hubble_deep_field"][0][1]
    frames = stages.denoise(stages.acquire(field))
    shifts = stages.register(frames)
    np.testing.assert_allclose(shifts, field.shifts(), atol=0.35)
    fused = stages.fuse(stages.align(frames, shifts))

    truth = load(field.picture)[field.top :, field.left :][: field.height, : field.width]
    single = frames[1][MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert fused.shape == truth.shape
    assert ((fused - truth) ** 2).mean() < 0.25 * ((single - truth) ** 2).mean()


def test_the_middle_of_an_overlap_is_a_fade() -> None:
    fields = [Field("x", 0, 0, 0, left, 4, 100, 1) for left in (0, 60)]
    dark, bright = np.zeros((4, 100, 3), np.float32), np.ones((4, 100, 3), np.float32)
    joined = stages.strip(fields, inputs=[dark, bright])
    assert joined.shape == (4, 160, 3)
    assert (joined[:, :60] == 0).all()
    assert (joined[:, 100:] == 1).all()
    assert (np.diff(joined[0, 60:100, 0]) >= 0).all()
    assert joined[0, 79:81, 0] == pytest.approx([0.5, 0.5], abs=0.05)
