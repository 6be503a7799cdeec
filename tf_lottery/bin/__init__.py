"""The command line: a file for each command of `tf-lottery`, with the flags that only it has, and what they share.

What stands here, and after a colon the names that other rooms take from it:

    main       `tf-lottery COMMAND [flags]`, the one entry
    prune      the command that prunes a saved model while it is fine-tuned
    find       the command that searches for tickets
    branch     the command that trains levels of a run again, for the controls
    verify     the command that trains the controls of a level and says whether it is a ticket
    supermask  the command for masks of untrained weights
    claims     the command that checks the papers
    report     the command that draws the figures of a run, or of several side by side
    export     the command that ships a model
    ticket     the command that looks into ticket files, applies, compares and packs them
    early      what is looked at before anything is imported: paths in the flags, and how a run was begun
    flags      absl flags from dataclasses, those of `runs.settings` and those of the commands
    training   what commands that train share: where they work, and what they tell
    tasks      several tasks of a command at once, and sweeps over settings
    study      what a sweep leaves beside its runs: its plan, and at its end one table
    dry_run    what `--dry_run` prints: how much is left to do
    reused     what is not trained again, foreseen and told
    display    progress bars, plain lines, closing tables
"""
