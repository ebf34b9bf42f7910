"""Pictures of suspicious labels: that each is drawn, from ordinary and from awkward data."""

import numpy as np
import pytest
from matplotlib.image import imread

from hindgrad.apps.clean import pictures as suspects
from hindgrad.apps.clean.pictures import Found
from hindgrad.apps.report import figures


def found(rows=200, classes=3, suspicious=20, removed=20):
    rng = np.random.default_rng(0)
    weight = rng.random(rows)
    label, likelier = rng.integers(0, classes, (2, rows))
    names = tuple(f"a rather long class {i}" for i in range(classes))
    order = np.argsort(weight)
    return Found(names, weight, label, likelier, order, suspicious, removed)


def drawn(figure, path):
    figures.save(figure, path)
    return imread(path).shape


@pytest.mark.parametrize(
    "case",
    [
        found(),
        found(classes=40),
        found(suspicious=0, removed=0),
        found(rows=20, classes=2, suspicious=20, removed=20),
    ],
    ids=["ordinary", "many classes", "nothing found", "all found"],
)
def test_the_picture_of_what_was_found(case, tmp_path):
    height, width, _ = drawn(suspects.found_figure(case, title="title"), tmp_path / "found.png")
    assert width > height > 400


def test_names_of_classes_are_no_formulas(tmp_path):
    case = found(classes=4)
    names = ("$\\frac$", "a$b", "line\nbreak", "$")
    case = Found(names, case.weight, case.label, case.likelier, case.order, 20, 20)
    title = figures.plain("$\\nonsense{$ in a name")
    height, _, _ = drawn(suspects.found_figure(case, title=title), tmp_path / "found.png")
    assert height > 400


def test_mistakes_are_counted_by_label_and_likelier_class():
    case = Found(
        ("a", "b"),
        np.array([0.1, 0.2, 0.9, 0.3]),
        np.array([0, 0, 0, 1]),
        np.array([1, 1, 1, 0]),
        np.array([0, 1, 3, 2]),
        suspicious=3,
        removed=0,
    )
    assert suspects.mistakes(case).tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (3, 5, 6), (1, 5, 6)])
def test_rows_as_images(shape):
    x = np.random.default_rng(0).random((7, int(np.prod(shape))))
    images = suspects.as_images(x, shape)
    assert images is not None
    assert images.shape == ((7, 5, 6, 3) if 3 in shape else (7, 5, 6))


def test_the_sheet_of_images_has_as_many_lines_as_it_needs(tmp_path):
    pixels = np.random.default_rng(0).random((20, 5, 6))
    heights = [
        drawn(
            suspects.sheet_figure(found(rows=rows), pixels[:rows], title="title"),
            tmp_path / f"{rows}.png",
        )[0]
        for rows in (3, 20)
    ]
    assert heights[1] > 1.3 * heights[0]


def test_pixels_come_to_between_0_and_1_and_odd_shapes_are_no_images():
    images = suspects.as_images(np.array([[-3.0, 5.0, 1.0, 1.0]]), (2, 2))
    assert images is not None
    assert images.ravel().tolist() == [0.0, 1.0, 0.5, 0.5]
    assert suspects.as_images(np.ones((1, 8)), (2, 2, 2)) is None
    assert suspects.as_images(np.ones((1, 4)), (2, 2)) is not None
