"""`tournament doctor`: check environment, settings and stores, and say how to correct what is wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, command, failure, settings_of

if TYPE_CHECKING:
    from esci_tournament.registry.settings import Settings
    from esci_tournament.registry.workspace import Workspace

PACKAGES = (
    "torch", "transformers", "torch-geometric", "lightgbm", "shap", "mlflow", "prefect", "great-expectations",
    "pandas", "sqlalchemy", "fastapi",
)  # fmt: skip
FREE_GIB = 5.0
PROBE_S = 5.0


def add_parser(commands: Any) -> None:
    """Add the command."""
    command(commands, "doctor", work, "check environment, settings and stores, and say how to correct what is wrong")


def work(options: argparse.Namespace, output: Output) -> None:
    """Run every check, and show the outcomes and the settings in force.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        TournamentError: if a check failed.
    """
    from esci_tournament.registry.errors import TournamentError
    from esci_tournament.registry.workspace import Workspace
    from esci_tournament.tasks.report.words import clean

    settings = settings_of(options)
    workspace = Workspace(settings)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("device", _device),
        ("home", lambda: _home(workspace)),
        ("ledger", lambda: _ledger(workspace)),
        ("ledger's chain", lambda: check_chain(workspace)),
        ("mlflow", lambda: _mlflow(workspace)),
        ("record", lambda: _record(workspace)),
        ("champion", lambda: _champion(workspace)),
        ("prefect", lambda: check_prefect(settings)),
    ]
    rows, failed = [], []
    for name, check in checks:
        try:
            ok, says = True, check()
        except Exception as error:  # whatever it is, it is reported and the other checks are made
            ok, says = False, str(error)
            failed.append(name)
        rows.append({"check": name, "ok": ok, "says": says})
        output.say(f"{'ok  ' if ok else 'FAIL'}  {name}: {says}")
    output.say("settings in force:")
    shown = {key: clean(str(value)) for key, value in settings.model_dump(mode="json").items()}
    for key, value in shown.items():
        output.say(f"  {key} = {value}")
    complaint = TournamentError(f"{', '.join(failed)}: failed; the lines above say what to do")
    more = failure(str(complaint), type(complaint).__name__, complaint.exit_code) if failed else {}
    output.document({"checks": rows, "settings": shown} | more)
    if failed:
        raise complaint


def _python() -> str:
    return sys.version.split()[0]


def _packages() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError as error:
            raise RuntimeError(f"{name} is not installed; run: make install") from error
    return ", ".join(found)


def _device() -> str:
    import torch

    from esci_tournament.registry.processes import usable_cores
    from esci_tournament.tasks.candidates.device import resolve_device

    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{usable_cores()} cores"
    return f"{device} ({name})"


def _home(workspace: Any) -> str:
    from esci_tournament.registry.files import make_home

    folder = workspace.settings.home
    make_home(folder)
    probe = folder / f".doctor-{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()
    free = shutil.disk_usage(folder).free / 2**30
    if free < FREE_GIB:
        raise RuntimeError(f"{folder}: only {free:.1f} GiB are free; make room or choose another folder with --home")
    return f"{folder}, {free:.0f} GiB free"


def _ledger(workspace: Any) -> str:
    from esci_tournament.registry.policies import current

    history = workspace.ledger.history(workspace.settings.ensemble_name)
    invalid = workspace.ledger.standing(workspace.settings.ensemble_name).invalid
    if invalid:
        raise RuntimeError(f"{'; '.join(map(str, invalid))}. Somebody wrote into the ledger by hand")
    policy = current(workspace.ledger)
    where = "an address of its own" if workspace.settings.ledger_url else "SQLite in the home"
    governed = f"policy {policy.version}" if policy else "no policy yet"
    return f"{where}, {len(history)} promotions and rollbacks, {governed}"


def check_chain(workspace: Any) -> str:
    """Return in words that every row and trigger of the ledger is as it was written.

    Raises:
        ChainError: if something differs.
    """
    from esci_tournament.registry.chain import verify_home

    settings = workspace.settings
    report = verify_home(workspace.ledger, settings.home, settings.ledger_address)
    report.checkpoint()  # its error says what is wrong and what to do
    before = f", {report.before:,} of them of rows from before the chain" if report.before else ""
    return "; ".join([f"{report.entries:,} entries verified{before}, all triggers in force", *report.notes])


def _mlflow(workspace: Any) -> str:
    from esci_tournament.registry.promotion import drift

    if moved := drift(workspace.ledger, workspace.models):
        raise RuntimeError("; ".join(map(str, moved)))
    champion = workspace.models.champion()
    where = "an address of its own" if workspace.settings.mlflow_uri else "SQLite in the home"
    return f"{where}, " + (
        f"champion is version {champion.version} of {workspace.settings.ensemble_name}" if champion else "no champion"
    )


def _record(workspace: Workspace) -> str:
    """Compare champion, members and candidates in MLflow with what is on record; those of the champion must agree."""
    champion = {id: text for id, text in workspace.roll.champion_differences().items() if text}
    if champion:
        raise RuntimeError("; ".join(champion.values()))
    known = workspace.roll.candidates(with_metrics=False)
    others = [one.difference for one in known if one.difference]
    told = f"; {'; '.join(others)}" if others else ""
    return f"{sum(one.recorded for one in known)} candidates, {len(others)} of them otherwise in MLflow{told}"


def _champion(workspace: Workspace) -> str:
    from esci_tournament.registry.attestation import champion_in_words

    return champion_in_words(workspace)


def check_prefect(settings: Settings) -> str:
    """Return in words whether the Prefect server of the home, or of the environment, asks for a password.

    Raises:
        RuntimeError: if it asks for none, refuses the one that commands know, or does not answer.
    """
    import httpx

    from esci_tournament.deployments.stack.access import CLIENT_AUTH, authorization, name_server
    from esci_tournament.deployments.stack.state import prefect_api_url

    known = dict(os.environ)
    if ours := prefect_api_url(settings.home):
        name_server(settings.home, ours, known)
    api, auth = known.get("PREFECT_API_URL"), known.get(CLIENT_AUTH)
    if not api:
        return "no server runs for this home; one that a command starts for itself asks for the home's password"
    page = f"{api.rstrip('/')}/admin/version"
    try:
        open_to_all = httpx.get(page, timeout=PROBE_S).status_code == 200
        status = httpx.get(page, timeout=PROBE_S, headers=authorization(auth) if auth else {}).status_code
    except httpx.HTTPError as error:
        raise RuntimeError(f"{api} does not answer: {error}; is it up?") from error
    if open_to_all:
        raise RuntimeError(
            f"{api} asks for no password: whoever reaches it may approve a promotion; set "
            "PREFECT_SERVER_API_AUTH_STRING for the server, or start it with: tournament up"
        )
    if status == 401:
        raise RuntimeError(
            f"{api} refuses the password of this environment; PREFECT_API_AUTH_STRING must be the server's"
        )
    return f"{api} asks for a password, and commands know it"
