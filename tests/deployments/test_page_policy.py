"""The policy of a page lets its own script run, and nothing else."""

from __future__ import annotations

import base64
import hashlib

import pytest

from esci_tournament.deployments.page_policy import policy_of


def test_the_one_script_is_named_by_its_digest_and_styles_are_let_in_where_there_are_some() -> None:
    digest = base64.b64encode(hashlib.sha256(b"let x = 1;\n").digest()).decode()
    bare = policy_of("<script>let x = 1;\n</script>")
    assert f"script-src 'sha256-{digest}';" in bare
    assert "unsafe" not in bare
    assert "style-src 'unsafe-inline';" in policy_of("<style>p {}</style><script>let x = 1;\n</script>")


@pytest.mark.parametrize("page", ["", "<script>a</script><script>b</script>"])
def test_a_page_without_one_script_has_no_policy(page: str) -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        policy_of(page)
