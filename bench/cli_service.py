"""The verbs of those who run the service."""

import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import OUTPUT, Form, Format, Output, Uri, app, listed, say

tokens = typer.Typer(help="Who may use the service. They work on its database.", no_args_is_help=True)
database = typer.Typer(help="The database of the service.", no_args_is_help=True)
app.add_typer(tokens, name="tokens")
app.add_typer(database, name="database")

PORT = 8642
LEAVING = 10.0  # seconds in which the face of a service that was killed has gone
Url = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", envvar="GAUNTLET_DATABASE", help="default: what `up` made in DIR"),
]
Host = Annotated[str, typer.Option(help="where the face listens; anything but loopback needs TLS in front of it")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Ray = Annotated[str | None, typer.Option("--address", metavar="RAY", help="a running Ray cluster; default: one here")]
Workers = Annotated[int | None, typer.Option(min=1, help="default: as many as the cluster has room for")]
QuotaFile = Annotated[
    Path | None,
    typer.Option("--quotas", metavar="FILE", help="quotas, and how long what is kept, as YAML (deploy/quotas.yaml)"),
]
Pages = Annotated[
    str | None,
    typer.Option("--mlflow-pages", metavar="URL", help="where users see MLflow's pages, for a link to them"),
]
RayPages = Annotated[
    str | None, typer.Option("--ray-pages", metavar="URL", help="where administrators see Ray's dashboard, for a link")
]


def _database(url: str | None, output: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202 - imported late
    """The one that is named, else the PostgreSQL that `gauntlet up` made in this folder, else a file there."""
    from bench.service import companions
    from bench.service.database import Database

    if url is None and companions.has_postgresql(output):
        return Database(companions.postgresql_url(output))
    return Database(url or f"sqlite:///{(output / 'service.db').absolute()}")


def _open(url: str | None, output: Path, *, upgrade: bool = False):  # type: ignore[no-untyped-def]  # noqa: ANN202 - imported late
    from bench.errors import OperatorError

    opened = _database(url, output)
    path = opened.engine.url.database if opened.engine.dialect.name == "sqlite" else None
    if path and not upgrade and not Path(path).stat().st_size:
        Path(path).unlink()
        raise OperatorError(f"no service keeps its database in {path}", "--output names the folder of `gauntlet up`")
    if upgrade:
        opened.upgrade()
    opened.check()
    return opened


# --- running it


@app.command()
def serve(
    output: Output = OUTPUT,
    url: Url = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    tracking_uri: Uri = None,
    quotas: QuotaFile = None,
    pages: Pages = None,
    ray_pages: RayPages = None,
) -> None:
    """Answer HTTP: the face of the service alone. `gauntlet up` starts everything."""
    from bench import verbs
    from bench.service.face import face
    from bench.service.limits import limits
    from bench.service.server import end_with_supervisor, log_lines
    from bench.service.server import serve as listen
    from bench.service.traces import traces

    given = limits(quotas)
    log_lines()
    verbs.prepare()
    end_with_supervisor()
    opened, told = _open(url, output), traces("gauntlet-face")
    listen(face(opened, output, given.quotas, given.rate, tracking_uri, pages, told, ray_pages), host, port)


@app.command()
def dispatch(
    output: Output = OUTPUT,
    url: Url = None,
    address: Ray = None,
    workers: Workers = None,
    tracking_uri: Uri = None,
    quotas_: QuotaFile = None,
    dashboard_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="of Ray's dashboard, on loopback; default: there is none")
    ] = None,
) -> None:
    """Run what was submitted: the dispatcher of the service alone. A second one waits until the first has gone."""
    from bench.service.companions import check_dashboard
    from bench.service.dispatcher import Foreman, Place
    from bench.service.limits import limits
    from bench.service.retention import Retention
    from bench.service.server import end_with_supervisor, log_lines, on_signal
    from bench.service.traces import traces
    from bench.service.work import Work

    given = limits(quotas_)
    log_lines()
    if dashboard_port is not None:
        _no_dashboard_of(address, "--dashboard-port")
        check_dashboard(dashboard_port)
    place = Place(output.absolute(), address, workers, tracking_uri, dashboard_port, autoscaled=given.autoscaled)
    opened = _open(url, output)
    work, retention = Work(opened, given.quotas), Retention(opened, given.days, place.output)
    foreman = Foreman(work, place, given.quotas, retention, traces("gauntlet-dispatcher"))
    on_signal(foreman.stop)
    end_with_supervisor()
    foreman.run()


