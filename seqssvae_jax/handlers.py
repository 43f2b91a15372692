"""Effect handlers by which an objective tells a program's distributions what it knows of their gradients."""

from collections.abc import Callable
from typing import Any

from jax import Array
from jaxtyping import Float
from numpyro.distributions import MaskedDistribution
from numpyro.primitives import Messenger

from seqssvae_jax.distributions import with_gradient_share


class GradientShare(Messenger):
    """Lets a share of the gradient reach the logits of a discrete site; its log-probabilities stay what they are.

    Args:
        fn: A program.
        site: Name of the site.
        share: The share: 1 for the exact gradient, 0 for none.
    """

    def __init__(self, fn: Callable[..., Any], site: str, share: float) -> None:
        super().__init__(fn)
        self.site, self.share = site, share

    def process_message(self, msg: dict[str, Any]) -> None:
        """Called for each site before it has a value."""
        if msg["type"] == "sample" and msg["name"] == self.site:
            fn = msg["fn"]
            if isinstance(fn, MaskedDistribution):  # what NumPyro makes of a distribution within a mask
                msg["fn"] = with_gradient_share(fn.base_dist, self.share).mask(fn._mask)
            else:
                msg["fn"] = with_gradient_share(fn, self.share)


class GradientWeights(Messenger):
    """Tells distributions that make use of it by what their log-probabilities will be multiplied.

    Args:
        fn: A program.
        weights: Of each row, or of each label and row; distributions of another batch shape are left as they are.
    """

    def __init__(self, fn: Callable[..., Any], weights: Float[Array, "*B"]) -> None:
        super().__init__(fn)
        self.weights = weights

    def process_message(self, msg: dict[str, Any]) -> None:
        """Called for each site before it has a value."""
        fn = msg["fn"]
        if hasattr(fn, "with_gradient_weights") and fn.batch_shape == self.weights.shape:
            msg["fn"] = fn.with_gradient_weights(self.weights)
