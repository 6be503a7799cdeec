"""`tf-lottery COMMAND [flags]`: the one entry of the command line."""

from __future__ import annotations

import importlib
import logging
import os
import sys

COMMANDS = {
    "prune": "prune a saved Keras model while it is fine-tuned, with a table of before and after",
    "find": "find winning tickets: train, prune, rewind, again, over replicates",
    "branch": "retrain levels of a finished run from other weights or with random masks",
    "verify": "train the controls of a run's level and say whether it is a winning ticket",
    "supermask": "find masks that make untrained weights perform, by rule, by learning or by edge_popup",
    "ticket": "look into ticket files, put them on models, compare and shrink them",
    "export": "write a model as .keras, SavedModel and checked TFLite files, with an account of what pruning bought",
    "claims": "check the papers' claims, one by one, and write a page about them",
    "report": "draw the figures of a run from its result files",
}

MEANT = {"train": "find", "search": "find", "convert": "export", "info": "ticket", "show": "ticket", "plot": "report"}

USAGE = """Lottery tickets for Keras.

usage: tf-lottery COMMAND [flags]

commands:
{commands}

`tf-lottery COMMAND --help` lists the flags of a command."""


def run() -> None:
    """Runs the command that the command line names and exits with its status."""
    sys.exit(dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> int:
    """Runs `argv` (a command and its flags) and returns the exit status: 0 done, 1 not possible, 130 interrupted."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        print(USAGE.format(commands="\n".join(f"  {name:<{width}}{text}" for name, text in COMMANDS.items())))
        return 0 if argv else 1
    if argv[0] not in COMMANDS:
        from tf_lottery.base.hints import did_you_mean

        hint = did_you_mean(argv[0], COMMANDS, MEANT)
        return fail(f"Expected a command ({', '.join(COMMANDS)}), but received {argv[0]!r}.{hint}")
    return guarded(argv[0], argv[1:])


def guarded(command: str, argv: list[str]) -> int:
    """Runs one command; what it cannot do is said in one sentence on stderr, without a traceback."""
    from tf_lottery.base.errors import LotteryError
    from tf_lottery.base.quiet import native_stderr_off_but_python, warnings_told
    from tf_lottery.base.registry import import_plugin
    from tf_lottery.bin import early, flags

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is loaded; it prints pages otherwise
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # notes on retracing
    try:
        with warnings_told(lambda sentence: print(f"tf-lottery: warning: {sentence}", file=sys.stderr)):
            argv = early.remembered(command, argv)
            early.check_paths(argv)
            for plugin in flags.plugins(argv):
                with native_stderr_off_but_python():
                    import_plugin(plugin)
            return importlib.import_module(f"tf_lottery.bin.{command}").main(argv) or 0
    except LotteryError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"Expected to read and write files, but {error.filename or 'a file'} failed ({error.strerror}).")
    except MemoryError as error:
        return fail(f"Expected memory for this, but there is not enough ({error or 'Python could not have more'}).")
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on where this one had come to.", file=sys.stderr)
        return 130
    except Exception as error:
        if type(error).__name__ != "ResourceExhaustedError":  # TensorFlow's, which may not be loaded
            raise
        return fail(f"Expected memory for this, but there is not enough ({str(error).partition(chr(10))[0][:200]}).")


def fail(message: str) -> int:
    print(f"tf-lottery: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    run()
