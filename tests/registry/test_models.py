import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from esci_tournament.registry.errors import NotFoundError, StoreError
from esci_tournament.registry.models import Models
from esci_tournament.registry.packaging import Interface
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec

SPEC = LanguageModelSpec(name="minilm", architecture="bert", description="the first")

LOADER = """
from pathlib import Path
import pandas as pd

class Model:
    def __init__(self, label):
        self.label = label

    def predict(self, frame, params=None):
        return pd.DataFrame({"E": [1.0] * len(frame), "label": [self.label] * len(frame)})

def _load_pyfunc(path):
    return Model((Path(path) / "label.txt").read_text())
"""


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def ensemble_folder(tmp_path):
    folder = tmp_path / "an ensemble"
    folder.mkdir()
    (folder / "label.txt").write_text("Exact")
    return folder


def plain(models):
    return MlflowClient(models.tracking_uri, models.tracking_uri)


def test_a_spec_is_one_version_however_often_it_is_registered(models):
    first = models.register_candidate(SPEC, {"by": "ann"})
    again = models.register_candidate(SPEC.model_copy(update={"description": "other words"}))
    assert again == first
    assert (first.id, first.spec, first.tags["by"]) == ("minilm/1", SPEC, "ann")
    changed = models.register_candidate(SPEC.model_copy(update={"seed": 7}))
    assert changed.id == "minilm/2"


def test_a_version_s_source_holds_its_spec(models):
    version = models.register_candidate(SPEC)
    source = Path(plain(models).get_model_version("minilm", "1").source)
    assert json.loads((source / "spec.json").read_text()) == SPEC.model_dump(mode="json")
    assert source.is_relative_to(models.home / "mlartifacts")
    assert version.run_id in str(source)


@pytest.mark.slow
def test_a_registration_killed_after_any_step_is_completed_by_the_next(home, run_script):
    killed = """
        import os, shutil, signal, sys
        from pathlib import Path
        from mlflow.tracking import MlflowClient
        from esci_tournament.registry.models import Models
        from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
        template, steps = Path(sys.argv[1]), sys.argv[2:]
        for step in steps:
            home = template.with_name(step)
            shutil.copytree(template, home)
            if (child := os.fork()) == 0:
                whole = getattr(MlflowClient, step)
                def kill(*arguments, **named):
                    whole(*arguments, **named)
                    os.kill(os.getpid(), signal.SIGKILL)
                setattr(MlflowClient, step, kill)
                spec = LanguageModelSpec(name="minilm", architecture="bert", description="the first")
                Models(f"sqlite:///{home / 'mlflow.db'}", home).register_candidate(spec)
                os._exit(1)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    """
    steps = ["create_run", "log_text", "create_registered_model", "create_model_version"]
    run_script(killed, home, *steps)
    for step in steps:
        victim = home.with_name(step)
        models = Models(f"sqlite:///{victim / 'mlflow.db'}", victim)
        assert models.register_candidate(SPEC).id == "minilm/1"
        assert [each.id for each in models.candidates()] == ["minilm/1"], step
        client = plain(models)
        experiment = client.get_experiment_by_name("tournament-candidates")
        assert len(client.search_runs([experiment.experiment_id])) == 1, step


@pytest.mark.slow
def test_processes_that_register_one_spec_at_once_make_one_version(home, run_script):
    script = """
        import os, sys
        from pathlib import Path
        from esci_tournament.registry.models import Models
        from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
        home, children = Path(sys.argv[1]), []
        for _ in range(4):
            if (child := os.fork()) == 0:
                models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
                version = models.register_candidate(LanguageModelSpec(name="minilm", architecture="bert"))
                os._exit(0 if version.id == "minilm/1" else 1)
            children.append(child)
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    """
    run_script(script, home)
    assert [each.id for each in Models(f"sqlite:///{home / 'mlflow.db'}", home).candidates()] == ["minilm/1"]


