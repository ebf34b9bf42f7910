"""The trainings of the dattri benchmark on MNIST (Deng et al. 2024, arXiv 2410.04555), rebuilt:
what foretells retraining as there, on halves of 5,000 rows, and in one run."""

from dataclasses import replace

from experiments.attribution import attribution_lds, attribution_lds_report
from experiments.attribution.networks import Dense, Rectified
from experiments.attribution.trained import Model

ABOUT = "What foretells retraining, with the benchmark dattri's own models of MNIST."

report, run, total = attribution_lds_report, attribution_lds.run, attribution_lds.total

LOGISTIC = Model(
    name="logistic regression",
    network=Dense(()),
    data="mnist",
    rows=5000,
    steps=20 * 5000 // 64,  # epochs of batches of 64
    rate=0.01,
    damping=0.1,
    size=64,
    decay=0.0,
    center=0.1307,
    unit=0.3081,
)
MLP = replace(
    LOGISTIC,
    name="MLP",
    network=Rectified((128, 64), dropout=0.1),
    steps=50 * 5000 // 64,
    decay=0.9,
)
DEFAULT = replace(attribution_lds.DEFAULT, models=(LOGISTIC, MLP))
FULL = replace(attribution_lds.FULL, models=(LOGISTIC, MLP), queries=500, runs=50)
SMALL = replace(
    attribution_lds.SMALL,
    models=(
        replace(
            MLP,
            name="rectified",
            network=Rectified((6,), dropout=0.1),
            data="digits",
            rows=60,
            steps=12,
            size=20,
        ),
    ),
)
