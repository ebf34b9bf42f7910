"""A training as a function of everything that went into it: each row's weight and label, and a
factor for each setting."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

import hindgrad as hg
from hindgrad import programs
from hindgrad.apps.model import DECAYS, RATES, Hyper, Init, Network, Params, Problem, predict

Causes = dict[str, Array]
"""`weight` [rows]; `label`, the probabilities of the classes [rows, classes] or the targets [rows];
factors of the settings, 1 as they are: `rate` [steps, layers], `memory` (of the momentum, the steps
that it reaches back) and `weight_decay` [layers]; and `scale`, the logarithms of the initial scales
[layers]."""


POINTS = 60
"""Looks at a network while it is trained."""


class Asked(eqx.Module):
    """The rows that are asked about."""

    x: Float[Array, "queries features"]
    y: Int[Array, " queries"] | Float[Array, " queries"]
    """The classes whose loss is explained; of a quantity it is not used."""


class Trained(eqx.Module):
    """The training of a network, with the settings as they are and the causes to be changed. The
    problem is one whose whole pool trains."""

    problem: Problem
    settings: Hyper
    asked: Asked

    @property
    def objective(self) -> hg.Objective:
        """What is asked as a function of the causes and a key: `queries`."""
        return hg.Objective(self.training, init=Init(self.network.sizes), score=self.queries)

    @property
    def network(self) -> Network:
        """The network and its training."""
        return self.problem.network

    def causes(self) -> Causes:
        """As they were."""
        rows, layers = self.problem.pool, len(self.network.sizes) - 1
        label = rows.y
        if self.network.kind == "classification":
            label = jax.nn.one_hot(rows.y, self.network.sizes[-1])
        return {
            "weight": jnp.ones(len(rows.y)),
            "label": label,
            "rate": jnp.ones((self.network.steps, layers)),
            "memory": jnp.ones(layers),
            "weight_decay": jnp.ones(layers),
            "scale": self.settings["scale"],
        }

    def training(self, key: PRNGKeyArray) -> hg.Training:
        """The training."""
        batches = self.problem.training(key).batches
        optimizer = hg.Momentum(rate=self.rate, decay=self.decay)
        return hg.Training(
            self.loss, optimizer=optimizer, batches=batches, steps=self.network.steps
        )

    def rate(self, causes: Causes, t: Int[Array, ""]) -> list[Float[Array, ""]]:
        """The rate of each layer at a step."""
        rates = self.network.schedule(RATES)(self.settings["rate"], t)
        return list(rates * causes["rate"][t])

    def decay(self, causes: Causes, t: Int[Array, ""]) -> list[Float[Array, ""]]:
        """The velocity's decay of each layer at a step: its memory, 1/(1 − decay), by a factor."""
        decays = self.network.schedule(DECAYS)(self.settings["decay"], t)
        return list(decays + (1 - decays) * (1 - 1 / causes["memory"]))

    def loss(self, params: Params, causes: Causes, batch: Any) -> Float[Array, ""]:
        """The training loss."""
        labels, outputs = causes["label"][batch.index], predict(params, batch.data.x)
        if self.network.kind == "classification":
            losses = optax.softmax_cross_entropy(outputs, labels)
        else:
            losses = (outputs[:, 0] - labels) ** 2
        strengths = jnp.exp(self.settings["weight_decay"]) * causes["weight_decay"]
        penalties = [strengths[i] * jnp.sum(layer["w"] ** 2) for i, layer in enumerate(params)]
        return jnp.mean(causes["weight"][batch.index] * losses) + sum(penalties)

    def queries(
        self, params: Params, causes: Causes, key: PRNGKeyArray
    ) -> Float[Array, " queries"]:
        """The loss of each row that is asked about, or for a quantity the network's (standardised)
        answer."""
        del causes, key
        outputs = predict(params, self.asked.x)
        if self.network.kind == "classification":
            return losses_of(outputs, self.asked.y)
        return outputs[:, 0]


def losses_of(
    outputs: Float[Array, "rows classes"], y: Int[Array, " rows"]
) -> Float[Array, " rows"]:
    """The cross-entropy of each row, to all digits where it is nearly 0: of the others' odds."""
    own = jax.nn.one_hot(y, outputs.shape[1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, outputs), axis=1)
    right = jnp.take_along_axis(outputs, y[:, None], axis=1)[:, 0]
    return jax.nn.softplus(others - right)


@programs.compiled
def outputs_over_time(
    trained: Trained, x: Float[Array, "rows features"], key: PRNGKeyArray, points: int = POINTS
) -> tuple[Int[Array, " points"], Float[Array, "points rows outputs"]]:
    """What the network gives for some rows, before the first step and after some of them, the last
    among these."""
    causes, steps = trained.causes(), trained.network.steps
    training, params, _ = trained.objective.start(causes, key)
    size = max(1, steps // points)
    answers = lambda params: predict(params, x)
    begin = training(params, causes, steps=size)

    def piece(carry, step):
        run = training(carry[0], causes, state=carry[1], start=step, steps=size)
        return (run.params, run.state), answers(run.params)

    starts = size * (1 + jnp.arange(steps // size - 1))
    (last, state), between = jax.lax.scan(piece, (begin.params, begin.state), starts)
    after = [answers(params)[None], answers(begin.params)[None], between]
    times = [size * jnp.arange(steps // size + 1)]
    if steps % size:
        rest = training(last, causes, state=state, start=steps - steps % size, steps=steps % size)
        after.append(answers(rest.params)[None])
        times.append(jnp.array([steps]))
    return jnp.concatenate(times), jnp.concatenate(after)
