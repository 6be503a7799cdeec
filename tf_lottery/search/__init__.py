"""The roads to a ticket: what prunes when, and what happens between two trainings, as a search of its own or inside `fit`.

What stands here, and after a colon the names that other rooms take from it:

    find       `find_ticket`, a search by any road, and a level trained again: retrain_ticket
    iterative  the road of the papers: each level is pruned from the one before, rewound and trained
    one_shot   the dense network is pruned at once
    gradual    the network is pruned bit by bit within one training, and rewound then
    auto       short rewound levels or gradual pruning, by what the search sees of the network: what a budget goes to
    regrow     no search: a network that is sparse from the start and moves its mask
    lottery    what the roads share, one training of a level and what it costs: Snapshot, Train, train_level
    plan       how long a search is, from a density, levels or a budget: APART, LEAST, QUARTER, Kernels, Plan
    rates      how much a level prunes to come to a density
    rounds     what one round does between two trainings: whom it prunes, what the next level starts from: Rounds
    pruning    to a density, all at once or bit by bit within a `fit`: prune
    pruner     what brings masks down to densities
    fine_tuning  bit by bit within a `fit`, by the length of it: Gradually, check_denser, fine_tune
    supermask  masks that make untrained weights perform, by rule or learned
    schedules  rounds as a schedule of TF-MOT
    tfmot      the search inside TF-MOT, for models of tf_keras
    callbacks  the roads that run inside Keras `fit`
    logger     what a logger is told of a search, each level once: RECORD, Log, LoggedLevel
    loggers    TensorBoard and others by name: made
    summaries  what TensorBoard is told of masks and weights
"""
