"""The papers' claims, each with its source, the published figure, and a rule that says when it holds: a new claim goes here.

What stands here, and after a colon the names that other rooms take from it:

    tickets      winning tickets, iterative and one-shot
    criteria     what to keep
    signs        what survivors start from
    zeros        what pruned weights hold
    supermasks   masks of untrained weights, by rule and learned
    convolutional  tickets and learned masks of Conv-2, Conv-4 and Conv-6
    rewinding    late rewinding and stability of residual networks
    comparisons  what several claims ask, and the papers they are from

A claim is a plain function. It looks at the result files of the runs it names, through an `Evidence`, and returns what it
measured and whether the rule is met. Its docstring is the claim in one sentence; `{smallest}` and its like are numbers of the plan.

The metric is that of the papers: for trained networks test accuracy at early stop (minimum validation loss), for learned masks the
mean of sampled masks. Accuracies are in percent, differences in points. *A beats B* means: A is higher in the mean over
replicates, and in most of the replicates.
"""

from tf_lottery.claims.papers import tickets, criteria, signs, zeros, supermasks, convolutional, rewinding  # noqa: I001  claims are listed in this order

__all__ = ["convolutional", "criteria", "rewinding", "signs", "supermasks", "tickets", "zeros"]
