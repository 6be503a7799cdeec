"""One training of one model, fast: its batches, its compiled steps, its measurements, and what a killed one goes on from.

What stands here, and after a colon the names that other rooms take from it:

    trainer         the call with all of it: Trainer
    loop            the steps that are compiled
    evaluation      the measurements that are compiled
    objective       the losses and metrics of one output, or of several by their names
    accuracy        the default metric: accuracy_for
    feed            how the examples reach the devices
    orders          in which order they come
    sources         sets that come in batches, a tf.data.Dataset or a PyDataset: kept in memory or streamed
    examples        sets as arrays, their weights, and whether targets are labels: check_metric
    checks          whether a model and the sets fit each other
    learning_rates  how the learning rate changes with the step: WarmUpThenDrop
    checkpoint      how far a training had come, in a file: Checkpoint, fingerprint, sample_of
    resuming        a `fit` that goes on at the end of its last epoch, to the bit: Resume, Shuffled,
                    begun_once_an_epoch
"""
