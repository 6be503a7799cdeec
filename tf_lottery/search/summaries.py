"""What TensorBoard is told of masks and weights, by its default writer at its default step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules.masks import Arrays
from tf_lottery.rules.patterns import pool
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket


def write_masks(masks: Arrays, values: Mapping[str, np.ndarray], images: bool = True, image_size: int = 256) -> None:
    """Scalars `density`, `density/<path>` and `threshold/<path>` (the smallest magnitude that is kept), images `mask/<path>`.

    Args:
      masks, values: Of each kernel.
      images: Whether to write the pictures.
      image_size: Their longest side in pixels; larger masks are averaged down.
    """
    tf.summary.scalar("density", masks_lib.density(masks))
    for path, mask in masks.items():
        tf.summary.scalar(f"density/{path}", mask.mean())
        tf.summary.scalar(f"threshold/{path}", np.abs(values[path])[mask == 1].min(initial=np.inf))
        if images:
            flat = mask.reshape(-1, mask.shape[-1]).astype("float32")
            picture = pool(flat, [max(1, -(-side // image_size)) for side in flat.shape])
            tf.summary.image(f"mask/{path}", picture[None, :, :, None])


def write_weights(ticket: Ticket, which: str) -> None:
    """What `write_masks` writes, and histograms `kept/<path>` of the weights that a ticket's masks keep: `initial` or `final` ones."""
    values = {path: recipes.whole(getattr(ticket, which)[path], path, mask) for path, mask in ticket.masks.items()}
    for path, mask in ticket.masks.items():
        tf.summary.histogram(f"kept/{path}", values[path][mask == 1])
    write_masks(ticket.masks, values)
