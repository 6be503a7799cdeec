"""The papers' claims, checked: what is run (`plan`), what is claimed (`papers`), what was found (`evidence`), how it is shown.

No module of it loads TensorFlow.
"""

from tf_lottery.claims import papers  # registers the claims
from tf_lottery.claims.evidence import chosen, measure, of_scale, registry

__all__ = ["chosen", "measure", "of_scale", "papers", "registry"]
