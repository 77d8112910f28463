"""The verbs of those who use the service: hand in, watch, change, fetch."""

import re
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import Form, Format, SuiteFile, app, listed, say
from bench.cli_service import PORT, _choice
from bench.client import Client

SERVER = f"http://127.0.0.1:{PORT}"
SHORT = ("model", "dataset", "evaluation", "start", "stop", "attempts", "reason", "message")  # of a task that failed
Server = Annotated[str, typer.Option("--server", metavar="URL", envvar="GAUNTLET_SERVER", help="where the face is")]
Secret = Annotated[str, typer.Option("--token", envvar="GAUNTLET_TOKEN", help="better: the environment", prompt=False)]
Id = Annotated[str, typer.Argument(metavar="SUBMISSION")]


@app.command()
def submit(
    suite: SuiteFile,
    token: Secret,
    server: Server = SERVER,
    priority: Annotated[int, typer.Option(min=-10, max=10, help="among your own: highest first")] = 0,
    shared: Annotated[bool, typer.Option(help="let everybody with a token see it")] = False,
    watch_: Annotated[bool, typer.Option("--watch", help="stay until it has ended")] = False,
) -> None:
    """Hand a suite in to the service, and print the submission's id."""
    from bench.errors import Mistake, SuiteError
    from bench.suite_yaml import no_file

    if not suite.is_file():
        raise SuiteError([Mistake(str(suite), "", no_file(suite))])
    client = Client(server, token)
    try:
        made = client.submit(suite.read_bytes(), priority=priority, shared=shared)
    except SuiteError as refused:  # the service knows the file by no name
        told = [mistake.message for mistake in refused.mistakes]
        raise SuiteError(
            [Mistake("", "", re.sub("^suite(?=:[0-9]|$)", str(suite), line)) for line in told], refused.hint
        ) from None
    print(made["id"], flush=True)
    if watch_:
        _watch(client, made["id"])


@app.command()
def watch(submission: Id, token: Secret, server: Server = SERVER) -> None:
    """Tell what happens to a submission until it has ended; the exit code is 1 where not everything was measured."""
    _watch(Client(server, token), submission)


@app.command()
def cancel(submission: Id, token: Secret, server: Server = SERVER) -> None:
    """Stop a submission for good; what was measured is kept."""
    _told(Client(server, token).cancel(submission))


@app.command()
def pause(submission: Id, token: Secret, server: Server = SERVER) -> None:
    """Hand out no more tasks of a submission."""
    _told(Client(server, token).pause(submission))


@app.command()
def resume(submission: Id, token: Secret, server: Server = SERVER) -> None:
    """Go on with a paused submission."""
    _told(Client(server, token).resume(submission))


@app.command()
def retry(submission: Id, token: Secret, server: Server = SERVER) -> None:
    """Try again what failed, or was canceled."""
    _told(Client(server, token).retry(submission))


@app.command(context_settings={"ignore_unknown_options": True})  # -3 is a priority
def prioritise(
    submission: Id,
    priority: Annotated[int, typer.Argument(metavar="PRIORITY", min=-10, max=10)],
    token: Secret,
    server: Server = SERVER,
) -> None:
    """Change the priority of a submission among your own: -10 to 10, highest first."""
    _told(Client(server, token).prioritise(submission, priority))


@app.command()
def submissions(
    token: Secret,
    server: Server = SERVER,
    state: Annotated[str | None, typer.Option(help="queued, running, paused, complete, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="so many at the most")] = 100,
    form: Form = Format.TABLE,
) -> None:
    """List the submissions that you may see, the latest first."""
    from bench.service.database import State

    wanted = state and _choice(State, state, "--state")
    columns = ("id", "owner", "state", "done", "total", "failed", "eta", "priority", "message")
    found = Client(server, token).submissions(wanted, limit)
    listed([{name: line[name] for name in columns} for line in found], form)
    if len(found) == limit:
        say([f"there may be more than these {limit}: --limit says how many are listed"])


@app.command()
def failures(submission: Id, token: Secret, server: Server = SERVER, form: Form = Format.TABLE) -> None:
    """List the tasks of a submission that failed, with the reasons; --format json has all that their workers said."""
    found = Client(server, token).failures(submission)
    if form is not Format.JSON:
        found = [{name: line[name] for name in SHORT} for line in found]
    listed(found, form)


@app.command()
def fetch(
    submission: Id,
    token: Secret,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="the folder that gets the files")],
    server: Server = SERVER,
) -> None:
    """Fetch the leaderboard (HTML, JSON) and the records (Parquet) of a submission that has ended."""
    import json

    client = Client(server, token)
    board = client.leaderboard(submission)
    to.mkdir(parents=True, exist_ok=True)
    (to / "leaderboard.json").write_text(json.dumps(board, indent=2))
    client.page(submission, to / "leaderboard.html")
    client.records(submission, to / "records.parquet")
    print(to)


def _watch(client: Client, submission: str) -> None:
    from bench.errors import counted

    state, told = "", ""
    for event in client.watch(submission):
        if event.kind == "progress":
            found, state = event.data, str(event.data["state"])
            eta = f", ETA {found['eta']:.0f} s" if found["eta"] else ""
            line = f"{found['done']}/{found['total']}{eta}"
            if found["total"] and line != told:
                say([line])
            told = line
        else:
            say([str(event.data["text"])])
    if state != "complete":
        ended = client.get(submission)
        say([ended["message"]] if ended["message"] else [])
        say([f"{counted(ended['failed'], 'task')} failed: `gauntlet failures {submission}`"] if ended["failed"] else [])
        raise typer.Exit(1)


def _told(found: dict[str, object]) -> None:
    say([f"{found['id']}: {found['state']}" + (f" ({found['wish']} is on its way)" if found["wish"] else "")])
