"""What nobody should miss in the accuracies that were measured: a model that guesses, and a file that lost more than chance."""

from __future__ import annotations

import numpy as np

MARGIN = 0.01  # of all inputs: what a file may lose against Keras without a remark


def guessing(right: np.ndarray, y: np.ndarray, outputs: np.ndarray) -> str | None:
    """A sentence if a model is right no more often than its inputs' most frequent label, up to two standard errors.

    Args:
      right: For each input 1 where the model is right, or the share of its answers that are, (N,).
      y: Labels (N, ...): whole numbers, or one-hot as the outputs are.
      outputs: The model's, (N, ..., classes), or (N, ..., 1) for two classes.

    >>> y = np.arange(1000) % 4
    >>> guessing(y == 0, y, np.zeros((1000, 4))).partition(":")[0]
    '25.00 % right of 1,000 inputs is guessing among 4 classes'
    >>> guessing(y < 2, y, np.zeros((1000, 4)))
    """
    classes = max(outputs.shape[-1], 2)
    labels = np.argmax(y, -1) if y.shape == outputs.shape and outputs.shape[-1] > 1 else y
    frequent = max(np.unique(labels, return_counts=True)[1].max() / labels.size, 1 / classes)
    limit = frequent + 2 * np.sqrt(frequent * (1 - frequent) / len(right))
    if right.mean() > limit or limit >= 1:  # among few inputs, or with one label only, nothing can be told
        return None
    return (
        f"{100 * right.mean():.2f} % right of {len(right):,} inputs is guessing among {classes} classes: is the model trained, and do "
        "these inputs have the range that it was trained on?"
    )


def lost(name: str, right: np.ndarray, in_keras: np.ndarray) -> str | None:
    """A sentence if a file is right on more than `MARGIN` fewer inputs than its model, and on more than two standard errors fewer.

    Args:
      name: That of the variant.
      right: As for `guessing`, of the file.
      in_keras: The same of the Keras model, on the same inputs; the standard error is that of their difference.
    """
    less = in_keras - right
    if not less.mean() > max(MARGIN, 2 * less.std() / np.sqrt(len(less))):
        return None
    return (
        f"{name} is right on {100 * less.mean():.1f} points fewer than the Keras model: {100 * right.mean():.2f} % against "
        f"{100 * in_keras.mean():.2f} % of {len(less):,} inputs."
        + (" Are the representative inputs like those that it will get?" if name == "int8" else "")
    )
