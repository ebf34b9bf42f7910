#!/usr/bin/env bash
# grain 0.2.18: MapDataset.shuffle(seed=s).repeat() shuffles each epoch by the seed s + epoch. Two
# runs with the seeds 0 and 1 see the same orders, one epoch apart, and are no independent repeats.
# With .seed(s).shuffle() they are.
#
# Seen for 8 rows: epoch 1 of seed 0 and epoch 0 of seed 1 are both [5 7 6 0 4 1 3 2]
source "$(dirname "$0")/environment.sh"
environment grain==0.2.18
python - <<'PYTHON'
import grain


def epochs(dataset, size=8, count=3):
    rows = dataset.repeat(count)
    return [[int(rows[i]) for i in range(e * size, (e + 1) * size)] for e in range(count)]


rows = grain.MapDataset.range(8)
first, second = (epochs(rows.shuffle(seed=seed)) for seed in (0, 1))
print("seed 0:", first, "seed 1:", second)
assert first[1:] == second[:-1], "the seeds' epochs differ now"
first, second = (epochs(rows.seed(seed).shuffle()) for seed in (0, 1))
assert not any(order in second for order in first), ".seed(s).shuffle() shares orders, too"
PYTHON
