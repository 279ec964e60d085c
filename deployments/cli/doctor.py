"""`tournament doctor`: check environment, settings and stores, and say how to correct what is wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
GPU_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, that of WSL

DESCRIPTION = """\
Check environment, settings and stores. What is wrong comes first, each with what to do; then what is right, and the
settings that differ from their defaults. Exit code 1 when something is wrong. Nothing is made in a home that is not
there yet.
"""


class Illness(Exception):
    """What is wrong, and what to do.

    Args:
        says: What is wrong.
        advice: What to do, beginning with a verb.
    """

    def __init__(self, says: str, advice: str) -> None:
        super().__init__(f"{says}; {advice}")
        self.says, self.advice = says, advice


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name.
        make: Makes it; returns what is right in words, or raises.
        advice: What to do when it raises an error that does not say so itself.
    """

    name: str
    make: Callable[[], str]
    advice: str


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        *(commands, "doctor", work, "check environment, settings and stores, and say how to correct what is wrong"),
        DESCRIPTION,
    )
    parser.add_argument("--all", action="store_true", help="list every setting, with what it means")


def work(options: argparse.Namespace, output: Output) -> None:
    """Run every check, and show what is wrong, what is right, and the settings in force.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        TournamentError: if a check failed.
    """
    from esci_tournament.registry.errors import TournamentError
    from esci_tournament.registry.workspace import Workspace

    settings = settings_of(options)
    rows = []
    with output.error_console().status("checking") as status:  # shows in a terminal alone
        for check in checks_of(Workspace(settings, remembers=True)):
            status.update(f"checking {check.name}")
            rows.append(outcome_of(check))
    failed = [row for row in rows if not row["ok"]]
    show(rows, output)
    show_settings(settings, output, options.all)
    names = ", ".join(row["check"] for row in failed)
    complaint = TournamentError(f"{names}: failed; the first lines above say what to do")
    more = failure(str(complaint), type(complaint).__name__, complaint.exit_code) if failed else {}
    output.document({"checks": rows, "settings": _shown(settings)} | more)
    if failed:
        raise complaint


def checks_of(workspace: Workspace) -> list[Check]:
    """Return the checks, in the order in which they are made.

    Args:
        workspace: what is checked. Of a home that has no stores yet, none is made.
    """
    settings = workspace.settings
    device = 'check the driver with nvidia-smi, or set device = "cpu"'
    stored = "check the setting ledger_url and that its database runs"
    if settings.ledger_url is None:
        stored = f"restore {settings.home / 'ledger.db'} from a backup, or choose another home with --home"
    mlflow = "check that MLflow runs and answers at the address that the settings name"
    if settings.mlflow_uri is None:
        mlflow = f"restore {settings.home / 'mlflow.db'} from a backup, or choose another home with --home"
    server = "see that the server runs: tournament up, or docker compose ps"
    always = [
        Check("python", _python, ""),
        Check("packages", _packages, "run: make install"),
        Check("device", _device, device),
        Check("home", lambda: _home(settings.home), "choose a folder that you may write to, with --home"),
        *([Check("data", lambda: _data(settings.data or ""), "correct the setting data")] if settings.data else []),
    ]
    ledger = settings.ledger_url is not None or (settings.home / "ledger.db").exists()
    registry = settings.mlflow_uri is not None or (settings.home / "mlflow.db").exists()
    stores = [
        *([Check("ledger", lambda: _ledger(workspace), stored)] if ledger else []),
        *([Check("ledger's chain", lambda: check_chain(workspace), stored)] if ledger else []),
        *([Check("mlflow", lambda: _mlflow(workspace, ledger), mlflow)] if registry else []),
        *([Check("record", lambda: _record(workspace), mlflow)] if ledger and registry else []),
        *([Check("champion", lambda: _champion(workspace), mlflow)] if ledger and registry else []),
    ]
    missing = [f"no {name}" for name, there in (("ledger", ledger), ("MLflow database", registry)) if not there]
    if missing:
        none = f"{' and '.join(missing)} in the home yet; the first command that needs one makes it"
        stores.append(Check("stores", lambda: none, ""))
    return [
        *always,
        *stores,
        Check("prefect", lambda: check_prefect(settings), server),
        Check("notifications", lambda: check_notifications(settings), server),
    ]


