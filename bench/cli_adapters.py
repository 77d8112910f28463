"""The verbs that say what suites may name at a service, and that register modules which bring more of it."""

from typing import Annotated

import typer

from bench.cli import Form, Format, app, listed, say
from bench.cli_client import SERVER, Secret, Server
from bench.client import Client

adapters = typer.Typer(help="Adapters at the service, and modules that bring more.", no_args_is_help=True)
app.add_typer(adapters, name="adapters")

Module = Annotated[str, typer.Argument(metavar="MODULE", help="dotted name of a module that is installed there")]
COLUMNS = ("module", "brings", "owner", "registered", "retired", "note")


@adapters.command("list")
def list_(
    token: Secret,
    server: Server = SERVER,
    modules: Annotated[bool, typer.Option("--modules", help="the modules that were registered instead")] = False,
    form: Form = Format.TABLE,
) -> None:
    """List the adapters that suites may name at the service; --format json has the JSON schema of their arguments."""
    from bench.service.shapes import iso

    found = Client(server, token).adapters()
    if form is Format.JSON:
        listed(found["modules" if modules else "adapters"], form)
    elif modules:
        lines = [
            {
                **line,
                "brings": "; ".join(f"{kind}: {' '.join(names)}" for kind, names in line["brings"].items()),
                "registered": iso(line["registered"]),
                "retired": iso(line["retired"]),
            }
            for line in found["modules"]
        ]
        listed([{name: line[name] for name in COLUMNS} for line in lines], form)
    else:
        listed(
            [
                {
                    **{name: line[name] for name in ("name", "module", "about")},
                    "arguments": " ".join(line["arguments"]["properties"]),
                }
                for line in found["adapters"]
            ],
            form,
        )


@adapters.command("register")
def register(module: Module, token: Secret, server: Server = SERVER) -> None:
    """Let suites name what an installed module brings; registered again, as it is now. For administrators."""
    made = Client(server, token).register_adapters(module)
    for kind, names in made["brings"].items():
        say([f"{kind}: {' '.join(names)}"])
    print(made["module"])
    if made["note"]:
        say([made["note"]])


@adapters.command("retire")
def retire(module: Module, token: Secret, server: Server = SERVER) -> None:
    """Let new suites not name what a module brings any more; what was accepted goes on. For administrators."""
    Client(server, token).retire_adapters(module)
    say([f"retired {module}"])
