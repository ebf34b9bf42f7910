#!/usr/bin/env bash
# safetensors 0.8.0 (numpy 2.4.6): save_file and save write transposed, Fortran-ordered and sliced
# NumPy arrays with wrong values, without a word: the bytes are those of the memory, the shape that of
# the view. np.ascontiguousarray before saving helps.
#
# Seen: [[0 3] [1 4] [2 5]] is read back as [[0 1] [2 3] [4 5]]
source "$(dirname "$0")/environment.sh"
environment safetensors==0.8.0 numpy==2.4.6
python - <<'PYTHON'
import numpy as np
from safetensors.numpy import load_file, save_file

rows = np.arange(6, dtype=np.float32).reshape(2, 3)
views = {"transposed": rows.T, "Fortran": np.asfortranarray(rows), "sliced": rows[:, :2]}
for name, view in views.items():
    save_file({"x": view, "copy": np.ascontiguousarray(view)}, "file.safetensors")
    read = load_file("file.safetensors")
    print(name, view.tolist(), "read back as", read["x"].tolist())
    assert np.array_equal(read["copy"], view), f"{name}: a contiguous copy is wrong, too"
    assert not np.array_equal(read["x"], view), f"{name}: read back right now"
PYTHON
