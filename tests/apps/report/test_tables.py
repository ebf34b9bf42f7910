"""Comparisons and the tables that show them."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from hindgrad.apps.report import tables
from hindgrad.apps.report.tables import METRICS, Arm, paired


def arm(name, losses):
    return Arm(name, [100] * len(losses), {metric: np.asarray(losses, float) for metric in METRICS})


TUNED, RIVAL = arm("tuned", [0.1, 0.2, 0.15, 0.3]), arm("random, global", [0.2, 0.25, 0.1, 0.4])


def test_a_paired_difference_agrees_with_the_paired_t_test():
    comparison = paired(TUNED, RIVAL, "test_loss")
    test = stats.ttest_rel(TUNED.values["test_loss"], RIVAL.values["test_loss"])
    interval = test.confidence_interval(0.95)
    assert comparison.mean == pytest.approx(-0.05)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high))
    assert (comparison.wins, comparison.seeds) == (3, 4)


def test_intervals_hold_where_test_rows_are_redrawn_from_the_same_rows():
    """Of 100 rows, on which two ways differ by chance, five draws of 20: the interval covers the
    true difference, zero, in 95 % of such data; without the correction in far fewer."""
    rng, covered = np.random.default_rng(0), {0.0: 0, 20 / 80: 0}
    for _ in range(1000):
        differences = rng.normal(size=100)
        one = arm("one", [rng.choice(differences, 20, False).mean() for _ in range(5)])
        for redrawn in covered:
            found = paired(one, arm("other", [0.0] * 5), "test_loss", redrawn)
            covered[redrawn] += found.low <= 0 <= found.high
    assert covered[0.0] < 870
    assert covered[20 / 80] > 930


def test_the_table_of_recalls():
    recalls, classes = {"tuned": [0.5, np.nan]}, ["[b]a|b[/b]", "c"]
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(tables.recall_table(recalls, classes))
    assert "[b]a|b[/b]" in console.export_text()
    lines = tables.recall_markdown(recalls, classes)
    assert lines[1:] == [
        "| recall of | [b]a\\|b[/b] | c |",
        "| --- | ---: | ---: |",
        "| tuned | 50% |  |",
    ]


def test_one_seed_has_a_difference_without_an_interval():
    comparison = paired(arm("tuned", [0.1]), arm("defaults", [0.3]), "test_loss")
    assert np.isnan(comparison.low)
    assert tables.show_interval(comparison) == "-0.2000"
    assert np.isnan(TUNED.spread("test_loss")) is np.False_
    assert tables.show(0.1, arm("tuned", [0.1]).spread("test_loss")) == "0.1000"


def test_a_rival_that_blew_up_is_beaten():
    comparison = paired(TUNED, arm("defaults", [np.inf, 0.3, 0.3, 0.4]), "test_loss")
    assert comparison.wins == 4
    assert comparison.mean == -np.inf
    assert tables.show(np.inf, arm("d", [np.inf, 1]).spread("test_loss")) == "inf"


def test_the_printed_table_has_the_best_in_bold():
    table = tables.results_table([RIVAL, TUNED], "error", 4)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "0.1875 ±.0854" in text
    assert "test error" in text
    assert "Mean ± standard deviation over 4 seeds; 100 training gradients each" in text
    assert list(table.columns[3].cells) == ["0.2375 ±.1250", "[bold]0.1875 ±.0854[/]"]


def test_the_table_of_every_arm_fits_into_a_terminal():
    """80 columns, with the longest of the names that are there by themselves."""
    arms = [arm("logistic regression", [0.1, 0.2]), arm("tuned", [0.1, 0.3])]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.results_table(arms, "error", 2))
    assert "…" not in console.export_text()


def test_a_title_is_one_line_above_a_narrow_table():
    title = "quadratic, size 2: median loss at step"
    table = tables.titled(title)
    table.add_column("1")
    table.add_row("2")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    assert console.export_text().splitlines()[0].rstrip() == title


def test_the_csv_has_a_line_for_each_arm_and_seed(tmp_path):
    tables.write_csv(tmp_path / "table.csv", [RIVAL, TUNED], [0, 1, 2, 3])
    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8
    assert lines[4]["arm"] == "tuned"
    assert float(lines[5]["test_loss"]) == 0.2


def test_the_markdown_has_both_tables(tmp_path):
    comparisons = [paired(TUNED, RIVAL, "test_loss")]
    tables.write_markdown(tmp_path / "t.md", [RIVAL, TUNED], comparisons, "error", ["In words."])
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("In words.\n\n|")
    assert "| tuned | 0.1875 ±.0854 |" in text
    assert "| random, global | test loss | -0.0500" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {7, 5}
