"""Doctests of docstrings as blocks of code: from `>>>` to the next empty line."""

import re

import griffe

DOCTEST = re.compile(r"^( *)>>> .*(?:\n.+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
