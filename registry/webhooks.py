"""Webhooks of an MLflow server: where it sends its events, and the secret that they are signed with."""

from __future__ import annotations

import os
import secrets
from typing import Any

from mlflow.entities.webhook import WebhookEvent
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import disk_in_words, make_folder, publish_first
from esci_tournament.registry.settings import Settings

NAME = "esci-tournament"
EVENTS = (("model_version", "created"), ("model_version_tag", "set"))


def webhook_secret(settings: Settings) -> str:
    """Return the secret of the settings, or the one of the home, made once and readable by its owner alone.

    Args:
        settings: `webhook_secret` and `home`; the home's secret stands in `webhook.secret`.

    Returns:
        The secret, ASCII text.

    Raises:
        StoreError: If the disk is full.
    """
    if settings.webhook_secret is not None:
        return settings.webhook_secret.get_secret_value()
    place = settings.home / "webhook.secret"
    with disk_in_words("webhook secret", settings.home):
        make_folder(settings.home)
        partial = place.with_name(f".webhook.secret.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32))
        publish_first(partial, place)
        return place.read_text(encoding="ascii")


def ensure_webhook(server: str, url: str, secret: str) -> bool:
    """Make an MLflow server send its events to `url`, signed with `secret`.

    Args:
        server: http(s) address of the MLflow server.
        url: Where the watcher listens, as the server reaches it. Each address has one webhook.
        secret: What events are signed with. A server does not give it back, so it is set at every call.

    Returns:
        Whether a webhook was created; False when one for `url` was there, whose events and secret are set again.

    Raises:
        StoreError: If the server cannot be reached, or does not send webhooks.
    """
    client = MlflowClient(tracking_uri=server, registry_uri=server)
    events: list[Any] = [WebhookEvent(entity, action) for entity, action in EVENTS]
    try:
        same = [one for one in client.list_webhooks(max_results=100) if one.url == url]
        if not same:
            client.create_webhook(NAME, url, events, "wakes the watcher of candidates", secret, "ACTIVE")
            return True
        client.update_webhook(same[0].webhook_id, events=events, secret=secret, status="ACTIVE")
        for more in same[1:]:
            client.delete_webhook(more.webhook_id)
        return False
    except MlflowException as error:
        raise StoreError(f"MLflow at {server} takes no webhook for {url}: {error}") from error
