"""A progress line for loops that take minutes."""

from rich import progress


class Progress:
    """Shows the outer step, its value, the best so far and the time left."""

    def __init__(self, steps: int, *, shown: bool):
        self._bar = progress.Progress(
            progress.TextColumn("tuning"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            disable=not shown,
        )
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self):
        self._bar.__enter__()
        return self

    def __exit__(self, *exception):
        self._bar.__exit__(*exception)

    def show(self, record, best: float) -> None:
        """Brings the line up to date; an undone step gets a line of its own."""
        if record.status != "accepted" and not self._bar.disable:
            self._bar.console.print(
                f"step {record.step}: {record.value:.4g} is {record.status}; "
                "turned back, rate halved"
            )
        self._bar.update(
            self._task,
            completed=record.step + 1,
            description=f"value {record.value:.4g}, best {best:.4g},",
        )
