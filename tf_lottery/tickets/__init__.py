"""What a search finds, as data: masks and start values, the recipes that draw them, and the file that holds them.

What stands here, and after a colon the names that other rooms take from it:

    ticket    the ticket, and how it goes on a model: Ticket
    values    what a ticket has of a variable, its values or a recipe for them: Recipe, arrays
    recipes   start values, drawn anew or again from their recipe
    file      the format of ticket files, written and read: FINALS, MAX_WEIGHTS, Verified, read_header, verified
    account   what a ticket file takes, variable by variable: Account, describe
    codec     masks as bytes, near their entropy
"""
