"""What scikit-learn asks of an estimator's hyperparameters, without a dependency on scikit-learn."""

import importlib
import inspect
from typing import Any, Self

from seqssvae.errors import ConfigurationError

MOST_CHARACTERS = 60
"""Most characters of a hyperparameter in the text of an estimator."""


class HyperparametersMixin:
    """Mixin of an estimator whose `__init__` stores each of its keyword arguments in the attribute of that name."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters, by name.

        Args:
            deep: Has no effect, since no hyperparameter is an estimator; scikit-learn passes it.
        """
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **hyperparameters: Any) -> Self:
        """Set some hyperparameters.

        Args:
            hyperparameters: New values, by name.

        Returns:
            The estimator itself.

        Raises:
            ConfigurationError: If there is no such hyperparameter.
        """
        known = self._defaults()
        for name, value in hyperparameters.items():
            if name not in known:
                raise ConfigurationError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}.")
            setattr(self, name, value)
        return self

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        parameters = inspect.signature(cls).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    def __repr__(self) -> str:
        defaults = self._defaults()
        values = self.get_params().items()
        given = (f"{name}={_short(value)}" for name, value in values if repr(value) != repr(defaults[name]))
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_tags__(self) -> Any:
        utils = importlib.import_module("sklearn.utils")  # only scikit-learn calls this
        return utils.Tags(
            estimator_type="classifier",
            target_tags=utils.TargetTags(required=False),
            classifier_tags=utils.ClassifierTags(),
            transformer_tags=utils.TransformerTags(),
            input_tags=utils.InputTags(two_d_array=False, string=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def _short(value: Any) -> str:
    """A value as Python writes it, or if that is long, as its class, which can be looked into."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{type(value).__name__}(...)"
