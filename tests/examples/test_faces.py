from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.feature import haar_like_feature, haar_like_feature_coord
from skimage.transform import integral_image

from examples.faces import stages
from examples.faces.windows import KINDS, SIDE, SIZES, lay, weigh

ROOT = Path(__file__).parents[2]


def run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.faces", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_plain_and_proxied_agree_and_leave_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = "--size", "small", "--output", str(tmp_path), "--json", str(figures)
    done = run_example(*options, "--only", "plain", "proxied")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same answers to the last bit: yes" in done.stdout
    assert "objects left: 0" in done.stdout
    assert "Traceback" not in done.stderr

    summary: dict[str, Any] = json.loads(figures.read_text())
    plain, proxied = summary["runs"]["plain"], summary["runs"]["proxied"]
    assert summary["identical"] is True
    for run in (plain, proxied):
        assert run["objects_used"] == run["objects_left"] == 0
        assert all(seconds > 0 for seconds in run["stages"].values())
    # The matrix of 8 MB goes to twelve tasks: twice, through the scheduler, where it is plain.
    assert plain["hub_bytes"] > 100e6
    assert proxied["hub_bytes"] < plain["hub_bytes"] / 5
    assert plain["worker_bytes"] > 20e6
    assert proxied["worker_bytes"] < plain["worker_bytes"] / 5
    assert plain["stored_bytes"] == 0
    assert proxied["stored_bytes"] > 8e6

    with Image.open(summary["picture"]) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[2] == 3
    assert pixels.std() > 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--size", "huge"], "choose from 'small', 'full'"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
        (["--only", "parsl"], "choose from 'plain', 'scattered', 'proxied'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = run_example(*arguments, "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("faces: ")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr


def test_features_are_those_of_skimage() -> None:
    table, (pictures, _) = lay(step=1), stages.load()
    measured = stages.measure(pictures[:2], weigh(table))
    assert measured.shape == (2, 190_736)
    for kind in KINDS:
        theirs = haar_like_feature(
            integral_image(pictures[0].astype(float)), 0, 0, SIDE, SIDE, kind
        )
        corners, _ = haar_like_feature_coord(SIDE, SIDE, kind)
        place = {}
        for number, rectangles in enumerate(corners):
            (top, left), (bottom, right) = rectangles[0]
            place[top, left, bottom - top + 1, right - left + 1] = number
        ours = table[table.kind == kind]
        assert len(ours) == len(theirs)
        order = [place[w] for w in zip(ours.top, ours.left, ours.height, ours.width, strict=True)]
        values = measured[0, ours.index]
        signs = np.sign(values @ theirs[order])  # which half is the light one
        np.testing.assert_allclose(values, signs * theirs[order], atol=1e-4)


def test_small_windows_are_some_of_all() -> None:
    all_windows, some = (lay(SIZES[size].step) for size in ("full", "small"))
    assert 5_000 < len(some) < len(all_windows) / 10
    columns = ["kind", "top", "left", "height", "width"]
    assert len(some.merge(all_windows, on=columns)) == len(some)
    assert some.y.between(0, SIDE - 1).all()
    assert some.x.between(0, SIDE - 1).all()


def test_chance_and_bounds_find_one_feature_that_tells() -> None:
    generator = np.random.default_rng(5)
    labels = np.repeat([1, 0], 100)
    matrix = generator.normal(size=(200, 500)).astype(np.float32)
    matrix[:, 7] += 2 * labels
    matrix = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)

    strength = stages.correlate(labels, matrix)
    expected = [np.corrcoef(labels, column)[0, 1] for column in matrix.T]
    np.testing.assert_allclose(strength, expected, atol=1e-5)
    strongest = stages.permute(0, matrix, labels, draws=40)
    assert strongest.shape == (40,)
    assert np.flatnonzero(np.abs(strength) > np.quantile(strongest, 0.95)).tolist() == [7]

    low, high = stages.bound([stages.resample(seed, matrix, labels, 20) for seed in range(5)])
    apart = matrix[labels == 1].mean(axis=0) - matrix[labels == 0].mean(axis=0)
    assert np.mean((low <= apart) & (apart <= high)) > 0.99
    assert low[7] > 1
