"""The papers' claims, checked: what is run (`plan`), what is claimed (`papers`), what was found (`evidence`), how it is shown.

What stands here, and after a colon the names that other rooms take from it:

    papers       the claims, each with its source and the rule that says when it holds
    evidence     what a claim is, and what the result files say of it: Result
    plan         the runs that each scale needs: Plan, PLANS, plan
    experiments  one of these runs
    figures      the figure of each section
    page         the page of all claims

No module of it loads TensorFlow.
"""

from tf_lottery.claims import papers  # registers the claims
from tf_lottery.claims.evidence import chosen, measure, of_scale, registry

__all__ = ["chosen", "measure", "of_scale", "papers", "registry"]
