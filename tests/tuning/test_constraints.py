"""Constraints: exact projections, addressed and composed, and clear refusals."""

import collections

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import optimize

from hindgrad.tuning.constraints import (
    Box,
    Intersection,
    L1Ball,
    NonNegative,
    Simplex,
    Symmetric,
    projection,
)
from hindgrad.tuning.projections import AbsoluteTotal, Total

Pair = collections.namedtuple("Pair", "first second")


@pytest.fixture
def unchecked():
    """Without the tests' type checks, as in a user's program."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def coordinates(low=-4.0, high=4.0):
    number = st.floats(low, high) | st.sampled_from([0.0, 0.5, 1.0])  # ties, too
    return st.lists(number, min_size=1, max_size=6).map(np.array)


def matrices(n):
    return st.lists(st.floats(-3, 3), min_size=n * n, max_size=n * n).map(
        lambda values: np.reshape(values, (n, n))
    )


@st.composite
def cases(draw, kinds=("box", "simplex", "ball", "box & simplex", "box & ball")):
    """A constraint on `x` that leaves something, a point of it, and a point to project."""
    y = draw(coordinates())
    n = len(y)
    inside = np.resize(draw(coordinates(-1, 1)), n)
    below, above = (np.resize(draw(coordinates(0, 1)), n) ** 2 for _ in range(2))
    kind = draw(st.sampled_from(kinds))
    if "simplex" in kind:
        inside = np.abs(inside)
    lower, upper = inside - np.abs(below), inside + np.abs(above)
    slack = draw(st.sampled_from([0.0, 0.3]))
    parts = {
        "box": Box(x=(lower, upper)),
        "simplex": Simplex(x=np.abs(inside).sum()),
        "ball": L1Ball(x=np.abs(inside).sum() + slack),
    }
    return Intersection(*(parts[name] for name in kind.split(" & "))), inside, y, kind, parts


def project(constraint, y):
    """In float64."""
    with jax.enable_x64(True):
        return np.asarray(constraint({"x": jnp.asarray(y, jnp.float64)})["x"])


def nearest_by_scipy(constraint, y):
    """The projection as a quadratic program in (p, m), where x = p − m, p ≥ 0 and m ≥ 0."""
    n = len(y)
    difference, size = np.hstack([np.eye(n), -np.eye(n)]), np.ones(2 * n)
    conditions = []
    for _, region in constraint.regions:
        for bound, sign in ((region.lower, 1), (region.upper, -1)):
            bound = np.broadcast_to(bound, n)
            (rows,) = np.nonzero(np.isfinite(bound))
            if rows.size:
                side = sign * difference[rows], sign * bound[rows], np.inf
                conditions.append(optimize.LinearConstraint(*side))
        if isinstance(region.coupling, Total):
            total = region.coupling.total
            conditions.append(optimize.LinearConstraint(difference.sum(0), total, total))
        if isinstance(region.coupling, AbsoluteTotal):
            conditions.append(optimize.LinearConstraint(size, 0, region.coupling.radius))
    found = optimize.minimize(
        lambda z: 0.5 * np.sum((difference @ z - y) ** 2),
        np.concatenate([np.maximum(y, 0), np.maximum(-y, 0)]),
        jac=lambda z: difference.T @ (difference @ z - y),
        bounds=[(0, None)] * (2 * n),
        constraints=conditions,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return difference @ found.x


BOX = Box(x=(np.array([0, 0, 0.1, 0.2, 0]), np.array([1, 0.5, 0.4, 2, np.inf])))
SIGNED_BOX = Box(x=(np.array([-1, -1, 0.2, -0.3, -2]), np.array([1, 0, 0.8, 1, -0.5])))


@pytest.mark.parametrize(
    "constraint",
    [
        BOX,
        Simplex(x=1.5),
        L1Ball(x=2.0),
        BOX & Simplex(x=1.5),
        BOX & L1Ball(x=1.5),
        SIGNED_BOX & L1Ball(x=1.5),
        Box(x=(None, 0.25)) & L1Ball(x=1.5),
    ],
)
def test_is_the_nearest_point_that_scipy_finds(constraint):
    for y in np.random.default_rng(0).normal(size=(6, 5)) * 1.5:
        expected = nearest_by_scipy(constraint, y)
        np.testing.assert_allclose(project(constraint, y), expected, atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(case=cases(), data=st.data())
def test_a_projection_is_feasible_idempotent_non_expansive_and_optimal(case, data):
    constraint, inside, y, kind, parts = case
    x = project(constraint, y)
    for name in kind.split(" & "):
        (_, region), *_ = parts[name].regions
        assert np.all(x >= region.lower - 1e-12)
        assert np.all(x <= region.upper + 1e-12)
        if name == "simplex":
            np.testing.assert_allclose(x.sum(), region.coupling.total, atol=1e-12)
        if name == "ball":
            assert np.abs(x).sum() <= region.coupling.radius + 1e-12
    np.testing.assert_allclose(project(constraint, x), x, atol=1e-12)
    np.testing.assert_allclose(project(constraint, inside), inside, atol=1e-12)
    other = np.resize(data.draw(coordinates()), len(y))
    z = project(constraint, other)
    assert np.linalg.norm(x - z) <= np.linalg.norm(y - other) + 1e-12
    for feasible in (z, inside):
        assert (y - x) @ (feasible - x) <= 1e-11


@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 4), zero_diagonal=st.booleans())
def test_symmetric_matrices_in_a_box_and_a_ball(data, n, zero_diagonal):
    y, other, size = (data.draw(matrices(n)) for _ in range(3))
    size = np.abs(size + size.T)
    radius = data.draw(st.floats(0, 5))
    constraint = (
        Symmetric("x", zero_diagonal=zero_diagonal) & Box(x=(-size, size)) & L1Ball(x=radius)
    )
    x, z = project(constraint, y), project(constraint, other)
    np.testing.assert_array_equal(x, x.T)
    assert np.all(np.abs(x) <= size)
    assert np.abs(x).sum() <= radius + 1e-12
    assert not zero_diagonal or not np.diag(x).any()
    assert np.sum((y - x) * (z - x)) <= 1e-11
    np.testing.assert_allclose(project(constraint, x), x, atol=1e-12)


def test_cases_known_by_hand():
    hyper = {"x": jnp.array([3.0, -1.0, 0.5])}
    for constraint, expected in [
        (Box(x=(0, 1)), [1, 0, 0.5]),
        (Box(x=(None, jnp.array([1.0, 2.0, 0.0]))), [1, -1, 0]),
        (NonNegative("x"), [3, 0, 0.5]),
        (Simplex(x=1.0), [1, 0, 0]),
        (Simplex(x=0.0), [0, 0, 0]),
        (L1Ball(x=3.0), [2.5, -0.5, 0]),
        (L1Ball(x=9.0), [3, -1, 0.5]),
        (L1Ball(x=0.0), [0, 0, 0]),
        (Box(x=(0, 1)) & L1Ball(x=1.2), [1, 0, 0.2]),
        (Box(x=(-0.25, 2)) & Simplex(x=3.0), [2, 0, 1]),
        (Box(x=(None, -1)) & L1Ball(x=4.0), [-1, -1, -1]),
    ]:
        np.testing.assert_allclose(constraint(hyper)["x"], expected, atol=1e-6)
    square = jnp.array([[1.0, 2.0], [4.0, -5.0]])
    np.testing.assert_allclose(Symmetric("")(square), [[1, 3], [3, -5]])
    np.testing.assert_allclose(Symmetric("", zero_diagonal=True)(square), [[0, 3], [3, 0]])
    pair = Symmetric("", zero_diagonal=True) & Simplex({"": 1.0})
    np.testing.assert_allclose(pair(square), [[0, 0.5], [0.5, 0]])


def test_ends_of_a_box_may_sum_to_the_total_exactly():
    hyper = {"x": jnp.array([3.0, -1.0, 0.5])}
    for bounds in ((1 / 3, 1), (0, 1 / 3)):
        constraint = Box(x=bounds) & Simplex(x=1.0)
        np.testing.assert_allclose(constraint(hyper)["x"], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    ("constraint", "total"),
    [
        (L1Ball(x=1500.0) & Box(x=(0, 1)), 1500),
        (Simplex(x=1.0), 1),
        (L1Ball(x=1.0), 1),
        (Simplex(x=500.0) & Box(x=(0.05, 0.15)), 500),
    ],
)
def test_float32_is_accurate_for_many_elements(constraint, total, scale, offset):
    y = np.random.default_rng(0).normal(offset, scale, 5000).astype(np.float32)
    x = constraint({"x": jnp.asarray(y)})["x"]
    exact = project(constraint, y)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, exact, rtol=0, atol=2e-6 * np.abs(exact).max())
    size = np.abs(np.asarray(x, np.float64)).sum()
    np.testing.assert_allclose(size, np.abs(exact).sum(), rtol=2e-6)
    assert size <= total * (1 + 2e-6)


def test_far_away_points_keep_the_total():
    x = Simplex(x=1.0)({"x": jnp.array([1e8, 3.0, 1e8])})["x"]
    np.testing.assert_allclose(x, [0.5, 0, 0.5])


def test_nan_stays_nan():
    for constraint in (Box(x=(0, 1)), Simplex(x=1.0), L1Ball(x=1.0)):
        assert jnp.isnan(constraint({"x": jnp.array([jnp.nan, 1.0])})["x"][0])


class Layer(eqx.Module):
    rate: jax.Array
    activation: object
    kind: str = eqx.field(static=True, default="dense")


def test_addresses_reach_into_containers():
    hyper = {
        "layers": [Layer(jnp.array(-1.0), jnp.tanh), Layer(jnp.array(-2.0), jnp.tanh)],
        "pair": Pair(-3.0, (-4.0, None)),
        "a.b": -5.0,
        "layers_too": -6.0,
    }
    given = Box({"layers.0.rate": (0, 1), "pair.second": (0, None), "a.b": (-1, 0)})(hyper)
    assert given["layers"][0].rate == 0
    assert given["layers"][1].rate == -2
    assert given["pair"] == Pair(-3.0, (0, None))
    assert given["a.b"] == -1
    all_layers = NonNegative("layers")(hyper)
    assert [layer.rate for layer in all_layers["layers"]] == [0, 0]
    assert all_layers["layers_too"] == -6.0
    everything = NonNegative("")(hyper)
    assert everything["pair"] == Pair(0, (0, None))


def test_what_is_not_floating_point_is_left_alone(key):
    inner = {"n": 3, "f": jnp.tanh, "key": key, "none": None, "i": np.arange(3), "x": -1.0}
    given = NonNegative("all")({"all": inner, "other": -2.0})
    for name in ("n", "f", "key", "none", "i"):
        assert given["all"][name] is inner[name]
    assert given["all"]["x"] == 0
    assert given["other"] == -2.0


def test_types():
    for leaf, dtype in [
        (-0.5, jnp.float32),
        (np.float32(-0.5), jnp.float32),
        (np.array([-0.5]), jnp.float32),
        (jnp.array([-0.5, 3], jnp.bfloat16), jnp.bfloat16),
        (jnp.array([-0.5, 3], jnp.float16), jnp.float16),
    ]:
        for constraint in (Box(x=(0, 1)), Simplex(x=1.0), L1Ball(x=0.25)):
            x = constraint({"x": leaf})["x"]
            assert isinstance(x, jax.Array)
            assert x.dtype == dtype
            assert not x.weak_type
            assert x.shape == jnp.shape(leaf)
    with jax.enable_x64(True):
        assert Simplex(x=1.0)({"x": 0.5})["x"].dtype == jnp.float64


@pytest.mark.parametrize(
    "constraint",
    [
        Box(x=(np.zeros(4), None), w=(0, 1)),
        Simplex(x=1.0) & Box(x=(0, 0.5)),
        L1Ball(x=1.0),
        Symmetric("C", zero_diagonal=True) & L1Ball(C=1.0),
    ],
)
def test_jit_and_vmap(constraint, key):
    draw = lambda *shape: jax.random.normal(key, shape)
    hyper = {"x": draw(5, 4), "w": draw(5), "C": draw(5, 3, 3)}
    each = [constraint(jax.tree.map(lambda leaf, i=i: leaf[i], hyper)) for i in range(5)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    mapped = jax.vmap(constraint)(hyper)
    for name in hyper:
        np.testing.assert_allclose(mapped[name], expected[name], atol=1e-6)
    one = eqx.filter_jit(constraint)(jax.tree.map(lambda leaf: leaf[0], hyper))
    for name in hyper:
        np.testing.assert_allclose(one[name], expected[name][0], atol=1e-6)


def test_a_constraint_is_static_and_does_not_recompile():
    traces = []

    @eqx.filter_jit
    def run(constraint, hyper):
        traces.append(hyper)
        return constraint(hyper)

    constraint = Box(x=(np.zeros(2), 1)) & L1Ball(x=1.0)
    for x in (0.5, 2.0):
        run(constraint, {"x": jnp.array([x, -x])})
    assert len(traces) == 1
    assert jax.tree.leaves(constraint) == []


def test_constraints_of_one_array_are_joined_however_they_are_given():
    hyper = {"x": jnp.array([3.0, -1.0, 0.5]), "y": jnp.array([-1.0])}
    box, ball = Box(x=(0, 1), y=(0, None)), L1Ball(x=1.2)
    expected = (box & ball)(hyper)
    for joined in (ball & box, projection([box, ball]), projection((ball, box, NonNegative("x")))):
        np.testing.assert_allclose(joined(hyper)["x"], expected["x"])
        np.testing.assert_allclose(joined(hyper)["y"], [0])
    np.testing.assert_allclose(expected["x"], [1, 0, 0.2], atol=1e-6)


def test_projection_takes_what_tune_takes():
    hyper = {"x": 3.0}
    assert projection(None)(hyper) is hyper
    assert projection([])(hyper) == hyper
    own = lambda hyper: {"x": 7.0}
    assert projection(own)(hyper) == {"x": 7.0}
    box = Box(x=(0, 1))
    assert projection(box) is box


HYPER = {
    "w": jnp.ones(4),
    "C": jnp.ones((2, 2)),
    "layers": [{"rate": 0.5}, {"rate": 0.1}],
    "n": 3,
}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(v=(0, 1)), "no 'v' in .*'C', 'layers.0.rate', 'layers.1.rate', 'n', 'w'"),
        (lambda: Box({"layers.2": (0, 1)}), "no 'layers.2'"),
        (lambda: Box(n=(0, 1)), "'n' can be constrained.*'n': 3.*1.0"),
        (lambda: Simplex(layers=1.0), "one array.*'layers.0.rate', 'layers.1.rate'"),
        (lambda: Box(w=(np.zeros(3), 1)), r"'w', of shape \(4,\).* shapes \[\(3,\)\]"),
        (lambda: Box(w=(np.zeros((2, 4)), 1)), "must broadcast"),
        (lambda: Box(w=(0, 1)) & Box(w=(2, 3)), r"lower bound is 2 and .* 1 at index \(0,\)"),
        (lambda: Box(w=(2, 1)), "'w'.* leave nothing"),
        (lambda: Box(w=(np.inf, None)), "'w'.* leave nothing"),
        (lambda: Box(w=([0, 5, 0, 0], 1)), r"5 and .* 1 at index \(1,\)"),
        (lambda: Box(w=(np.nan, 1)), "'w' is NaN"),
        (lambda: Box(w=1), "pair of bounds"),
        (lambda: Box(w=(0, 1, 2)), "pair of bounds"),
        (lambda: Box(), r"constrains nothing: write Box\(rate=\(0, 1\)\)"),
        (lambda: NonNegative(), "constrains nothing"),
        (lambda: Symmetric(zero_diagonal=True), "constrains nothing"),
        (lambda: Simplex(w=1.0) & L1Ball(w=2.0), "2 of Simplex and L1Ball"),
        (lambda: Box(w=(0.5, 1)) & L1Ball(w=1.0), "sum to 2 at least, more than the radius 1"),
        (lambda: Box(w=(None, -1)) & L1Ball(w=1.0), "sum to 4 at least"),
        (lambda: Box(w=(0.5, 1)) & Simplex(w=1.0), "lower bounds sum to 2, more than the total 1"),
        (lambda: Box(w=(0, 0.1)) & Simplex(w=1.0), "upper bounds sum to 0.4, less than .* 1"),
        (lambda: Simplex(w=-1.0), "-1.0; one finite number"),
        (lambda: L1Ball(w=np.inf), "inf; one finite number"),
        (lambda: L1Ball(w=np.ones(4)), "one finite number"),
        (lambda: Symmetric("w"), r"'w', of shape \(4,\), .* square matrix"),
        (lambda: Symmetric("C") & Box(C=([[0, 1], [0, 0]], 2)), "differ from their transpose"),
        (lambda: Symmetric("C", zero_diagonal=True) & Box(C=(1, 2)), r"1 and .* 0 at index \(0, 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()(HYPER)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box((0, 1)), r"does not say which hyperparameter: write Box\(rate=\(0, 1\)\)"),
        (lambda: Box(w=(0, 1)) & jnp.abs, "no exact projection"),
        (lambda: projection([Box(w=(0, 1)), jnp.abs]), "no exact projection"),
        (lambda: projection("box"), "'box' is no projection"),
    ],
)
def test_refusals_of_types(make, message, unchecked):
    with pytest.raises(TypeError, match=message):
        make()


def test_refuses_traced_bounds():
    with pytest.raises(ValueError, match="'w' has is traced"):
        jax.jit(lambda bound: Box(w=(0, bound))(HYPER))(1.0)
