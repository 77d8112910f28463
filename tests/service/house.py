"""A face that is up, with its database, for the tests of a module."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from fastapi import FastAPI

from bench import plugins
from bench.client import Client
from bench.service import work as module
from bench.service.access import Access, Role, Verb
from bench.service.database import Database
from bench.service.face import face
from bench.service.queue import Queue, Quotas
from bench.service.server import Server, configuration
from bench.service.uploads import Uploads
from bench.service.work import Work

PATIENCE = 120  # seconds that a request may take: a machine may stand still for a while
QUOTAS = Quotas(waiting=10_000, bytes=4_000_000, upload=2_000_000, uploads=50)


def announced(content: bytes, **other: object) -> dict[str, object]:
    """An upload as its sender announces it."""
    digest = hashlib.sha256(content).hexdigest()
    return {"file": "w.safetensors", "size": len(content), "digest": digest, **other}


@dataclass
class House:
    url: str
    database: Database
    access: Access
    queue: Queue
    work: Work
    folder: Path
    uploads: Uploads

    def token(self, user: str, role: Role = Role.SUBMITTER, *scopes: Verb) -> str:
        return self.access.create(user, role, scopes)

    def client(self, user: str, role: Role = Role.SUBMITTER) -> Client:
        return Client(self.url, self.token(user, role))

    def call(self, method: str, path: str, token: str | None = None, **more) -> requests.Response:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=PATIENCE, **more)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Its address, on loopback, while the block lasts. It ends its streams itself: none is cut off for being slow."""
    with socket.create_server(("127.0.0.1", 0)) as ours:  # bound from here on: nobody else gets the port
        port = ours.getsockname()[1]
        settings = configuration(app, "127.0.0.1", port)
        settings.timeout_graceful_shutdown = PATIENCE // 2
        server = Server(settings)
        thread = threading.Thread(target=server.run, args=([ours],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "it has not come up"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "it has not ended"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    plugins.load_built_in()
    folder = tmp_path_factory.mktemp("service")
    database = Database(f"sqlite:///{folder}/service.db")
    database.upgrade()
    work = Work(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TERM", 3600.0)  # nobody renews it beside the tests
        assert work.acquire()
    uploads = Uploads(database, folder / "uploads", QUOTAS, lambda path: "torch")
    with serving(face(database, folder, QUOTAS, rate=10_000)) as url:
        yield House(url, database, Access(database), Queue(database, QUOTAS), work, folder, uploads)
    database.close()
