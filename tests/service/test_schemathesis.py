"""Requests made up from the OpenAPI, right ones and wrong ones: none gets 5xx, and none an answer (status, type, shape)
that the document does not tell of. Seeded: the same requests every day."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from bench.service.access import Role
from tests.service.house import PATIENCE, House, house

__all__ = ["house"]  # a fixture
EXAMPLES = 10  # of each request in each way
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
FIRST = (Role.READER, GenerationMode.POSITIVE)  # the quickest
load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
        "response_headers_conformance",
    ]
)  # fmt: skip


def attempted(operation: APIOperation, mode: GenerationMode, token: str, names: dict[str, str] | None) -> int:
    """How many requests were made. names: in the place of made-up path parameters."""
    count = 0

    @SETTINGS
    @hypothesis.given(operation.as_strategy(mode, path_parameters=names))
    def attempt(case: Case) -> None:
        nonlocal count
        response = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE)
        case.validate_response(response, checks=CHECKED)
        count += 1

    try:
        attempt()
    except hypothesis.errors.Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "there is nothing in it that could be wrong"
    return count


@pytest.mark.parametrize(
    ("role", "mode"),
    [
        pytest.param(role, mode, marks=[] if (role, mode) == FIRST else pytest.mark.slow, id=f"{role}-{mode.value}")
        for role in (Role.READER, Role.ADMIN)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ],
)
def test_no_made_up_request_gets_5xx_or_an_answer_that_the_openapi_lacks(
    house: House, role: Role, mode: GenerationMode
):
    token = house.token(f"schemathesis-{role}", role)
    schema = schemathesis.openapi.from_url(f"{house.url}/openapi.json")
    done: dict[str, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        names: list[dict[str, str] | None] = [None]
        if "{id}" in operation.path:
            row, _ = house.queue.submit(f"schemathesis-{role}", "s", "name: s\n")
            house.queue.cancel(row.id)  # its stream of events has an end
            upload = house.uploads.begin(f"schemathesis-{role}", "w", 2, "0" * 64)
            names.append({"id": upload.id if "uploads" in operation.path else row.id})
        if "{module}" in operation.path:
            names.append({"module": "lab_nowhere.nets"})
        for some in names:
            done[operation.label] = done.get(operation.label, 0) + attempted(operation, mode, token, some)
        for left in house.uploads.page(None, 100):
            house.uploads.remove(left)
    tried = [label for label, count in done.items() if count]
    assert len(tried) == len(done) if mode is GenerationMode.POSITIVE else len(tried) > 15, done
    assert sum(done.values()) > 150
