"""The picture of task interactions."""

import numpy as np

from experiments.franceschi2017.task_interactions_report import Graph, graph_figure
from hindgrad.apps.report.figures import save


def two_teams():
    """Even tasks are tied to even ones, odd to odd; one tie between the teams is weak."""
    strengths = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            if i != j and (i - j) % 2 == 0:
                strengths[i, j] = 1 + 0.1 * (i + j)
    strengths[0, 1] = strengths[1, 0] = 0.01
    groups = ["even", "odd"] * 3
    return Graph([f"task {i}" for i in range(6)], groups, strengths)


def test_tied_tasks_come_close():
    order = two_teams().order()
    assert sorted(order.tolist()) == list(range(6))
    assert len(set(order[:3] % 2)) == 1


def test_the_strongest_ties_come_first_and_absent_ones_not_at_all():
    graph = two_teams()
    assert graph.strongest(2) == [(3, 5), (1, 5)]
    assert len(graph.strongest(100)) == 7
    assert graph.strongest(100)[-1] == (0, 1)


def test_a_graph_without_ties_is_drawn(tmp_path):
    graph = two_teams()
    empty = Graph(graph.names, graph.groups, np.zeros((6, 6)))
    accuracies = {name: [50.0 + i, 51.0] for i, name in enumerate("abcd")}
    for i, shown in enumerate((graph, empty)):
        save(graph_figure("six tasks", accuracies, shown), tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 10_000
