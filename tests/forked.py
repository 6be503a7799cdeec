"""Fresh processes for commands and scripts, without the seconds that each needs to load TensorFlow.

They are forks of one process that has loaded it and has not used it (`warm`). That is fresh enough for a command that is killed and
started again, or must not know what another one had in memory; what a process loads, and what it prints meanwhile, is tested with
`subprocess`, whose `Popen` and `run` these look like.
"""

import functools
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver, get_context
from pathlib import Path

import pytest


@functools.cache
def context():
    made = get_context("forkserver")
    made.set_forkserver_preload(["warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        forkserver.ensure_running()
    return made


def work(words, env, cwd, out, err):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY)
        os.dup2(file, descriptor)
        os.close(file)
    assert "warm" in sys.modules, "the module warm could not be imported"
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    code = words.pop(1) if words[0] == "-c" else ""
    sys.argv = list(words)
    if code:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif words[0].endswith(".py"):
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    else:
        from tf_lottery.bin import main

        sys.exit(main.dispatch(words))


class Popen:
    """A process that is at work: on a command's words, on a script and its arguments, or on `-c` and lines of Python."""

    def __init__(self, words, env=None, cwd=None):
        self.folder = tempfile.TemporaryDirectory()
        self.out, self.err = (Path(self.folder.name, name) for name in ("out", "err"))
        self.out.touch(), self.err.touch()
        where = dict(os.environ if env is None else env), str(cwd or Path.cwd()), str(self.out), str(self.err)
        self.process = context().Process(target=work, args=(list(map(str, words)), *where))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self):
        return self.process.exitcode

    poll = returncode.fget

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.pid, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()

    def send_signal(self, number):
        os.kill(self.pid, number)

    kill = functools.partialmethod(send_signal, signal.SIGKILL)


def run(words, env=None, cwd=None, check=False):
    process = Popen(words, env, cwd)
    out, err = process.communicate()
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class Workers:
    """A context of `multiprocessing` for the workers of a pool: they are forks too, in the environment of this moment."""

    Pipe = staticmethod(multiprocessing.Pipe)

    @staticmethod
    def Process(target, args, daemon):
        return context().Process(target=begun, args=(target, args, dict(os.environ)), daemon=daemon)


def begun(target, args, env):
    os.environ.clear()
    os.environ.update(env)
    target(*args)
