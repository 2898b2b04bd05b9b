"""Requests made from the OpenAPI document: whatever is sent, the server meets no error of its own."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from embedding_assets_tests.api.site import LOOPBACK, Site
from embedding_assets_tests.api.test_access import ROUTES, Route

EXAMPLES = 20
"""Requests for each route and mode."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


WITHOUT_INPUT = {"/healthz", "/readyz", "/metrics"}
"""Routes of which no request can be wrong."""

CASES = [
    pytest.param(route, mode, id=f"{route} {mode.value}")
    for route in ROUTES
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or route.path not in WITHOUT_INPUT
]


@pytest.mark.parametrize(("route", "mode"), CASES)
def test_no_request_makes_the_server_err(route: Route, mode: GenerationMode, shared_site: Site) -> None:
    document = schemathesis.openapi.from_dict(shared_site.app.openapi())
    operation = document[route.path][route.method]
    headers = {"Authorization": f"Bearer {shared_site.keys['shop', 'admin']}"}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url=LOOPBACK, app=shared_site.app, headers=headers)
        case.validate_response(answer, checks=CHECKS)

    ask()
