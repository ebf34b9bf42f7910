"""A progress line for loops that take minutes."""

from rich import progress


class Bar:
    """Shows how much is done, something in words, and the time left."""

    def __init__(self, total: int, name: str, *, shown: bool):
        self.line = progress.Progress(
            progress.TextColumn(name),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            disable=not shown,
        )
        self._task = self.line.add_task("", total=total)

    def __enter__(self):
        self.line.__enter__()
        return self

    def __exit__(self, *exception):
        self.line.__exit__(*exception)

    def show(self, done: int, text: str) -> None:
        """Brings the line up to date."""
        self.line.update(self._task, completed=done, description=text)


def show_record(bar: Bar, record, best: float) -> None:
    """Brings the line of a tuning up to date; an undone step gets a line of its own."""
    if record.status != "accepted" and not bar.line.disable:
        bar.line.console.print(
            f"step {record.step}: {record.value:.4g} is {record.status}; turned back, rate halved"
        )
    bar.show(record.step + 1, f"value {record.value:.4g}, best {best:.4g},")
