"""The rules of pruning, as functions of NumPy arrays: criteria, what survivors start from, scopes and sparsity patterns.

What stands here, and after a colon the names that other rooms take from it:

    criteria    what scores a weight, one function for each criterion
    treatments  what kept weights start the next level from, and what pruned weights hold
    masks       how scores become masks: exact counts, scopes, densities by layer, overlap: Arrays, Axes,
                CHANNEL_SCOPES, check_scope, overlap
    patterns    masks in whole channels, whole blocks, or m of every n: pool

No TensorFlow: models are one floor up, in `masking`.
"""
