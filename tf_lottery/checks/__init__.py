"""Is it a ticket: what networks have in common, the controls that a ticket has to beat, and what they say.

What stands here, and after a colon the names that other rooms take from it:

    verify     the controls of a ticket trained, and what they say
    controls   the controls: what each changes about a ticket
    verdict    what they say, a table and a sentence: Measured, Verification, and the names DENSE, LINES, NAMES, OTHER_ORDER,
               TICKET
    analysis   the analyses, for any model and any tickets
    walk       the networks on a straight line between two, measured
    line       what was measured on such a line: STABLE, Line, POINTS
"""
