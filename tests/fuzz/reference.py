"""Training written out as a plain loop, from the formulas; shares no code with the library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


def score(case, hyper, *, wide, window=None, unrolled=False):
    """What the library's run of the case should give, as a function of `hyper`.

    With `wide` all numbers are float64; else they have the case's own dtypes. What acts before
    the last `window` steps counts as constant. `unrolled` is without `lax.scan`, which loses
    rules that are not derivatives from second derivatives.
    """
    hyper = case.complete(hyper)
    parts = Parts(case.start(hyper, wide), case.trained)
    loss = case.loss(wide)
    step = stepper(case, parts)

    def run(state, hyper, part):
        def body(state, xs):
            t, batch = xs
            return step(lambda w: loss(parts.whole(w), hyper, batch), state, hyper, t)

        xs = jnp.arange(case.steps, dtype=jnp.int32), case.stacked_batches(wide)
        xs = jax.tree.map(lambda x: x[part], xs)
        if not unrolled:
            return lax.scan(body, state, xs)
        losses = []
        for k in range(len(xs[0])):
            state, value = body(state, jax.tree.map(lambda x, k=k: x[k], xs))
            losses.append(value)
        return state, jnp.stack(losses)

    state, losses = (parts.values, step.init(parts.values, hyper)), []
    head = 0 if window is None else max(0, case.steps - window)
    if head:
        state, early = lax.stop_gradient(run(state, _constant(hyper), slice(head)))
        losses.append(early)
    state, late = run(state, hyper, slice(head, None))
    losses = None if case.entry == "objective" else jnp.concatenate([*losses, late])
    return case.score(parts.whole(state[0]), hyper, losses)


def stepper(case, parts):
    """The case's step `(loss of the trained leaves, state, hyper, t) -> (state, loss)`."""
    return STEPS[type(case.optimizer).__name__](case.optimizer, parts.tree)


def _constant(hyper):
    return jax.tree.map(lambda x: lax.stop_gradient(x) if isinstance(x, jax.Array) else x, hyper)


class Parts:
    """A tree taken apart into its trained leaves and the rest."""

    def __init__(self, tree, trained):
        self.leaves, self.structure = jax.tree.flatten(tree)
        self.trained = trained

    @property
    def values(self):
        """The trained leaves."""
        return [self.leaves[i] for i in self.trained]

    def whole(self, values):
        """The tree with these trained leaves."""
        return self._with(values, list(self.leaves))

    def tree(self, values):
        """The tree of the trained leaves, with None at all other places."""
        return self._with(values, [None] * len(self.leaves))

    def _with(self, values, leaves):
        for i, value in zip(self.trained, values, strict=True):
            leaves[i] = value
        return jax.tree.unflatten(self.structure, leaves)


def _spread(coefficient, hyper, t, tree, trained):
    """A coefficient at every trained leaf."""
    value = coefficient(hyper, t) if callable(coefficient) else coefficient
    whole = jax.tree.leaves(jax.tree.broadcast(value, tree(trained)))
    wide = lambda w: jnp.promote_types(w.dtype, jnp.float32)
    return [jnp.asarray(c).astype(wide(w)) for c, w in zip(whole, trained, strict=True)]


class MomentumSteps:
    """The four conventions of momentum, as docs/optimizer.md and their docstrings have them."""

    def __init__(self, optimizer, tree):
        self.optimizer, self.tree = optimizer, tree

    def init(self, trained, hyper):
        return [jnp.zeros_like(w) for w in trained]

    def __call__(self, loss, state, hyper, t):
        o = self.optimizer
        params, velocity = state
        rate, decay, strength = (
            _spread(c, hyper, t, self.tree, params) for c in (o.rate, o.decay, o.strength)
        )
        if o.convention == "PositionFirst":
            params = [_as(w, w + a * v) for w, a, v in zip(params, rate, velocity, strict=True)]
        value, grads = jax.value_and_grad(loss)(params)
        if o.kind == "Coupled":
            grads = [g + s * w for g, s, w in zip(grads, strength, params, strict=True)]
        new = []
        for w, v, g, a, m, s in zip(params, velocity, grads, rate, decay, strength, strict=True):
            shrunk = w - a * s * w if o.kind == "Decoupled" else w
            after = m * v - (1 - m) * g
            if o.convention == "Damped":
                moved = shrunk + a * after
            elif o.convention == "PositionFirst":
                after = m * v - g
                moved = w
            elif o.convention == "HeavyBall":
                after = m * v + g
                moved = shrunk - a * after
            else:
                after = m * v + g
                moved = shrunk - a * (g + m * after)
            new.append((_as(w, moved), _as(v, after)))
        params, velocity = (list(part) for part in zip(*new, strict=True))
        return (params, velocity), value


