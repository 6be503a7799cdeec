"""What is kept off the screen, and what is told."""

import io
import json
import pickle
import sys
import warnings

import pytest

from tf_lottery.base.errors import LotteryWarning
from tf_lottery.base.quiet import tensorflow_loading, warnings_told


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


def test_a_command_tells_this_packages_warnings_once_in_its_words_and_shows_those_of_a_plugin(recwarn):
    harm = LotteryWarning("{!r} is {curly}: {exclude}, {scope=global} or {sparsity_m_by_n}", "{exclude}")
    said = []
    with warnings_told(said.append):
        for _ in range(2):
            warnings.warn(harm, stacklevel=1)
        warnings.warn(pickle.loads(pickle.dumps(harm)), stacklevel=2)
        warnings.warn_explicit("of a library", UserWarning, json.__file__, 1)
        warnings.warn("of a plugin", stacklevel=1)
    assert said == ["'{exclude}' is --curly: --exclude, --scope=global or --pattern=m:n"]
    assert str(harm) == "'{exclude}' is curly: exclude, scope='global' or sparsity_m_by_n"
    assert [str(warning.message) for warning in recwarn] == ["of a plugin"]
