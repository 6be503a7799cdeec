"""The papers' claims, checked: what is run (`plan`), what is claimed (`papers`), what was found (`evidence`), how it is shown.

What stands here, and after a colon the names that other rooms take from it:

    papers       the claims themselves, by the question they answer
    claim        what a claim is, and the verdict on one: Result
    evidence     what the result files say of it
    certainty    how sure a figure is
    planned      what a scale consists of: Plan
    plan         the scales on LeNet and MNIST-1D, and all by name: PLANS, plan
    convolutional  those of convolutional networks, and of rewinding
    experiments  one of these runs
    figures      the figure of each section
    convolutional_figures  those of convolutional networks
    lines        how figures draw runs against density
    page         the page of all claims

No module of it loads TensorFlow.
"""

from tf_lottery.claims import papers  # registers the claims
from tf_lottery.claims.claim import chosen, measure, of_scale, registry

__all__ = ["chosen", "measure", "of_scale", "papers", "registry"]
