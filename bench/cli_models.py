"""The verbs that bring models into a service: upload weights, register what they are, retire."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import Form, Format, Set, listed, say
from bench.cli_client import SERVER, Secret, Server
from bench.cli_upkeep import models
from bench.client import Client

UploadId = Annotated[str, typer.Argument(metavar="UPLOAD", help="its id (`gauntlet models uploads`)")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="what suites will call it, under `registered:`")]
Builder = Annotated[str, typer.Option("--adapter", help="registered name of the adapter (`gauntlet list adapters`)")]


@models.command("upload")
def upload(
    file: Annotated[Path, typer.Argument(help="safetensors, ONNX, or a torch file of plain tensors")],
    token: Secret,
    name: Annotated[str | None, typer.Option(help="register it at once under this name: for maintainers")] = None,
    adapter: Annotated[str | None, typer.Option(help="what builds it, where it is registered at once")] = None,
    set_: Set = [],
    server: Server = SERVER,
) -> None:
    """Send weights to the service, and print the upload's id; sent again, it goes on where it was cut off.

    With --name and --adapter it is registered, too, and NAME/VERSION is printed.
    """
    from bench.errors import Mistake, SuiteError

    if not file.is_file():
        raise SuiteError([Mistake(str(file), "", "no such file")])
    if (name is None) != (adapter is None):
        raise SuiteError([Mistake("--name", "", "goes with --adapter, and --adapter with --name")])
    client = Client(server, token)
    made = client.upload(file, told=_progress)
    say([f"{made['file']}: {made['kind']}, {made['size']} bytes, SHA-256 {made['digest']}"])
    if name is None or adapter is None:
        print(made["id"])
    else:
        _register(client, str(made["id"]), name, adapter, set_)


@models.command("uploads")
def uploads(token: Secret, server: Server = SERVER, form: Form = Format.TABLE) -> None:
    """List your uploads at the service, the latest first; to maintainers everybody's."""
    columns = ("id", "owner", "file", "kind", "size", "received", "state", "model")
    listed([{name: line[name] for name in columns} for line in Client(server, token).uploads()], form)


@models.command("accept")
def accept(
    upload: UploadId,
    name: Name,
    adapter: Builder,
    token: Secret,
    set_: Set = [],
    server: Server = SERVER,
) -> None:
    """Register an upload at the service, and print NAME/VERSION. For maintainers."""
    _register(Client(server, token), upload, name, adapter, set_)


@models.command("discard")
def discard(upload: UploadId, token: Secret, server: Server = SERVER) -> None:
    """Throw an upload away."""
    Client(server, token).discard(upload)
    say([f"discarded {upload}"])


@models.command("served")
def served(token: Secret, server: Server = SERVER, form: Form = Format.TABLE) -> None:
    """List the models that suites may name at the service."""
    from bench.service.shapes import iso

    listed([{**line, "created": iso(line["created"])} for line in Client(server, token).models()], form)


@models.command("retire")
def retire(
    reference: Annotated[str, typer.Argument(metavar="NAME/VERSION")], token: Secret, server: Server = SERVER
) -> None:
    """Take a version out of the service's registry; what was measured stays. For maintainers."""
    from bench.errors import Mistake, SuiteError
    from bench.models import parse

    name, version = parse(reference)
    if version is None:
        raise SuiteError([Mistake(reference, "", "name the version, too: NAME/VERSION")])
    Client(server, token).retire(name, version)
    say([f"retired {reference}"])


def _register(client: Client, upload: str, name: str, adapter: str, assignments: list[str]) -> None:
    from bench.verbs import arguments

    made = client.register(upload, name, adapter, arguments(assignments))
    print(f"{made['name']}/{made['version']}")


def _progress(sent: int, size: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{100 * sent // size:3} %", end="\n" if sent == size else "", file=sys.stderr, flush=True)
