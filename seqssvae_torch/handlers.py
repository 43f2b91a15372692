"""Effect handlers by which an objective tells a program's distributions what it knows of their gradients."""

from typing import Any

from jaxtyping import Float
from pyro.poutine.messenger import Messenger
from torch import Tensor

from seqssvae_torch.distributions import with_gradient_share


class GradientShare(Messenger):
    """Lets a share of the gradient reach the logits of a discrete site; its log-probabilities stay what they are.

    Args:
        site: Name of the site.
        share: The share: 1 for the exact gradient, 0 for none.
    """

    def __init__(self, site: str, share: float) -> None:
        super().__init__()
        self.site, self.share = site, share

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            msg["fn"] = with_gradient_share(msg["fn"], self.share)


class GradientWeights(Messenger):
    """Tells distributions that make use of it by what their log-probabilities will be multiplied.

    Args:
        weights: Of each row, or of each label and row; distributions of another batch shape are left as they are.
    """

    def __init__(self, weights: Float[Tensor, "*B"]) -> None:
        super().__init__()
        self.weights = weights

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if hasattr(fn, "with_gradient_weights") and fn.batch_shape == self.weights.shape:
            msg["fn"] = fn.with_gradient_weights(self.weights)
