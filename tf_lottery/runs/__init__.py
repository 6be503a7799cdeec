"""Experiments in folders: their settings, which are the flags of the commands; how they are run; and the tables they leave.

What stands here, and after a colon the names that other rooms take from it:

    settings    dataclasses whose fields become flags: Problem, Settings, BranchSettings, SupermaskSettings, setting
    problem     the model, the data and the trainer that settings name
    experiment  a search, its branches or learned supermasks, with replicates, and on from where they stopped
    todo        what is left to train, training by training: Training,
                cheap_road, cheap_road_in_words, cost, each_of, in_words, trainings_left
    known       trainings that are not done again, because a run has them on disk
    levels      what experiments share: which levels are missing, how one is trained, watched and written
    logged      what loggers are told of a run, from its files
    by_rule     untrained networks of a finished run, under the masks of criteria
    verification  levels verified: their controls trained, as branches, and put together
    instability  levels trained twice in different data order, and the line between the two
    verified    what was verified, in files: as_json, read_sound, read_instability
    results     the results of a run, written: Run
    folder      where its files lie, and how they are read: Folder
    looking     what of them is as it was written and what it should be
    sound       a run as far as it is to be trusted, for who only reads it: Sound
    identity    what a level is, as its ticket says it
    origins     what a run was begun with beside its settings: plugins, one's own code, the data
    spec        its settings and versions in a file
    tables      its tables: columns, writing, reading
    outcome     what the tables say over all replicates: MEASURED, TOLD, LevelStatistics, Statistic, by_level, best_by_rule, to_verify, verdict
    gathering   which runs a name stands for, and what can be read of each: PLAN, Planned, Row, is_run
    study       runs side by side, as data: Study, MEASURED, CURVES, text
    comparison  the best level of each combination, a ranking, paired differences: Combination, Standing, DENSE, TEST
    own_data    the examples to prune a model on: by name, as arrays, from a function of one's own
    prune_plan  what `tf-lottery prune` is to do, checked before TensorFlow is loaded
    pruning     what it does then: a model from a file is fine-tuned under falling masks, and measured
    executor    many tasks at once
"""
