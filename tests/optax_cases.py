"""One call of every transformation of optax, and where its derivative is NaN."""

import functools
import inspect
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

STEPS = 3
PLACES = ("always", "coordinate", "unit", "array", "array", "all")

DEFINED = """
    add_decayed_weights add_noise adabelief adadelta adagrad adamax adamaxw adan apply_every
    centralize clip ema fromage identity keep_params_nonnegative lion noisy_sgd
    optimistic_gradient_descent rmsprop rprop scale scale_by_adadelta scale_by_adamax
    scale_by_belief scale_by_learning_rate scale_by_lion scale_by_optimistic_gradient
    scale_by_param_block_norm scale_by_param_block_rms scale_by_rms scale_by_rprop scale_by_rss
    scale_by_schedule scale_by_sign scale_by_sm3 scale_by_stddev scale_by_yogi set_to_zero sgd
    sign_sgd signum sm3 trace yogi zero_nans acprop cocob scale_by_acprop scale_by_cocob
    schedule_free_sgd
"""
"""Those whose derivative is finite at zero gradients, with their defaults."""

AS_WITHIN = """
    apply_if_finite chain conditionally_mask conditionally_transform flatten freeze
    inject_hyperparams inject_stateful_hyperparams lookahead masked measure_with_ema monitor
    multi_transform named_chain partition sam schedule_free selective_transform snapshot
    split_real_and_imaginary stateless stateless_with_tree_map with_extra_args_support
"""
"""Those whose derivative is that of what they are given."""

REFUSED = """
    differentially_private_aggregate dpsgd hutchinson_estimator_diag_hessian lbfgs momo momo_adam
    polyak_sgd reduce_on_plateau scale_by_backtracking_linesearch scale_by_polyak
    scale_by_zoom_linesearch sophia
"""
"""Those that take more than gradients, state and parameters."""

GIVEN = {
    "learning_rate": lambda rate: rate,
    "clipping": lambda rate: 5 * rate,
    "max_norm": lambda rate: 5 * rate,
    "threshold": lambda rate: 5 * rate,
    "max_delta": lambda rate: 5 * rate,
    "step_size": lambda rate: -rate,
    "step_size_fn": lambda rate: lambda count: -rate,
    "eta": lambda rate: 0.5,
    "gamma": lambda rate: 0.5,
    "decay": lambda rate: 0.5,
    "base_optimizer": optax.sgd,
    "key": lambda rate: jax.random.key(0),
}
"""What the arguments of these names are given, from a rate."""


def found():
    """Every public function of optax that makes a transformation."""
    names = {}
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if inspect.isfunction(function) and not name.startswith("_") and _makes(function):
                names[name] = function
    return names


def _makes(function):
    if inspect.signature(function).return_annotation is not inspect.Parameter.empty:
        told = str(inspect.signature(function).return_annotation)
        return "GradientTransformation" in told
    return re.search(
        r"return [\w.]*(GradientTransformation\w*|chain)\(", inspect.getsource(function)
    )


def make(name, settings, rate):
    """The transformation with that rate and those settings, the rest at the defaults."""
    function = found()[name]
    given = dict(settings)
    for p in inspect.signature(function).parameters.values():
        needed = p.default is p.empty or p.name in ("learning_rate", "key")
        if needed and p.name in GIVEN and p.name not in given:
            given[p.name] = GIVEN[p.name](rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return _made(name, function, given)


def _made(name, function, given):
    if name == "scale_by_muon":
        numbers = lambda params: jax.tree.map(
            lambda _: optax.contrib.MuonDimensionNumbers(), params
        )
        made = function(**given, weight_dimension_numbers=numbers)
        return optax.masked(made, {"a": True, "b": False})
    return function(**given)


@functools.cache
def _numbers():
    rng = np.random.default_rng(0)
    draw = lambda *shape: {"a": rng.normal(size=(*shape, 3, 2)), "b": rng.normal(size=(*shape, 3))}
    params, weights, grads = draw(), draw(), draw(STEPS)
    coordinate, unit, one = np.ones((3, 2)), np.ones((3, 2)), np.ones(3)
    coordinate[1, 1], unit[:, 1], one[1] = 0, 0, 0
    masks = [(1, 1), (coordinate, one), (unit, 1), (0, 1), (1, 0), (0, 0)]
    cases = [{"a": grads["a"] * a, "b": grads["b"] * b} for a, b in masks]
    return params, weights, jax.tree.map(lambda *x: np.stack(x), *cases)


def undefined_at(make):
    """The first of `PLACES` at which the derivative of three steps is not finite, taken backwards
    and forwards; "" if there is none. It is the one by the rate and the gradients that depend on
    it; "start" if that by the parameters, or by the first step's gradients, is never finite."""
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.zeros(()).dtype), tree)
    params, weights, cases = map(cast, _numbers())

    def after(rate, grads, params):
        made = make(rate)

        def step(carry, g):
            params, state = carry
            updates, state = made.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, made.init(params)), grads)
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, params, weights)))

    def derivatives(grads):
        at = (jnp.asarray(0.1), grads, params)
        here = lambda rate, grads: after(rate, grads, params)
        along = jax.jvp(here, at[:2], (jnp.ones(()), weights_of(grads)))[1]
        return jax.grad(after, (0, 1, 2))(*at), along

    def weights_of(grads):
        """Tangents of the gradients: that of the first step does not depend on the rate."""
        first = lambda g: jnp.cos(g).at[0].set(0)
        return jax.tree.map(first, grads)

    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    run = jax.jit(lambda cases: jax.lax.map(derivatives, cases), compiler_options=quick)
    with jax.numpy_rank_promotion("allow"):  # optax promotes ranks
        (by_rate, by_grads, by_params), along = run(cases)
    first = jax.tree.map(lambda g: g[:, 0], by_grads)
    later = jax.tree.map(lambda g: g[:, 1:], by_grads)
    backward = _first((by_rate, later))
    if backward != "always" and _first((by_params, first)) == "always":
        backward = "start"
    return backward, _first(along)


def _first(derivatives):
    finite = [np.isfinite(x).reshape(len(PLACES), -1).all(1) for x in jax.tree.leaves(derivatives)]
    bad = ~np.all(finite, 0)
    return PLACES[int(np.argmax(bad))] if bad.any() else ""
