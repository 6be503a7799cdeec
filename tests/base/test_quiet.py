"""What is kept off the screen, and what is told."""

import io
import sys

import pytest

from tf_lottery.base.quiet import tensorflow_loading


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stderr", "loaded", "told"), [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)]
)
def test_a_terminal_is_told_that_tensorflow_is_loading_and_the_line_goes_again(stderr, loaded, told, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr())
    if not loaded:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    elif "tensorflow" not in sys.modules:
        monkeypatch.setitem(sys.modules, "tensorflow", sys)
    with tensorflow_loading():
        during = sys.stderr.getvalue()
    assert during == ("Loading TensorFlow ..." if told else "")
    assert sys.stderr.getvalue() == (f"{during}\r\033[K" if told else "")
