"""Ask a service which locked versions have known vulnerabilities. Exit code: 0 none, 1 some, 2 nobody could be asked.

`make audit` runs it, with `pip-audit` beside the interpreter. A service that does not know of a vulnerability that is
long known is no service: without this question, "not found" for every package would read as "no vulnerabilities".
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PIP_AUDIT = Path(sys.executable).parent / "pip-audit"
LOCKS = ("requirements.lock", "requirements-cuda.lock", "docker/requirements.lock", ".ci/tools.lock")
KNOWN = "jinja2==2.4.1"  # CVE-2014-0012 and others


def asked(service: str, files: list[Path], *more: str) -> list[dict[str, Any]] | None:
    """Return what a service says of each package of some files, or None when it cannot be asked."""
    command = [PIP_AUDIT, "--vulnerability-service", service, "--disable-pip", "--no-deps", "--format", "json", *more]
    for file in files:
        command += ["--requirement", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    try:
        return json.loads(done.stdout)["dependencies"]
    except ValueError:
        return None


def main() -> int:
    """Print what is known and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder, "known.txt")
        known.write_text(f"{KNOWN}\n", encoding="utf-8")
        able = [name for name in ("osv", "pypi") if any(one.get("vulns") for one in asked(name, [known]) or [])]
    if not able:
        print("no audit: neither osv.dev nor PyPI's list of vulnerabilities answers from this machine", file=sys.stderr)
        return 2
    answers = asked(able[0], [ROOT / lock for lock in LOCKS], "--require-hashes")
    if answers is None:
        print(f"no audit: {able[0]} stopped answering; try again", file=sys.stderr)
        return 2
    missed = sorted({one["name"] for one in answers if "skip_reason" in one})
    found = {(one["name"], one["version"], vuln["id"]) for one in answers for vuln in one.get("vulns", [])}
    for name, version, vuln in sorted(found):
        print(f"{name} {version}: {vuln}")
    print(f"{len(answers)} packages asked of {able[0]}, {len(found)} known vulnerabilities")
    if missed:
        print(f"not known there, so not audited: {', '.join(missed)}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