def outcome_of(check: Check) -> dict[str, Any]:
    """Make a check.

    Args:
        check: the check.

    Returns:
        check (its name), ok, says (what is right, or what is wrong and what to do), and for one that failed problem
        and advice: the parts of `says`, the advice "" where the problem says itself what to do.
    """
    from esci_tournament.registry.addresses import without_password
    from esci_tournament.registry.errors import TournamentError

    try:
        return {"check": check.name, "ok": True, "says": check.make()}
    except Illness as error:
        problem, advice = error.says, error.advice
    except TournamentError as error:
        problem, advice = str(error), "" if _advises(str(error)) else check.advice
    except Exception as error:  # whatever it is, it is reported and the other checks are made
        lines = str(error).splitlines()
        problem, advice = f"{type(error).__name__}: {lines[0] if lines else 'no message'}", check.advice
    problem, advice = without_password(problem), without_password(advice)
    says = f"{problem}; {advice}" if advice else problem
    return {"check": check.name, "ok": False, "says": says, "problem": problem, "advice": advice}


def _advises(text: str) -> bool:
    """Tell whether an error of ours says what to do, as all should: after a semicolon or in a sentence of its own."""
    return ";" in text or ". " in text


def show(rows: Sequence[Mapping[str, Any]], output: Output) -> None:
    """Show outcomes of checks: what is wrong with what to do, then what is right.

    Args:
        rows: what :func:`outcome_of` returned.
        output: where the words go.
    """
    failed = [row for row in rows if not row["ok"]]
    if failed:
        output.say(f"{len(failed)} of {len(rows)} checks failed:")
        for problem in dict.fromkeys(row["problem"] for row in failed):  # one cause is told once
            same = [row for row in failed if row["problem"] == problem]
            output.say(f"FAIL  {', '.join(row['check'] for row in same)}: {problem}")
            if advice := same[0]["advice"]:
                output.say(f"      to do: {advice}")
        output.say()
    else:
        output.say("nothing is wrong:")
    for row in rows:
        if row["ok"]:
            output.say(f"ok    {row['check']}: {row['says']}")


def show_settings(settings: Settings, output: Output, everything: bool) -> None:
    """Show the settings that differ from their defaults; the others are counted, or listed with what they mean.

    Args:
        settings: those in force.
        output: where the words go.
        everything: whether the others are listed.
    """
    fields, shown = type(settings).model_fields, _shown(settings)
    changed = {name for name in shown if name == "home" or getattr(settings, name) != fields[name].default}
    output.say()
    output.say("settings that differ from their defaults:" if len(changed) > 1 else "settings:")
    for name in (name for name in shown if name in changed):
        output.say(f"  {name} = {shown[name]}")
    others = [name for name in shown if name not in changed]
    if not everything:
        output.say(f"  all {len(others)} others have their defaults: tournament doctor --all lists them")
        return
    output.say()
    output.say("settings that have their defaults:")
    for name in others:
        output.say(f"  {name} = {shown[name]}  # {fields[name].description}")


def _shown(settings: Settings) -> dict[str, str]:
    from esci_tournament.tasks.report.words import clean

    return {key: clean(str(value)) for key, value in settings.model_dump(mode="json").items()}


def _python() -> str:
    return sys.version.split()[0]


def _packages() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError as error:
            raise Illness(f"{name} is not installed", "run: make install") from error
    return ", ".join(found)


def _device() -> str:
    from esci_tournament.registry.processes import usable_cores

    if not any(Path(place).exists() for place in GPU_DRIVERS):  # importing torch takes more than all other checks
        return f"cpu ({usable_cores()} cores)"
    import torch

    from esci_tournament.tasks.candidates.device import resolve_device

    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{usable_cores()} cores"
    return f"{device} ({name})"


def _home(folder: Path) -> str:
    there = folder
    while not there.exists():  # it is made by the first command that needs it, and not here: its name may be a mistake
        there = there.parent
    if not there.is_dir():
        raise Illness(f"{there} is no folder", "choose another one with --home")
    if there == folder:
        probe = folder / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    elif not os.access(there, os.W_OK | os.X_OK):
        raise Illness(f"{folder} is not there, and cannot be made in {there}", "choose another one with --home")
    free = shutil.disk_usage(there).free / 2**30
    if free < FREE_GIB:
        raise Illness(f"{folder}: only {free:.1f} GiB are free", "make room or choose another folder with --home")
    return f"{folder}, {free:.0f} GiB free" + ("" if there == folder else "; it is not there yet")


def _data(said: str) -> str:
    if said == "sql" or "://" in said:
        return "fetched by the tournaments; tournament reevaluate checks it"
    folder = Path(said).expanduser()
    if not folder.is_dir():
        raise Illness(f"there is no folder {folder}", "correct the setting data, or: tournament data download --to DIR")
    return f"{folder}; its content is checked by: tournament data check {said}"


