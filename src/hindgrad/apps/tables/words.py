"""Names and errors in one line."""

from collections.abc import Sequence


def quoted(names: Sequence[str]) -> str:
    """The names with commas, cut short if they are many."""
    return listed([f"'{name}'" for name in names])


def listed(items: Sequence[str], limit: int = 8) -> str:
    """The items with commas, cut short if they are many."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


def counted(count: int, what: str) -> str:
    """1 row, 2 rows."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def first_line(error: BaseException) -> str:
    """What an error says, in one short line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
