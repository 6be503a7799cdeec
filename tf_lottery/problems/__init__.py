"""What is trained on what: the papers' networks with their settings, data sets, and checks for parts of one's own.

What stands here, and after a colon the names that other rooms take from it:

    models     networks, each with the settings of its paper
    data       data sets, cut as the papers cut them
    contracts  what is expected of a criterion, treatment, model or data set of one's own, as checks to run in a test
"""
