#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2): softmax_cross_entropy_with_integer_labels gives a NaN loss for a label
# beyond the last class, and a finite gradient: that of no label at all (the softmax). A training goes
# on, and its parameters stay finite. −1 is taken for the last class.
#
# Seen for three classes: label 3: loss nan, gradient [0.09 0.24 0.67]; label −1: as label 2
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
python - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

logits = jnp.array([[1.0, 2.0, 3.0]])


def loss(logits, label):
    labels = jnp.array([label])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


value, gradient = jax.value_and_grad(loss)(logits, 3)
print("label 3: loss", value, "gradient", gradient)
assert jnp.isnan(value), "the loss is no longer NaN"
assert jnp.allclose(gradient, jax.nn.softmax(logits)), "the gradient is not the softmax now"
assert loss(logits, -1) == loss(logits, 2), "-1 is no longer the last class"
PYTHON
