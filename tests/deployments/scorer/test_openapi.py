"""The OpenAPI document says what FastAPI cannot see, and its examples work."""

from __future__ import annotations

import json

from tests.deployments.scorer.conftest import ask, get


def test_the_examples_of_the_document_work(stand):
    document = get(stand, "/openapi.json").json()
    examples = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 3
    for example in examples.values():
        assert ask(stand, json.loads(json.dumps(example["value"])))[0].status_code == 200