def test_candidates_stand_in_the_order_they_entered(models):
    names = ["zeta", "alpha", "mid"]
    for name in names:
        models.register_candidate(GraphNetworkSpec(name=name, architecture="gcn"))
    assert [each.name for each in models.candidates()] == names
    assert [each.name for each in models.candidates("alpha")] == ["alpha"]


def test_weights_and_metrics_are_attached_once(models, weights):
    version = models.register_candidate(SPEC)
    attached = models.attach_weights(version, weights, {"macro_f1": 0.5}, {"tournament.state": "trained"})
    assert models.attach_weights(version, weights) == attached
    assert attached.metrics == {"macro_f1": 0.5}
    assert attached.tags["tournament.state"] == "trained"
    assert (models.download(attached) / "model.safetensors").read_bytes() == b"weights"
    assert models.candidates() == [attached]


def test_other_weights_never_overwrite_the_first(models, weights, tmp_path):
    version = models.register_candidate(SPEC)
    first = models.attach_weights(version, weights)
    (weights / "model.safetensors").write_bytes(b"other")
    second = models.attach_weights(version, weights)
    assert (models.download(first) / "model.safetensors").read_bytes() == b"weights"
    copied = models.download(second, tmp_path / "copy")
    assert copied == tmp_path / "copy"
    assert (copied / "model.safetensors").read_bytes() == b"other"


def test_weights_that_are_not_there_are_not_found(models, tmp_path):
    version = models.register_candidate(SPEC)
    with pytest.raises(NotFoundError, match="no weights"):
        models.download(version)
    with pytest.raises(NotFoundError, match="missing or empty"):
        models.attach_weights(version, tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="minilm/9"):
        models.candidate("minilm/9")


def test_a_version_of_plain_mlflow_with_the_spec_tag_is_a_candidate(models, weights):
    client = plain(models)
    client.create_registered_model("by-hand")
    content = {"family": "graph_network", "architecture": "gatv2"}
    client.create_model_version("by-hand", str(weights), tags={"tournament.spec": json.dumps(content)})
    client.create_model_version("by-hand", str(weights))
    (candidate,) = models.candidates()
    assert candidate.spec == GraphNetworkSpec(name="by-hand", architecture="gatv2")
    attached = models.attach_weights(candidate, weights, {"macro_f1": 0.4})
    assert attached.metrics == {"macro_f1": 0.4}
    assert models.download(attached).is_dir()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "no JSON object"), ("[]", "no JSON object"), ('{"family": "magic"}', "family"), ('{"x": 1}', "by-hand/1")],
)
def test_a_spec_that_cannot_be_read_is_listed_with_a_complaint(models, content, complaint):
    client = plain(models)
    client.create_registered_model("by-hand")
    client.create_model_version("by-hand", "/nowhere", tags={"tournament.spec": content})
    (candidate,) = models.candidates()
    assert candidate.spec is None
    assert complaint in candidate.complaint


def test_an_ensemble_is_one_version_for_a_tournament(models, ensemble_folder):
    report = ensemble_folder / "label.txt"
    first = models.register_ensemble(ensemble_folder, ["a/1", "b/2"], "t1", metrics={"macro_f1": 0.6}, files=[report])
    assert models.register_ensemble(ensemble_folder, ["a/1", "b/2"], "t1") == first
    second = models.register_ensemble(ensemble_folder, ["a/1"], "t2")
    assert (first.version, first.members, first.tournament) == (1, ("a/1", "b/2"), "t1")
    assert models.ensembles() == [first, second]
    run = plain(models).get_run(first.run_id)
    assert run.data.metrics == {"macro_f1": 0.6}
    assert (Path(run.info.artifact_uri) / "report" / "label.txt").is_file()
    assert (models.download(first) / "label.txt").read_text() == "Exact"


