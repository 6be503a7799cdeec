"""What every room uses, and what knows nothing of pruning: errors, files that are whole, and names for functions.

What stands here, and after a colon the names that other rooms take from it:

    errors      what is raised, one clear sentence each: LotteryError and its kinds DataError, TicketError, FormatError,
                ExportError, NonFiniteLossError and WorkerLostError; what is warned with: LotteryWarning
    bounds      numbers with ends: whole, MOST, MOST_DROPS, MOST_LEVELS, MOST_REPLICATES
    files       files and folders that appear only when they are whole: whole_file, whole_folder, free
    guard       what keeps a folder of results sound: one process at a time, nothing damaged trusted
    hints       what somebody may have meant who wrote a name that is not known: did_you_mean
    quiet       what libraries print, kept off the screen: silenced, native_stderr_off,
                native_stderr_off_but_python, only_errors_of, tensorflow_loading,
                warnings_told; where a warning is to point: outside
    registry    functions under names, the same for criteria, models and the rest: Registry, import_plugin
    source      what a function of one's own is, by its text: digest
    student     Student's t, for tests and intervals over few replicates: CONFIDENCE, quantile, reach, two_sided
    table       a table on a terminal, in Markdown and in HTML: Table, in_text
    container   named arrays and a header in one file that is safe to open, under tickets and checkpoints: digest
"""
