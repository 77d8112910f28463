"""`python -m bench` and the command `gauntlet`: the one place that turns errors into exit codes."""

import sys
import traceback
from collections.abc import Sequence

import click

from bench.errors import GauntletError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code (the table is in bench.errors)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    from bench import cli, cli_compare, cli_upkeep  # noqa: F401 - importing registers the verbs

    try:
        code = cli.app([word for word in words if word != "--debug"], prog_name="gauntlet", standalone_mode=False)
    except GauntletError as problem:
        if debug:
            traceback.print_exc()
        print(problem, file=sys.stderr)
        return problem.exit_code
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("stopped: the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 0
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
