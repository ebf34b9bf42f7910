"""What hypergradients cost, in trainings.

A training of T steps takes T gradients. Its hypergradient takes T of them forwards; and backwards,
at each step, the gradient with its tangent (forward over reverse: `GradientTraining`), which takes
at most 5/2 of the gradient (Griewank & Walther 2008, *Evaluating derivatives*), and the step undone
or run again. It is counted as 4 T, rather too much: what a tuning is compared with is
given as much.
"""

HYPERGRADIENT = 4
"""What a hypergradient costs, in trainings of the same length."""


def tuning(hypergradients: int, draws: int, candidates: int = 3) -> int:
    """What a tuning costs, in trainings: its hypergradients, and the choice of its answer by
    `draws` trainings of each candidate, such as the start, the best iterate and the average."""
    return HYPERGRADIENT * hypergradients + draws * candidates