@app.command()
def up(
    output: Output = OUTPUT,
    url: Url = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    address: Ray = None,
    workers: Workers = None,
    tracking_uri: Uri = None,
    mlflow: Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="an MLflow server, if none is named")] = True,
    mlflow_port: Port = 5000,
    postgresql: Annotated[bool, typer.Option("--postgresql", help="a PostgreSQL in DIR, by Debian's package")] = False,
    quotas: QuotaFile = None,
    pages: Pages = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Ray's dashboard, of a Ray of its own")] = False,
    dashboard_port: Port = 8265,
    ray_pages: RayPages = None,
) -> None:
    """Start the service on this machine, and keep it alive: face, dispatcher, MLflow and, on request, PostgreSQL."""
    from bench.service import companions
    from bench.service.limits import limits
    from bench.service.server import log_lines, must_be_free
    from bench.service.supervisor import Child, end, supervise
    from bench.tracking import default_uri, ui_command

    limits(quotas)  # a mistake in it is told before anything starts
    must_be_free(host, port, "--port", LEAVING)  # the face would be started again and again
    log_lines()
    if postgresql and url:
        raise _misused("--postgresql", "starts a database of its own: not with --database")
    if dashboard:
        _no_dashboard_of(address, "--dashboard")
        companions.check_dashboard(dashboard_port)
        ray_pages = ray_pages or f"http://{companions.HOST}:{dashboard_port}"
    output.mkdir(parents=True, exist_ok=True)
    beneath: list[Child] = []
    if postgresql:
        beneath.append(companions.postgresql(output))
    if mlflow and tracking_uri is None:
        beneath.append(companions.mlflow_server(output, mlflow_port))
        tracking_uri = f"http://{companions.HOST}:{mlflow_port}"
    try:
        opened = _database(url, output)
        if postgresql:
            companions.wait_for(beneath[0], opened)
        opened.upgrade()
    except BaseException:
        end(beneath)
        raise
    place = opened.engine.url.render_as_string(hide_password=True)
    secret = {"GAUNTLET_DATABASE": opened.url}  # not on a command line, which everybody on the machine can read
    opened.close()
    words = [sys.executable, "-m", "bench"]
    common = ["--output", str(output.absolute())]
    more = [*(["--address", address] if address else []), *(["--workers", str(workers)] if workers else [])]
    more += ["--dashboard-port", str(dashboard_port)] if dashboard else []
    common += ["--tracking-uri", tracking_uri] if tracking_uri else []
    common += ["--quotas", str(quotas.absolute())] if quotas else []
    pages = pages or (tracking_uri if tracking_uri and tracking_uri.startswith("http") else None)
    seen = [*(["--mlflow-pages", pages] if pages else []), *(["--ray-pages", ray_pages] if ray_pages else [])]
    board = tracking_uri or default_uri(output)
    say(
        [
            f"face:      http://{host}:{port} (the web page; /openapi.json; /health, /ready, /metrics)",
            f"database:  {place}",
            f"records:   {output.absolute()}",
            f"MLflow:    {board}",
            *([] if tracking_uri else [f"           {ui_command(board)}"]),
            f"Ray:       {address or 'of the dispatcher, on loopback'}",
            *([f"           {ray_pages} (its token: {output.absolute() / companions.RAY_TOKEN})"] if dashboard else []),
            f"tokens:    gauntlet tokens create USER --role submitter{_where(url, output)}",
            *([f"clients:   export GAUNTLET_SERVER=http://{host}:{port}"] if port != PORT else []),
        ]
    )
    supervise(
        [
            Child("face", [*words, "serve", *common, "--host", host, "--port", str(port), *seen], secret),
            Child("dispatcher", [*words, "dispatch", *common, *more], secret),
        ],
        beneath,
    )


@database.command("upgrade")
def upgrade(output: Output = OUTPUT, url: Url = None) -> None:
    """Bring the schema up to date (`gauntlet up` does it, too). Make a backup before."""
    _open(url, output, upgrade=True).close()
    say(["the schema is up to date"])


