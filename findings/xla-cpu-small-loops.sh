#!/usr/bin/env bash
# jax 0.12.0.1 (Python 3.12 or newer), CPU: the bits of a matrix-vector product in a scan depend on what
# else the scan's body holds. A loop that touches little memory is compiled into a single kernel, in
# which such a product is rounded otherwise, unless the loop holds an instruction for which there is no
# code there, such as a scatter, even one to a carry that has nothing to do with the product. So a loss
# and its derivative (a gather's derivative is a scatter) need not agree to the bit on what both
# compute, though no operation, shape or order differs.
#
# Seen: jax 0.12.0.1: differing numbers beside a scatter 1502 of 2048, beside a cosine 0 of 2048
for python in "${PYTHON:-python3}" python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
done
PYTHON="$python"
source "$(dirname "$0")/environment.sh"
environment jax==0.12.0.1 jaxlib==0.12.0.1
python - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

rows = jax.random.normal(jax.random.key(0), (64, 128))
vectors = jax.random.normal(jax.random.key(1), (32, 128))


def products(beside):
    """rows @ v for each v, in a loop with a carry that has nothing to do with them."""
    step = lambda carry, v: (beside(carry), rows @ v)
    return np.asarray(jax.jit(lambda v: jax.lax.scan(step, jnp.zeros(4), v))(vectors)[1])


alone = products(lambda carry: carry)
scatter = products(lambda carry: carry.at[jnp.int32(carry[:2])].add(1.0))
cosine = products(jnp.cos)
np.testing.assert_allclose(alone, scatter, rtol=1e-3, atol=1e-3)
differing = [int(np.sum(alone != other)) for other in (scatter, cosine)]
print(
    f"jax {jax.__version__}: differing numbers beside a scatter {differing[0]} of {alone.size},",
    f"beside a cosine {differing[1]} of {alone.size}",
)
assert differing[0] > 1000, "products are rounded alike now"
assert differing[1] == 0
PYTHON
