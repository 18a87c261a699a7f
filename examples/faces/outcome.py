"""What a run gave and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from examples.faces.stages import Values

Mode = Literal["plain", "scattered", "proxied"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Answers:
    """What the workflow found out; there are `f` features.

    Attributes:
        strength: How each feature correlates with faces; shape (f,).
        strongest: The largest correlations that chance gave, one a permutation.
        bounds: Between what faces and others are apart, in standard deviations; shape (2, f).
        scores: For each model, the accuracy for each choice of its parameters.
        kinds: For each kind of features, how many there are and how many tell a face.
        glance: For each pixel the strongest correlation of a window around it.
        best: The strongest feature of each kind.
    """

    strength: Values
    strongest: Values
    bounds: Values
    scores: dict[str, Values]
    kinds: pd.DataFrame
    glance: Values
    best: pd.DataFrame

    def like(self, other: Answers) -> bool:
        """Tell whether both are the same, to the last bit."""
        return (
            self._bits() == other._bits()
            and self.kinds.equals(other.kinds)
            and self.best.equals(other.best)
        )

    def _bits(self) -> list[bytes]:
        arrays = self.strength, self.strongest, self.bounds, self.glance, *self.scores.values()
        return [np.ascontiguousarray(array).tobytes() for array in arrays]


@dataclass(frozen=True)
class Outcome:
    """What a run gave and what it cost.

    Attributes:
        answers: What it found out.
        stages: Seconds that each stage took.
        cpu_seconds: Processor time of all processes meanwhile.
        hub_bytes: Bytes that the process of client and scheduler sent.
        worker_bytes: Bytes that workers sent to each other, the scheduler and the client.
        peak_bytes: Most memory that all processes and the stores held together.
        stored_bytes: Most of it that lay in stores.
        warnings: Warnings of Dask that a graph is large.
        objects_used: Objects in stores after the last future was dropped.
        objects_left: Files in stores after the cluster was closed.
    """

    answers: Answers
    stages: dict[str, float]
    cpu_seconds: float
    hub_bytes: int
    worker_bytes: int
    peak_bytes: int
    stored_bytes: int
    warnings: int
    objects_used: int
    objects_left: int

    @property
    def seconds(self) -> float:
        """Seconds that all stages took."""
        return sum(self.stages.values())
