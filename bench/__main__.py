"""`python -m bench` and the command `gauntlet`: the one place that turns errors into exit codes."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from bench.errors import GauntletError, OperatorError

STORAGE = {  # what a disk or a folder says no with: nothing that a traceback explains
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


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
    except OSError as problem:
        if problem.errno not in STORAGE:
            raise
        if debug:
            traceback.print_exc()
        print(_refused(problem), file=sys.stderr)
        return OperatorError.exit_code
    except SystemExit as end:  # how typer ends, with usage errors told already
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _refused(problem: OSError) -> OperatorError:
    where = f"{problem.filename}: " if problem.filename is not None else ""
    hint = "make room or mend the folder, or name another one (--output, --to): what was measured before is kept"
    return OperatorError(f"{where}{problem.strerror}", hint)


if __name__ == "__main__":
    sys.exit(main())
