"""Does a step do what the hypergradient says?"""

from typing import NamedTuple

import numpy as np


class Foresight(NamedTuple):
    """What the hypergradient says of a step, and what the step does: not an infinitesimal one, but
    one that a tuner would take."""

    foretold: float
    """The derivative of the objective along the whole step, by the hypergradient."""
    values: tuple[float, float, float]
    """The objective at the beginning, halfway and at the end."""

    @property
    def happened(self) -> float:
        """The same derivative by differences of second order, to which curvature does no harm:
        near a minimum, a step may well lead up the other side."""
        begin, half, end = self.values
        return -3 * begin + 4 * half - end

    @property
    def error(self) -> float:
        """How far they differ, relative to the largest slope around; 0 where nothing changes, NaN
        or infinite where something is not finite."""
        begin, half, end = self.values
        slopes = [self.foretold, 2 * (half - begin), 2 * (end - half)]
        size, apart = np.max(np.abs(slopes)), abs(self.foretold - self.happened)
        rounding = 1e-6 * np.max(np.abs(self.values))
        return 0.0 if apart <= rounding else float(apart / size)
