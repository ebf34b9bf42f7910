"""How a text is divided: what separates its fields, and what stands above its rows."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hindgrad.apps.tables.numerals import COMMA, EITHER_COMMA, MISSING, PLAIN, is_numeral

NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
"""What may separate fields."""

COMMENTS = ("#", "%")
SAMPLE = 200
"""So many lines tell how the fields are separated, and whether the first is a header."""
CELLS = 20_000
TITLES = 10
"""A table has no more lines of titles than this."""


@dataclass(frozen=True)
class Layout:
    """How the fields of a text are to be told apart."""

    separator: str
    blank_after: bool
    """Whether quotes follow a blank after the separator."""
    quote: str | None = '"'
    """None if records are lines, whatever quotes there are in them."""

    def records(self, lines: Sequence[str]) -> Iterator[list[str]]:
        """The fields of each record."""
        return (fields for fields, _, _ in self.pieces(lines))

    def pieces(self, lines: Sequence[str]) -> Iterator[tuple[list[str], int, int]]:
        """The fields of each record that has any, its first line, and the one after its last."""
        stripped = (line.strip(" ") for line in lines) if self.separator == " " else lines
        reader = csv.reader(
            stripped,
            delimiter=self.separator,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            skipinitialspace=self.separator == " " or self.blank_after,
        )
        start = 0
        for fields in reader:
            if fields:
                yield fields, start, reader.line_num
            start = reader.line_num


@dataclass(frozen=True)
class Parts:
    """A text taken apart."""

    layout: Layout
    before: tuple[str, ...]
    """The lines that are no rows: comments, titles, names and units."""
    rows: list[str]
    places: Sequence[int]
    """Where in the text these lines are."""
    names: list[str] | None
    """As the header has them, if there is one."""
    columns: int
    """How many fields the rows have."""
    notes: tuple[str, ...]


def take_apart(lines: list[str], named: Collection[str] = ()) -> Parts | None:
    """The parts of a text, some of whose columns may be named; None if there is nothing in it."""
    said = re.fullmatch(r'"?sep=(.)"?', lines[0].strip("\r\n "), re.IGNORECASE) if lines else None
    # Where most lines begin so, these are no comments.
    comments = () if 2 * sum(_begins(line, COMMENTS) for line in lines) > len(lines) else COMMENTS
    start = end = 1 if said else 0
    while end < len(lines) and (not lines[end].strip() or _begins(lines[end], comments)):
        end += 1
    rest = lines[end:]
    if not rest:
        return None
    sample = [line for line in rest[: SAMPLE + 1] if line.strip() and not _begins(line, comments)]
    layout = _guess(sample, said[1] if said else None)
    pieces = []
    for piece in layout.pieces(rest[: SAMPLE + 1]):
        pieces.append(piece)
    records = [fields for fields, _, _ in pieces]
    columns = common_width(records)
    uncommented = [fields for fields in records if not _begins(fields[0], comments)]
    head = above_rows(uncommented, columns, named)
    count = head.titles + head.header + head.units
    names = records[head.titles] if head.header else None
    opening, above = lines[start:end], rest[: pieces[count - 1][2] if count else 0]
    rows = rest[len(above) :]
    if not head.header:
        names = _commented(opening, layout, records, columns, comments)
    comment = _comments(rows, layout, columns, comments)
    places = (np.flatnonzero(~comment) + end + len(above)).tolist()
    later = [rows[i] for i in np.flatnonzero(comment)]
    rows = [lines[i] for i in places]
    aside = sum(bool(line.strip()) for line in opening) + len(later)
    aside -= names is not None and not head.header
    notes = _told(aside, head, records)
    before = (*lines[:start], *_inserted(opening, later, named_last=not head.header), *above)
    return Parts(layout, before, rows, places, names, columns, notes)


def _begins(line: str, marks: tuple[str, ...]) -> bool:
    return line.lstrip(" ").startswith(marks)


def common_width(records: Sequence[Sequence[str]]) -> int:
    """How many fields most of the records have."""
    width = Counter(map(len, records))
    return max(width, key=lambda n: (width[n], n))


def _inserted(opening: list[str], later: list[str], *, named_last: bool) -> list[str]:
    """Later comments stand before the last of the first, which may name the columns."""
    cut = len(opening) - 1 if named_last and opening else len(opening)
    return [*opening[:cut], *later, *opening[cut:]]


def _commented(
    opening: list[str],
    layout: Layout,
    records: list[list[str]],
    columns: int,
    comments: tuple[str, ...],
) -> list[str] | None:
    """The names of the columns, where a comment says them."""
    last = next((line for line in reversed(opening) if line.strip()), None)
    if last is None or not comments:
        return None
    fields = next(layout.records([last.lstrip(" ").lstrip("".join(comments)).lstrip(" ")]), [])
    return fields if len(fields) == columns > 1 and has_header([fields, *records]) else None


def _comments(
    lines: list[str], layout: Layout, columns: int, comments: tuple[str, ...]
) -> np.ndarray:
    """Which lines are comments between the rows: those with other fields than the rows have."""
    comment = np.zeros(len(lines), bool)
    found = any(_begins(line, comments) for line in lines)
    for fields, start, end in layout.pieces(lines) if found else ():
        if _begins(lines[start], comments) and len(fields) != columns:
            comment[start:end] = True
    return comment


def _guess(sample: Sequence[str], separator: str | None) -> Layout:
    """What separates the fields, so that most records have as many of them."""
    blank_after = any(re.search(r'[,;|]\s+"', line) for line in sample)
    if separator is not None:
        return Layout(separator, blank_after)
    tried = []
    for separator in NAMED:
        layout = Layout(separator, blank_after)
        rows = list(layout.records(sample))
        count, times = Counter(map(len, rows)).most_common(1)[0]
        tried.append((layout, rows, count, times / len(rows)))
    split = [t for t in tried[:-1] if t[2] > 1 and t[3] >= 0.9] or [
        t for t in tried[-1:] if t[2] > 1 and t[3] >= 0.9
    ]
    # In a file with semicolons and decimal commas, the commas may divide it as evenly.
    layout, *_ = max(
        split or tried[:1], key=lambda t: (round(t[3], 3), _with_commas(t[1][:20]), t[2])
    )
    return layout


def _with_commas(rows: Sequence[Sequence[str]]) -> bool:
    """Whether some of the fields are numbers with decimal commas."""
    cells = [cell.strip() for row in rows for cell in row]
    return any(COMMA.fullmatch(cell) and not EITHER_COMMA.fullmatch(cell) for cell in cells)


@dataclass(frozen=True)
class Head:
    """How many of the first records are no rows."""

    titles: int = 0
    header: bool = False
    units: bool = False


def above_rows(records: Sequence[Sequence[str]], columns: int, named: Collection[str] = ()) -> Head:
    """What stands above the rows: titles, names (those of some columns may be known), and a line
    of units."""
    few = records[: max(20, CELLS // max(1, columns)) + TITLES]
    titles = 0
    while columns > 1 and titles < min(TITLES, len(few)) and _said(few[titles]) < 2:
        titles += 1
    is_header = lambda few: _holds_one(few[0], named) or has_header(few)
    if titles == len(few) or len(few[titles]) < columns or not is_header(few[titles:]):
        titles = 0
    few = few[titles:]
    header = bool(few) and is_header(few)
    units = header and len(few) > 3 and _are_units(few[1], few[2:])
    return replace(Head(), titles=titles, header=header, units=units)


def _holds_one(fields: Sequence[str], named: Collection[str]) -> bool:
    """Whether one of the names is among the fields, and is not a number, which could be a value."""
    cells = {field.strip() for field in fields}
    return any(name.strip() in cells and not is_numeral(name.strip()) for name in named)


def _said(fields: Sequence[str]) -> int:
    return sum(bool(field.strip()) for field in fields)


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record names the columns: it has text where the others have numbers; or
    whole numbers where the others have quite other ones, as 2019, 2020; or, where values come
    again and again, text that does not."""
    names, body = [cell.strip() for cell in rows[0]], rows[1:]
    if not body:
        return 2 * sum(map(is_numeral, names)) < max(1, len(names)) or _first_of(names) in (0, 1)
    text_over, numbers_over, outside, again, new = 0, 0, 0, 0, 0
    for i, name in enumerate(names):
        known = [c for c in (row[i].strip() for row in body if i < len(row)) if c not in MISSING]
        if known and np.mean([is_numeral(cell) for cell in known]) > 0.9:
            text_over += not is_numeral(name) and name not in MISSING
            numbers_over += is_numeral(name)
            outside += name.isdigit() and _is_outside(int(name), known)
        elif name in known:
            again += name not in MISSING
        elif min(Counter(known).values(), default=0) > 1:
            new += bool(name)
    counted = _first_of(names)
    if counted in (0, 1):
        return True
    if numbers_over > 1 and outside == numbers_over and len(set(names)) == len(names):
        return bool(text_over or new or counted)
    if text_over or numbers_over:
        return text_over > 0 and text_over >= numbers_over and counted is None
    return new > 0 or (again == 0 and len(set(names)) == len(names))


