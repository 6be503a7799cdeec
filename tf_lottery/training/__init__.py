"""One training of one model, fast: its batches, its compiled steps, its measurements, and what a killed one goes on from.

What stands here, and after a colon the names that other rooms take from it:

    trainer         the call with all of it: Trainer
    loop            the steps and measurements that are compiled: accuracy_for
    feed            how the examples reach the devices
    examples        in which order they come, and whether they fit the model: check_metric
    learning_rates  how the learning rate changes with the step: WarmUpThenDrop
    checkpoint      how far a training had come, in a file: Checkpoint, fingerprint, sample_of
    resuming        a `fit` that goes on at the end of its last epoch, to the bit: Resume, Shuffled,
                    begun_once_an_epoch
"""
