#!/usr/bin/env bash
# safetensors 0.8.0 (numpy 2.4.6): the entries of the metadata are written in an order that changes
# from call to call, so that equal content gives other bytes: files cannot be compared by their hash.
# (With one entry they can.)
#
# Seen: 20 different results of 20 calls with six entries
source "$(dirname "$0")/environment.sh"
environment safetensors==0.8.0 numpy==2.4.6
python - <<'PYTHON'
import numpy as np
from safetensors.numpy import save

arrays = {"x": np.zeros(3, np.float32)}
one = {bytes(save(arrays, metadata={"a": "1"})) for _ in range(20)}
six = {bytes(save(arrays, metadata={name: name for name in "abcdef"})) for _ in range(20)}
print(len(one), "result with one entry,", len(six), "with six")
assert len(one) == 1, "one entry has other bytes, too"
assert len(six) > 1, "the order is the same now"
PYTHON