def _first_of(names: Sequence[str]) -> int | None:
    """The first of more than two numbers that are counted up, such as pandas' own names."""
    numbered = [int(name) for name in names if name.isdecimal()]
    if len(numbered) < 3 or numbered != list(range(numbered[0], numbered[0] + len(numbered))):
        return None
    return numbered[0]


def _is_outside(value: int, cells: Sequence[str]) -> bool:
    """Whether a number is beyond all of a column's."""
    numbers = [float(cell) for cell in cells if PLAIN.fullmatch(cell)]
    return bool(numbers) and not min(numbers) <= value <= max(numbers)


def _are_units(fields: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the record below the names has text over all columns of numbers, and nothing that
    comes again in the others."""
    found = False
    for i, field in enumerate(cell.strip() for cell in fields):
        known = [c for c in (row[i].strip() for row in rows if i < len(row)) if c not in MISSING]
        if known and np.mean([is_numeral(cell) for cell in known]) > 0.9:
            if is_numeral(field):
                return False
            found |= field not in MISSING
        elif field in known:
            return False
    return found


def _told(comments: int, head: Head, records: Sequence[Sequence[str]]) -> tuple[str, ...]:
    notes = []
    if comments:
        lines = "1 line" if comments == 1 else f"{comments} lines"
        notes.append(f"{lines} of comments left aside.")
    return (*notes, *above_notes(head, records))


def above_notes(head: Head, records: Sequence[Sequence[str]]) -> list[str]:
    """What was left aside, in words."""
    notes = []
    if head.titles:
        lines = "line" if head.titles == 1 else f"{head.titles} lines"
        notes.append(f"The first {lines} left aside, above the names of the columns.")
    if head.units:
        fields = ", ".join(field.strip() for field in records[head.titles + 1])
        notes.append(f"The line below the names is no row, but units: {fields[:80]}.")
    return notes
