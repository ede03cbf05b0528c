"""The command line; the commands are in the modules beside this one, which are imported as they are needed."""

import io
import logging
import os
import shutil
import signal
import sys
import warnings
from contextlib import ExitStack, suppress
from importlib import metadata
from typing import Annotated, NoReturn

import pydantic
from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from rlm.errors import InputError, naming_extras
from rlm.runtime.process import ending_like_ctrl_c

NARROWEST = 60  # columns
COMMANDS = {  # and what the list of commands says of them: to import one takes seconds
    "study:study": "Train every arm with every seed, and judge them.",
    "verdicts:verdict": "Judge a stored study, or runs that were trained elsewhere.",
    "study:audit": "Look for reasons not to trust a study of these data.",
    "study:plan": "Estimate the pairs, minutes and memory of a study.",
    "verdicts:results": "Print or write the results of a stored study.",
    "verdicts:compare": "Judge an arm of one stored study against one of another.",
    "verdicts:luck": "List the test triplets that depend on the seed.",
    "sweep:sweep": "Race combinations of settings, and judge the best one.",
    "labels:labels": "Memorise random labels, then learn the true ones.",
    "studies:studies": "List the studies of a store.",
    "studies:note": "Give a study a note, a name or tags.",
    "studies:delete": "Delete a study of a store.",
    "studies:merge": "Add the studies of other stores to a store.",
    "bundle:bundle": "Write one study as a single file, with hashes.",
    "bundle:check": "Check a bundle, and train one of its seeds again.",
    "models:train": "Train one seed of one arm, and save the model.",
    "models:query": "Print the premises that a model finds for questions.",
    "models:evaluate": "Count how often a model finds a right premise.",
    "lab:report": "Run the notebooks, and write them as pages.",
    "lab:notebooks": "Copy the notebooks to a folder.",
    "lab:lab": "Open JupyterLab on a copy of the notebooks.",
}

app = App(
    name="rlm",
    help="Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?",
    version=metadata.version("rlm"),
)
app.register_install_completion_command()
for place, (command, said) in enumerate(COMMANDS.items()):
    app.command(f"rlm.cli.{command}", help=said, sort_key=place)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """
    Run a command.

    Parameters
    ----------
    tokens
        The command and its options.
    json
        Print tables and verdicts as one JSON object.
    """
    with ExitStack() as output:
        if json:
            from rlm.cli.output import as_json  # which imports pandas

            output.enter_context(as_json())
        app(tokens, exit_on_error=False, print_error=False)


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    _prepare_streams()
    columns = os.environ.get("COLUMNS", "")
    if (int(columns) if columns.isdecimal() else shutil.get_terminal_size().columns) < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)  # help would never be finished
    logging.basicConfig(format="rlm: %(message)s")
    logging.getLogger("rlm").setLevel(logging.INFO)
    warnings.formatwarning = lambda message, category, *_, **__: (
        f"rlm: {'warning: ' * issubclass(category, UserWarning)}{message}\n"
    )
    try:
        with ending_like_ctrl_c(), naming_extras():
            app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes as it ends
    except KeyboardInterrupt as error:
        _end(128 + (error.args[0] if error.args else signal.SIGINT), "interrupted")
    except CycloptsError as error:
        _end(2, _explain(error))
    except (InputError, OSError) as error:
        _end(2, str(error))


def _end(code: int, message: str) -> NoReturn:
    with suppress(OSError):  # as where the terminal is gone
        print(f"rlm: {message}", file=sys.stderr)
    sys.exit(code)


def _prepare_streams() -> None:
    """Let what is printed to a closed stream go nowhere, and show what an encoding lacks as a replacement character."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which a file would get otherwise
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _explain(error: CycloptsError) -> str:
    if isinstance(error, MissingArgumentError) and error.argument and error.argument.field_info.is_positional:
        name, command = error.argument.name.lstrip("-").upper(), " ".join(["rlm", *(error.command_chain or [])])
        return f"expected {name}, found none; see: {command} --help"
    invalid = error.__cause__
    if not isinstance(invalid, pydantic.ValidationError):
        return str(error)
    lines = []
    for problem in invalid.errors():
        fields = [part for part in problem["loc"] if isinstance(part, str) and part.isidentifier()]  # others name types
        option = "".join(f"--{field} " for field in fields[-1:]).replace("_", "-")
        lines.append(f"{option}{problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