def _ledger(workspace: Any) -> str:
    from esci_tournament.registry.policies import current

    history = workspace.ledger.history(workspace.settings.ensemble_name)
    invalid = workspace.ledger.standing(workspace.settings.ensemble_name).invalid
    if invalid:
        raise Illness(
            f"{'; '.join(map(str, invalid))}. Somebody wrote into the ledger by hand",
            "see who may write to its database, and go on as docs/production.md says of a ledger that differs",
        )
    policy = current(workspace.ledger)
    where = "an address of its own" if workspace.settings.ledger_url else "SQLite in the home"
    governed = f"policy {policy.version}" if policy else "no policy yet"
    return f"{where}, {_count(len(history), 'change', 'changes')} of champion, {governed}"


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
    return "; ".join(
        [f"{_count(report.entries, 'entry', 'entries')} verified{before}, all triggers in force", *report.notes]
    )


def _mlflow(workspace: Workspace, known: bool) -> str:
    from esci_tournament.registry.errors import TournamentError
    from esci_tournament.registry.promotion import drift

    if known and (moved := drift(workspace.ledger, workspace.models)):
        raise TournamentError("; ".join(map(str, moved)))
    champion = workspace.models.champion()
    where = "an address of its own" if workspace.settings.mlflow_uri else "SQLite in the home"
    return f"{where}, " + (
        f"champion is version {champion.version} of {workspace.settings.ensemble_name}" if champion else "no champion"
    )


def _record(workspace: Workspace) -> str:
    """Compare champion, members and candidates in MLflow with what is on record; those of the champion must agree."""
    champion = {id: text for id, text in workspace.roll.champion_differences().items() if text}
    if champion:
        raise Illness("; ".join(champion.values()), "see who may write to MLflow; docs/security.md has more")
    known = workspace.roll.candidates(with_metrics=False)
    others = [one.difference for one in known if one.difference]
    told = f"; {'; '.join(others)}" if others else ""
    agree = f"{len(others)} of them otherwise in MLflow" if others else "as in MLflow"
    return f"{_count(sum(one.recorded for one in known), 'candidate', 'candidates')}, {agree}{told}"


def _champion(workspace: Workspace) -> str:
    from esci_tournament.registry.attestation import champion_in_words

    return champion_in_words(workspace)


def check_prefect(settings: Settings) -> str:
    """Return in words whether the Prefect server of the home, or of the environment, asks for a password.

    Raises:
        Illness: if it asks for none, refuses the one that commands know, or does not answer.
    """
    import httpx

    from esci_tournament.deployments.stack.access import authorization

    api, auth = _server_of(settings)
    if not api:
        return "no server runs for this home; one that a command starts for itself asks for the home's password"
    page = f"{api.rstrip('/')}/admin/version"
    try:
        open_to_all = httpx.get(page, timeout=PROBE_S).status_code == 200
        status = httpx.get(page, timeout=PROBE_S, headers=authorization(auth) if auth else {}).status_code
    except httpx.HTTPError as error:
        raise Illness(f"{api} does not answer: {error}", f"start it with {_starts(settings, api)}") from error
    if open_to_all:
        raise Illness(
            f"{api} asks for no password: whoever reaches it may approve a promotion",
            "set PREFECT_SERVER_API_AUTH_STRING for the server, or start it with: tournament up",
        )
    if status == 401:
        raise Illness(
            f"{api} refuses the password of this environment", "set PREFECT_API_AUTH_STRING to the server's own"
        )
    return f"{api} asks for a password, and commands know it"


def check_notifications(settings: Settings) -> str:
    """Return in words who is told what happens.

    Raises:
        UsageError: if the setting `notify_block` is not type/name.
        Illness: if the Prefect server has no such block.
        ServiceError: if it cannot be asked.
    """
    from esci_tournament.deployments.notify_block import ADVICE, check_block, parts_of
    from esci_tournament.registry.errors import NotFoundError

    said = settings.notify_block
    if not said:
        return "no messages are sent: the setting notify_block names no block"
    parts_of(said)
    api, auth = _server_of(settings)
    if not api:
        return f"sent to {said}; no server runs, so it is not known whether it has that block"
    try:
        check_block(said, api, auth)
    except NotFoundError as error:
        raise Illness(str(error).removesuffix(f"; {ADVICE}"), ADVICE) from error
    return f"sent to {said}, which the server has"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _server_of(settings: Settings) -> tuple[str, str | None]:
    """Return address ("" for none) and `name:password` of the Prefect server of the home, or of the environment."""
    from esci_tournament.deployments.stack.access import CLIENT_AUTH, name_server
    from esci_tournament.deployments.stack.state import prefect_api_url

    known = dict(os.environ)
    if ours := prefect_api_url(settings.home):
        name_server(settings.home, ours, known)
    return known.get("PREFECT_API_URL", ""), known.get(CLIENT_AUTH)


def _starts(settings: Settings, api: str) -> str:
    """Return the command that starts the server, or where its address comes from."""
    from esci_tournament.deployments.stack.services import api_url

    if api.rstrip("/") == api_url(settings):
        return "tournament up"
    return "its own command, or correct PREFECT_API_URL, which names it"