class AdamSteps:
    """Adam (Kingma & Ba 2015); the bias correction divides by the sum of the weights given."""

    def __init__(self, optimizer, tree):
        self.optimizer, self.tree = optimizer, tree

    def init(self, trained, hyper):
        zeros = [jnp.zeros_like(w) for w in trained]
        wide = [jnp.zeros(w.shape, jnp.promote_types(w.dtype, jnp.float32)) for w in trained]
        return zeros, zeros, wide, wide

    def __call__(self, loss, state, hyper, t):
        o = self.optimizer
        params, memory = state
        rate, b1, b2, strength = (
            _spread(c, hyper, t, self.tree, params) for c in (o.rate, o.b1, o.b2, o.strength)
        )
        value, grads = jax.value_and_grad(loss)(params)
        if o.kind == "Coupled":
            grads = [g + s * w for g, s, w in zip(grads, strength, params, strict=True)]
        new = []
        for w, g, a, b, c, s, *old in zip(
            params, grads, rate, b1, b2, strength, *memory, strict=True
        ):
            mean, square, given, given_square = old
            mean = b * mean + (1 - b) * g
            square = c * square + (1 - c) * g**2
            given = b * given + (1 - b)
            given_square = c * given_square + (1 - c)
            corrected = square / given_square
            root = jnp.where(corrected == 0, 0, jnp.sqrt(jnp.where(corrected == 0, 1, corrected)))
            shrunk = w - a * s * w if o.kind == "Decoupled" else w
            moved = shrunk - a * (mean / given) / (root + o.eps)
            after = (moved, mean, square, given, given_square)
            new.append([_as(x, y) for x, y in zip((w, *old), after, strict=True)])
        params, *memory = (list(part) for part in zip(*new, strict=True))
        return (params, tuple(memory)), value


class OptaxSteps:
    """An optax transformation, called directly."""

    def __init__(self, optimizer, tree):
        self.make, self.tree = optimizer.make, tree

    def init(self, trained, hyper):
        return self.make(hyper).init(self.tree(trained))

    def __call__(self, loss, state, hyper, t):
        params, memory = state
        value, grads = jax.value_and_grad(loss)(params)
        update = self.make(hyper).update
        # Some (clip_by_global_norm) refuse numbers of more precision than the gradients.
        numbers = [x for x in jax.tree.leaves(hyper) if isinstance(x, jax.Array)]
        wide = jnp.result_type(*numbers)
        given = [[_as_wide(x, wide) for x in leaves] for leaves in (grads, params)]
        updates, after = update(self.tree(given[0]), memory, self.tree(given[1]))
        moved = jax.tree.leaves(optax.apply_updates(self.tree(params), updates))
        return (_cast(params, moved), _cast(memory, after)), value


def _as_wide(x, dtype):
    return x.astype(jnp.promote_types(x.dtype, dtype))


def _as(like, x):
    return x.astype(like.dtype)


def _cast(like, tree):
    """A state keeps its dtypes."""
    return jax.tree.map(_as, like, tree)


STEPS = {"Momentum": MomentumSteps, "Adam": AdamSteps, "Optax": OptaxSteps}


def distance(got, wanted, floor):
    """The largest error of a leaf: relative to its norm, where that is not tiny beside all."""
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True))
    pairs = [tuple(np.asarray(x, np.float64).ravel() for x in pair) for pair in pairs]
    whole = np.sqrt(sum(np.sum(w**2) for _, w in pairs))
    errors = [np.linalg.norm(g - w) / (np.linalg.norm(w) + 1e-3 * whole + floor) for g, w in pairs]
    return max(errors, default=0.0)