@database.command("prune")
def prune(
    remove: Annotated[bool, typer.Option("--remove", help="and remove it; else it is only said")] = False,
    quotas: QuotaFile = None,
    output: Output = OUTPUT,
    url: Url = None,
    form: Form = Format.TABLE,
) -> None:
    """Say what has become old, by `days` in the quotas' file, and remove it. The dispatcher does that every hour."""
    import math
    import os
    from dataclasses import asdict
    from threading import Event

    from bench.service.access import Access
    from bench.service.limits import EVER, limits
    from bench.service.retention import Retention

    days = limits(quotas).days
    kept = {kind: each if math.isfinite(each) else EVER for kind, each in asdict(days).items()}
    with closing(_open(url, output)) as opened:
        retention = Retention(opened, days, output.absolute())
        found = retention.old()
        if remove:
            gone = retention.forget(Event())
            found = {kind: gone.get(kind, 0) for kind in found}
            told = ", ".join(f"{count} {kind}" for kind, count in gone.items()) or "nothing"
            Access(opened).audit(None, f"uid {os.getuid()}", "prune", told, 200)
    word = "removed" if remove else "would be removed"
    listed([{"of": kind, "days": kept[kind], word: count} for kind, count in found.items()], form)


@tokens.command("create")
def create_token(
    user: str,
    role: Annotated[str, typer.Option(help="reader, submitter, maintainer or admin; the user gets it")],
    scope: Annotated[list[str], typer.Option(help="read, submit, control, register, extend, audit; default: all")] = [],
    days: Annotated[float, typer.Option(help="until it expires")] = 90,
    note: Annotated[str, typer.Option(help="what it is for")] = "",
    output: Output = OUTPUT,
    url: Url = None,
) -> None:
    """Make a token, and print it: this once."""
    from bench.service.access import Access, Role, Verb

    chosen = _choice(Role, role, "--role")
    scopes = [_choice(Verb, text, "--scope") for text in scope]
    with closing(_database(url, output)) as opened:
        if url is None and opened.revision() is None:
            opened.upgrade()  # the first token, before the first `up`; a schema that is there is not changed by the way
            say([f"the first token of a new service in {output}: `gauntlet up{_where(url, output)}` starts it"])
        opened.check()
        print(Access(opened).create(user, chosen, scopes, days, note))


@tokens.command("list")
def list_tokens(output: Output = OUTPUT, url: Url = None, form: Form = Format.TABLE) -> None:
    """List all tokens, without their secrets."""
    from bench.service.access import Access
    from bench.service.shapes import iso

    with closing(_open(url, output)) as opened:
        found = Access(opened).tokens()
    lines = [
        {
            "id": token.id,
            "user": token.owner,
            "role": role,
            "scopes": " ".join(token.scopes),
            "created": iso(token.created),
            "expires": iso(token.expires),
            "revoked": iso(token.revoked),
            "note": token.note,
        }
        for token, role in found
    ]
    listed(lines, form)


@tokens.command("revoke")
def revoke_token(token: Annotated[str, typer.Argument(metavar="ID")], output: Output = OUTPUT, url: Url = None) -> None:
    """Make a token worthless at once."""
    from bench.service.access import Access

    with closing(_open(url, output)) as opened:
        Access(opened).revoke(token)
    say([f"{token} is revoked"])


def _where(url: str | None, output: Path) -> str:
    """What other commands need to be told to find this service's database."""
    if url is not None:
        return "   (with the same --database or GAUNTLET_DATABASE)"
    return "" if output == OUTPUT else f" --output {shlex.quote(str(output))}"


def _no_dashboard_of(address: str | None, option: str) -> None:
    if address is not None:
        raise _misused(option, "is of a Ray of the dispatcher's own: not with --address (--ray-pages links another's)")


def _misused(option: str, message: str) -> Exception:
    from bench.errors import Mistake, SuiteError

    return SuiteError([Mistake(option, "", message)])


def _choice(kinds, text: str, option: str):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - any StrEnum
    from bench.errors import Mistake, SuiteError, did_you_mean

    try:
        return kinds(text)
    except ValueError:
        near = did_you_mean(text, kinds)
        raise SuiteError([Mistake(option, "", f"no '{text}'{near} ({', '.join(kinds)})")]) from None
