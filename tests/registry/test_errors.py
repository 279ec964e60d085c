import subprocess
import sys

import pytest

from esci_tournament.registry import errors
from esci_tournament.registry.errors import DataError, TournamentError


def every_error():
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TournamentError)]


def test_every_error_has_an_exit_code_of_its_own():
    codes = [each.exit_code for each in every_error()]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 64 for code in codes)


def test_every_error_says_when_it_is_raised():
    assert [each.__name__ for each in every_error() if not each.__doc__] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "labels are wrong"),
        ({"file": "a.parquet", "column": "label"}, "labels are wrong; file: a.parquet; column: label"),
        ({"rows": [1, 2], "count": 9}, "labels are wrong; first rows: 1, 2 (9 in all)"),
        ({"rows": range(9)}, "labels are wrong; first rows: 0, 1, 2, 3, 4"),
        ({"count": 0, "advice": "look again"}, "labels are wrong; rows: 0; look again"),
    ],
)
def test_a_data_error_names_file_column_rows_and_count(arguments, words):
    assert str(DataError("labels are wrong", **arguments)) == words


def test_settings_specs_and_errors_are_light():
    """`--help` answers in under a second only while these import no heavy library."""
    script = """
import sys
from esci_tournament.registry import errors, plugins, settings, specs, workspace
for family in plugins.families():
    assert issubclass(plugins.spec_class(family), specs.NamedSpec)
print([name for name in ("torch", "mlflow", "pandas", "sqlalchemy", "lightgbm", "prefect") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
