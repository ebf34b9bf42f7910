"""Decays counted in quanta: there and back to full precision, near 1 too."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hindgrad.exact import decay

SIZE = 16
decays = st.lists(st.floats(decay.SMALLEST, 1), min_size=SIZE, max_size=SIZE)
gaps = st.lists(st.floats(np.log(4e-7), np.log(0.5)), min_size=SIZE, max_size=SIZE)
few = settings(deadline=None, max_examples=40, derandomize=True)


@jax.jit
def there_and_back(kept, lost):
    bits = decay.bits_lost(kept, lost)
    return bits, decay.kept(bits), decay.lost(bits)


def by_kept(kept):
    """The results for decays given as what they keep."""
    with jax.enable_x64(True):
        return [np.asarray(x) for x in there_and_back(jnp.asarray(kept), 1 - jnp.asarray(kept))]


def by_lost(lost):
    """The results for decays given as what they lose."""
    with jax.enable_x64(True):
        return [np.asarray(x) for x in there_and_back(1 - jnp.asarray(lost), jnp.asarray(lost))]


@few
@given(decays)
def test_round_trip(kept):
    bits, again, lost = by_kept(kept)
    assert np.max(np.abs(again - kept)) <= 4e-16
    np.testing.assert_allclose(lost, 1 - np.asarray(kept), rtol=0, atol=5e-16)
    np.testing.assert_allclose(bits * decay.QUANTUM, -np.log2(kept), rtol=0, atol=2e-15)


@few
@given(gaps)
def test_near_one_what_is_lost_keeps_its_relative_precision(logarithms):
    lost = np.exp(logarithms)
    np.testing.assert_allclose(by_lost(lost)[2], lost, rtol=1e-9)


@few
@given(decays)
def test_bits_are_whole_numbers_that_count_exactly(kept):
    bits, _, _ = by_kept(kept)
    assert np.all(bits == np.floor(bits))
    assert np.all(bits >= 0)
    assert np.all(bits + 1 / decay.QUANTUM <= 2.0**53)  # one more bit still counts


def test_golden():
    """Powers of two lose whole bits, but for one quantum, and 1 loses none."""
    bits, kept, lost = by_kept([2.0**-k for k in range(8)] * 2)
    np.testing.assert_allclose(bits, [k * 2.0**50 for k in range(8)] * 2, rtol=0, atol=1)
    assert (bits[0], kept[0], lost[0]) == (0, 1, 0)
    np.testing.assert_allclose(lost, 1 - kept, rtol=1e-15)


def test_smaller_decays_lose_more():
    bits, _, _ = by_kept(np.linspace(1, decay.SMALLEST, SIZE))
    assert np.all(np.diff(bits) > 0)
