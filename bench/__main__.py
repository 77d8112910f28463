"""`python -m bench` and the command `gauntlet`: the one place that turns errors into exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence

from bench.errors import GauntletError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code (the table is in bench.errors)."""
    from bench import (  # noqa: F401 - importing registers them
        cli,
        cli_adapters,
        cli_client,
        cli_compare,
        cli_examples,
        cli_models,
        cli_service,
        cli_upkeep,
    )  # fmt: skip

    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        cli.app([word for word in words if word != "--debug"], prog_name="gauntlet")
    except GauntletError as problem:
        if debug:
            traceback.print_exc()
        print(problem, file=sys.stderr)
        return problem.exit_code
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as end:  # how typer ends, with usage errors told already
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