def test_a_report_without_an_ensemble_has_one_run_however_often_it_is_logged(models, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<p>refused</p>", encoding="utf-8")
    for accuracy in (0.4, 0.5):
        models.log_report("t-1", [page], {"accuracy": accuracy})
    client = MlflowClient(models.tracking_uri)
    experiment = client.get_experiment_by_name("tournament-ensembles")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"accuracy": 0.5}
    assert [one.path for one in client.list_artifacts(run.info.run_id, "report")] == ["report/report.html"]
    assert models.ensembles() == []


def test_an_ensemble_holds_no_pickle(models, ensemble_folder):
    version = models.register_ensemble(ensemble_folder, ["a/1"], "t1")
    artifacts = Path(plain(models).get_run(version.run_id).info.artifact_uri)
    names = [path.name for path in artifacts.rglob("*") if path.is_file()]
    assert "MLmodel" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".bin"))]


def test_aliases_name_champion_and_previous(models, ensemble_folder):
    assert models.champion() is None
    assert models.previous() is None
    one, two = (models.register_ensemble(ensemble_folder, ["a/1"], name) for name in ("t1", "t2"))
    models.set_alias("champion", 2)
    models.set_alias("previous", 1)
    assert (models.champion(), models.previous()) == (two, one)
    models.set_alias("previous", None)
    models.set_alias("previous", None)
    assert models.previous() is None
    with pytest.raises(NotFoundError, match="version 9"):
        models.ensemble(9)


def test_the_champion_predicts_in_a_fresh_process_from_another_folder(models, ensemble_folder, run_script, tmp_path):
    (tmp_path / "a_loader.py").write_text(LOADER)
    frame = pd.DataFrame({"query": ["usb cable"], "locale": ["us"]})
    interface = Interface(frame, pd.DataFrame({"E": [1.0], "label": ["Exact"]}), ("query", "locale"))
    models.register_ensemble(ensemble_folder, ["a/1"], "t1", loader_module="a_loader", interface=interface)
    models.set_alias("champion", 1)
    shutil.rmtree(ensemble_folder)
    script = """
        import mlflow.pyfunc, pandas as pd
        model = mlflow.pyfunc.load_model("models:/esci-ensemble@champion")
        print(model.predict(pd.DataFrame({"query": ["a", "b"], "locale": ["us", "jp"]})).to_json(orient="records"))
    """
    done = run_script(script, MLFLOW_TRACKING_URI=models.tracking_uri, PYTHONPATH=str(tmp_path))
    assert json.loads(done.stdout) == [{"E": 1.0, "label": "Exact"}] * 2


@pytest.mark.slow
def test_nothing_is_printed_and_nothing_written_to_the_current_folder(run_script, tmp_path):
    """From the first migration to the champion: standard output is ours alone."""
    script = """
        import sys
        from pathlib import Path
        from esci_tournament.registry.models import Models
        from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
        home = Path(sys.argv[1])
        models = Models(f"sqlite:///{home / 'deep' / 'mlflow.db'}", home)
        version = models.register_candidate(GraphNetworkSpec(name="gcn", architecture="gcn"))
        (home / "data").mkdir()
        (home / "data" / "a").write_text("x")
        models.attach_weights(version, home / "data", {"macro_f1": 0.5})
        models.register_ensemble(home / "data", [version.id], "t1", metrics={"macro_f1": 0.5})
        models.set_alias("champion", 1)
        assert list(Path.cwd().iterdir()) == [], list(Path.cwd().iterdir())
    """
    done = run_script(script, tmp_path / "home")
    assert done.stdout == ""
    assert done.stderr == ""


def test_a_database_that_is_none_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to look like one" * 10)
    with pytest.raises(StoreError, match=r"mlflow\.db.*cannot be opened.*not a database"):
        Models(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path).candidates()


def test_ids_name_model_and_version():
    assert CandidateVersion(name="a", version=3, run_id="", spec=None, entered="").id == "a/3"
