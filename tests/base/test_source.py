"""What a function of one's own is: what counts as an edit, and what does not."""

import importlib.util
import sys

import pytest

from tf_lottery.base import source
from tf_lottery.rules import criteria

PLUGIN = '''
import numpy as np
from tf_lottery.problems.models import Preset

POWER = 2
TABLE = {"a": (1, 2)}


def given(preset):
    return lambda function: function


def helper(x):
    return np.abs(x) ** POWER


class Layer:
    def call(self, x):
        return x


@given(Preset("mnist1d", 1, 1, 0.1))
def rule(initial, final):
    """Of any size."""

    def inner(x):
        return helper(x) * len(TABLE["a"])

    return inner(final), Layer
'''


def digest_of(tmp_path, text, name="own_rules"):
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        source.inspect.linecache.checkcache()
        return source.digest(module.rule)
    finally:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new", "other"),
    [
        ("** POWER", "** (POWER)  # the same", False),
        ('"""Of any size."""', '"""Of one size."""', False),
        ('Preset("mnist1d", 1,', 'Preset("mnist1d", 9,', False),  # a setting, which is compared as such
        ("import numpy as np", "import numpy as np\n\n\ndef another(x):\n    return x", False),
        ("POWER = 2", "POWER = 3", True),
        ("(1, 2)", "(1, 2, 3)", True),
        ("np.abs(x)", "np.square(x)", True),
        ("inner(final)", "inner(initial)", True),
        ("        return x\n\n\n@", "        return -x\n\n\n@", True),
    ],
)
def test_an_edited_function_is_another(tmp_path, old, new, other):
    assert old in PLUGIN
    assert (digest_of(tmp_path, PLUGIN.replace(old, new)) != digest_of(tmp_path, PLUGIN)) is other


def test_a_file_under_another_name_is_the_same(tmp_path):
    assert digest_of(tmp_path, PLUGIN) == digest_of(tmp_path, PLUGIN, "renamed")


def test_what_has_no_source_of_ones_own_says_nothing():
    assert source.digest(criteria.large_final) is None
    assert source.digest(eval("lambda initial, final: final", {"__name__": "nowhere"})) is None
