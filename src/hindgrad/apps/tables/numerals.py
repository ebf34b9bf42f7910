"""How numbers are written in text: signs, marks between thousands, decimal commas."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "-", "--", "NULL", "null", "#N/A", ".")
"""What stands for a missing value in the columns to learn from."""

PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+([eE][+-]?\d+)?")
"""With a decimal comma, and perhaps points between thousands."""

COMMAS_BETWEEN = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
POINTS_BETWEEN = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
BLANKS_BETWEEN = re.compile(r"[+-]?\d{1,3}( \d{3})+([.,]\d+)?")

EITHER_COMMA = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""A decimal comma, or one between thousands."""
EITHER_POINT = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")

SAMPLE = 200


def is_numeral(cell: str) -> bool:
    """Whether a text is a number, however it is written."""
    cell = bare(cell.strip("'"))
    return any(form.fullmatch(cell) for form in (PLAIN, COMMA, COMMAS_BETWEEN, POINTS_BETWEEN))


def bare(cell: str) -> str:
    """Without signs of currencies and per cent or blanks between thousands, and with the minus of
    the keyboard."""
    cell = cell.strip().replace("\u2212", "-").replace("\u00a0", " ").replace("\u202f", " ")
    cell = re.sub(r"^[$€£]\s*|\s*[%$€£]$", "", cell)
    cell = re.sub(r"(?<=^-)[$€£]", "", cell)
    return cell.replace(" ", "") if BLANKS_BETWEEN.fullmatch(cell) else cell


def with_points(cell: str, comma: bool) -> str:
    """A number as programs write it; other text as `bare` leaves it.

    `comma`: whether commas are decimal, and points between thousands, where it may be either.
    """
    cell = bare(cell)
    if comma and COMMA.fullmatch(cell):
        return cell.replace(".", "").replace(",", ".")
    if comma and POINTS_BETWEEN.fullmatch(cell):
        return cell.replace(".", "")
    return cell.replace(",", "") if COMMAS_BETWEEN.fullmatch(cell) else cell


@dataclass(frozen=True)
class Marks:
    """What the numbers of one column say of commas and points."""

    comma: bool = False
    """Some have a decimal comma for sure."""
    point: bool = False
    """Some have a decimal point, or commas between thousands, for sure."""
    either_comma: bool = False
    """Some are such as 1,100."""
    either_point: bool = False
    """Some are such as 1.100."""

    @property
    def decimal_comma(self) -> bool:
        """Whether commas are decimal beyond doubt."""
        return self.comma and not self.point


def marks_of(cells: Iterable[str]) -> Marks:
    """What a column's different values say; nothing if most of them are no numbers."""
    known = [cell for cell in cells if cell not in MISSING]
    sample = known[:: max(1, len(known) // SAMPLE)]
    if 2 * sum(map(is_numeral, sample)) <= len(sample):
        return Marks()
    comma = point = either_comma = either_point = False
    for cell in map(bare, known):
        if "," not in cell and "." not in cell:
            continue
        if EITHER_COMMA.fullmatch(cell):
            either_comma = True
        elif EITHER_POINT.fullmatch(cell):
            either_point = True
        elif COMMA.fullmatch(cell) or POINTS_BETWEEN.fullmatch(cell):
            comma = True
        elif COMMAS_BETWEEN.fullmatch(cell) or POINT.fullmatch(cell):
            point = True
    return Marks(comma, point, either_comma, either_point)
