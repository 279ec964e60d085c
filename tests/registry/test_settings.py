import pytest

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TOURNAMENT_{name.upper()}", raising=False)


def test_addresses_follow_from_home(tmp_path):
    settings = read_settings(home=tmp_path / "here")
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}"
    assert settings.ledger_address == f"sqlite:///{tmp_path / 'here' / 'ledger.db'}"


def test_a_relative_home_is_resolved_when_the_settings_are_made(tmp_path, monkeypatch):
    settings = read_settings()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert settings.home == tmp_path / ".tournament"


def test_mlflow_is_where_its_own_variable_says_unless_ours_say_otherwise(tmp_path, monkeypatch):
    """F04: engineers have set it for MLflow itself; a private database beside it would hear nothing."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///team.db")
    settings = read_settings(home=tmp_path / "home")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/team.db"
    assert settings.mlflow_named_by == "MLFLOW_TRACKING_URI"
    (tmp_path / "tournament.toml").write_text('mlflow_uri = "http://of-the-file"\n')
    assert (read_settings().tracking_uri, read_settings().mlflow_named_by) == ("http://of-the-file", "mlflow_uri")
    monkeypatch.setenv("TOURNAMENT_MLFLOW_URI", "http://of-the-variable")
    assert read_settings().tracking_uri == "http://of-the-variable"
    assert read_settings(mlflow_uri="http://given").tracking_uri == "http://given"


def test_an_empty_variable_of_mlflow_names_nothing(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert (read_settings().mlflow_uri, read_settings().mlflow_named_by) == (None, "home")
    assert "mlflow_uri" not in read_settings().model_fields_set


def test_named_addresses_win(tmp_path):
    settings = read_settings(mlflow_uri="http://127.0.0.1:5000", ledger_url="postgresql+psycopg://host/ledger")
    assert (settings.tracking_uri, settings.ledger_address) == (
        "http://127.0.0.1:5000",
        "postgresql+psycopg://host/ledger",
    )


def test_an_argument_wins_over_a_variable_and_a_variable_over_the_file(tmp_path, monkeypatch):
    (tmp_path / "tournament.toml").write_text("seed = 1\nalpha = 0.1\nresamples = 200\n")
    monkeypatch.setenv("TOURNAMENT_SEED", "2")
    monkeypatch.setenv("TOURNAMENT_ALPHA", "0.2")
    settings = read_settings(seed=3, alpha=None)
    assert (settings.seed, settings.alpha, settings.resamples) == (3, 0.2, 200)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("sed = 1", "setting sed"), ("alpha = 2", "setting alpha.*got 2"), ("selection = 'magic'", "setting selection")],
)
def test_a_wrong_key_or_value_of_the_file_is_named(tmp_path, content, complaint):
    (tmp_path / "tournament.toml").write_text(content)
    with pytest.raises(UsageError, match=complaint):
        read_settings()


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("TOURNAMENT_FOLDS", "many")
    with pytest.raises(UsageError, match="TOURNAMENT_FOLDS"):
        read_settings()


def test_a_file_that_is_no_toml_is_told_in_words(tmp_path):
    (tmp_path / "tournament.toml").write_text("seed = = 1")
    with pytest.raises(UsageError, match=r"tournament\.toml"):
        read_settings()


def test_settings_cannot_be_changed():
    settings = read_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 4


def test_every_setting_says_what_it_is():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_paths_mean_the_same_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = ("models", "models:/shop-", str(tmp_path / "elsewhere"))
    made = Settings(
        mlflow_uri="sqlite:///mlflow.db", ledger_url="sqlite:///kept/ledger.db", allowed_pyfunc_sources=sources
    )
    assert made.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert made.ledger_url == f"sqlite:///{tmp_path}/kept/ledger.db"
    assert made.allowed_pyfunc_sources == (f"{tmp_path}/models", "models:/shop-", f"{tmp_path}/elsewhere")
    for address in (
        "sqlite:////absolute.db",
        "sqlite:///:memory:",
        "postgresql+psycopg://host/ledger",
        "http://mlflow:5000",
    ):
        assert Settings(mlflow_uri=address).mlflow_uri == address


def test_a_proxy_that_is_no_address_is_named() -> None:
    with pytest.raises(UsageError, match=r"trusted_proxies.*10\.0\.0\.0/99"):
        read_settings(trusted_proxies=("10.0.0.0/99",))


def test_how_data_is_read_comes_from_file_and_environment(tmp_path, monkeypatch):
    (tmp_path / "tournament.toml").write_text(
        'data_extra_columns = ["price"]\n[data_labels]\n3 = "exact"\n"0.1" = "S"\n'
    )
    settings = read_settings()
    assert settings.data_extra_columns == ("price",)
    assert settings.data_labels == {"3": "E", "0.1": "S"}
    monkeypatch.setenv("TOURNAMENT_DATA_EXTRA_COLUMNS", "ignore")
    monkeypatch.setenv("TOURNAMENT_DATA_LABELS", '{"1": "E"}')
    assert (read_settings().data_extra_columns, read_settings().data_labels) == (
        "ignore",
        {"3": "E", "0.1": "S", "1": "E"},
    )
    monkeypatch.setenv("TOURNAMENT_DATA_EXTRA_COLUMNS", '["price", "stock"]')
    assert read_settings().data_extra_columns == ("price", "stock")
    for wrong in ({"data_labels": {"3": "best"}}, {"data_extra_columns": "drop"}):
        with pytest.raises(UsageError, match=f"setting {next(iter(wrong))}"):
            read_settings(**wrong)
