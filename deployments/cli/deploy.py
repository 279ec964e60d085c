"""`tournament deploy`: make the deployments on a Prefect server, with work pools, limits and schedules."""

from __future__ import annotations

import argparse
import os
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, command, settings_of

if TYPE_CHECKING:
    from esci_tournament.registry.settings import Settings

DESCRIPTION = """\
Apply deployments/prefect.yaml to a Prefect server: work pools, deployments with their concurrency limits, the weekly
schedule, triggers, GPU slots, notifications. Safe to run again: what exists is brought up to date.

The server is that of --api, of PREFECT_API_URL, or of `tournament up`, the first that is given. Start workers on the
machines that have the GPUs:
  prefect worker start --pool tournaments --type process
  prefect worker start --pool reviews --type process
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "deploy", work, "make the deployments on a Prefect server", DESCRIPTION)
    parser.add_argument("--api", metavar="URL", help="address of the Prefect API, such as http://prefect:4200/api")


def work(options: argparse.Namespace, output: Output) -> None:
    """Make pools and limits, deploy, and show what was made.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        UsageError: if no Prefect server is named and none runs for the home.
    """
    from esci_tournament.deployments.stack.access import name_server
    from esci_tournament.deployments.stack.state import prefect_api_url
    from esci_tournament.registry.errors import UsageError

    settings = settings_of(options)
    ours = prefect_api_url(settings.home)
    api = options.api or os.environ.get("PREFECT_API_URL") or ours
    if not api:
        raise UsageError("no Prefect server: name one with --api URL or PREFECT_API_URL, or start `tournament up`")
    os.environ["PREFECT_API_URL"] = api
    if ours:
        name_server(settings.home, ours)
    made = prepare_server(settings, api)
    for name in made:
        output.say(f"made the work pool {name}")
    deployed = apply(settings)
    for name in deployed:
        output.say(f"deployed {name}")
    output.document({"api": api, "work_pools_made": made, "deployments": deployed})


def prepare_server(settings: Settings, api: str) -> list[str]:
    """Make work pools, GPU slots and automations on the Prefect server of PREFECT_API_URL.

    Args:
        settings: `gpu_slots` and `notify_block` are used.
        api: the server's address, for the message of an error.

    Returns:
        Names of the work pools that were missing and have been made.

    Raises:
        ServiceError: if no Prefect server answers.
        NotFoundError: if the server has no such notification block.
    """
    import asyncio

    import httpx
    from prefect.client.orchestration import get_client

    from esci_tournament.deployments import prefect_setup
    from esci_tournament.registry.errors import ServiceError

    async def make() -> list[str]:
        async with get_client() as client:
            made = await prefect_setup.make_pools(client)
            await prefect_setup.put(client, prefect_setup.silence(settings))
            await prefect_setup.prepare(client, settings)
            return made

    try:
        return asyncio.run(make())
    except (httpx.HTTPError, RuntimeError) as error:
        raise ServiceError(
            f"the Prefect server at {api} failed: {error}; check --api, PREFECT_API_AUTH_STRING and its log"
        ) from error


def apply(settings: Settings) -> list[str]:
    """Apply prefect.yaml, with the schedule of the settings, to the Prefect server of PREFECT_API_URL.

    Args:
        settings: `home` and `weekly_cron` are used.

    Returns:
        Names of the deployments, `flow/name`.

    Raises:
        ServiceError: if `prefect deploy` fails.
        StoreError: if the home cannot be written.
    """
    from esci_tournament.deployments.prefect_deployments import deployments_of
    from esci_tournament.registry.errors import ServiceError
    from esci_tournament.registry.processes import python_module

    place = write_file(settings)
    done = subprocess.run(
        python_module("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(place)),
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200"},  # so that the names searched for below are not broken over two lines
        capture_output=True,
        text=True,
        check=False,
    )
    names = [one.full_name for one in deployments_of(settings)]
    missing = [name for name in names if f"'{name}' successfully created" not in " ".join(done.stdout.split())]
    if done.returncode or missing:
        raise ServiceError(
            f"prefect deploy of {', '.join(missing) or 'all'} failed: {(done.stderr or done.stdout).strip()[-500:]}"
        )
    return names


def write_file(settings: Settings) -> Path:
    """Write prefect.yaml, with the setting `weekly_cron` in its schedules, to the folder `stack` of the home.

    Returns:
        Path of the file.

    Raises:
        StoreError: if the home cannot be written.
    """
    import yaml

    from esci_tournament.deployments.stack.state import stack_folder
    from esci_tournament.registry.files import write_atomically

    content = yaml.safe_load((files("esci_tournament.deployments") / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in content["deployments"]:
        for schedule in deployment["schedules"]:
            schedule["cron"] = settings.weekly_cron
    place = stack_folder(settings.home) / "prefect.yaml"
    write_atomically(place, yaml.safe_dump(content, sort_keys=False).encode())
    return place
