"""The commands, for people with data and no interest in hypergradients; and what they leave, for
programs: models that are loaded, and estimators as scikit-learn has them."""

from typing import TYPE_CHECKING

from hindgrad.lazy import public_names

if TYPE_CHECKING:  # at run time each is loaded when it is first asked for
    from hindgrad.apps.cleaner import HindgradCleaner as HindgradCleaner
    from hindgrad.apps.estimators import HindgradClassifier as HindgradClassifier
    from hindgrad.apps.estimators import HindgradRegressor as HindgradRegressor
    from hindgrad.apps.saved import Model as Model
    from hindgrad.apps.saved import load as load

__all__, __dir__, __getattr__ = public_names(__name__)
