"""The rules of pruning, as functions of NumPy arrays: criteria, what survivors start from, scopes and sparsity patterns.

What stands here, and after a colon the names that other rooms take from it:

    criteria    what scores a weight, one function for each criterion
    treatments  what kept weights start the next level from, and what pruned weights hold
    ranking     how scores become masks: exact counts, scopes, equal scores at random
    regrowth    masks that move: weights that give way to others
    densities   how a density of the whole network is shared out over its kernels
    masks       what masks hold and have in common, and all of the two above: Arrays, Axes, CHANNEL_SCOPES,
                Overlap, check_scope, overlap
    patterns    masks in whole channels, whole blocks, or m of every n: Axes, pool

No TensorFlow: models are one floor up, in `masking`.
"""
