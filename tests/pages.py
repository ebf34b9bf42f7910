"""The pages of the documentation, and whether what they print is what they say."""

import math
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def name(page):
    return page.relative_to(ROOT).as_posix()


def same(printed, written):
    """Whether two texts agree, numbers to 3% (they differ between machines, and so does how many
    spaces NumPy fills them up with)."""
    words = lambda text: NUMBER.sub("#", text).replace("]", " ]").split()
    if words(printed) != words(written):
        return False
    numbers = zip(NUMBER.findall(printed), NUMBER.findall(written), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.03) for a, b in numbers)
