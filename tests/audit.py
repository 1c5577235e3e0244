"""Look the packages of a constraints file up in the databases of known vulnerabilities.

    python tests/audit.py docker/constraints.txt

Asks PyPI's and, where that cannot be reached, OSV's, through pip-audit. Exit codes: 0 none is
known, 1 some are, 77 no database could be reached, so that nothing is known at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

UNREACHED = 77
SERVICES = ("pypi", "osv")
LEAST_SHARE = 0.9
"""Of the packages that a database must know of, else it is none: a mirror may answer 404 to all."""
TIMEOUT_S = 300


def main() -> int:
    """Audit; what was found goes to standard output."""
    constraints = Path(sys.argv[1])
    reasons = []
    for service in SERVICES:
        found, reason = ask(constraints, service)
        if found is None:
            reasons.append(f"{service}: {reason}")
            continue
        sys.stdout.write(told(found, service))
        return 1 if any(one.get("vulns") for one in found) else 0
    lines = "".join(f"\n!! {reason}" for reason in reasons)
    sys.stdout.write(
        f"!! NOT AUDITED: no database of vulnerabilities can be reached from here.{lines}\n"
        "!! Nothing is known of the pinned packages; run this where there is a network.\n"
    )
    return UNREACHED


def ask(constraints: Path, service: str) -> tuple[list[dict[str, Any]] | None, str]:
    """What a service says of each package; None with the reason where it does not answer."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(constraints)),
        *("--no-deps", "--disable-pip", "--vulnerability-service", service),
        *("--format", "json", "--progress-spinner", "off", "--timeout", "15"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return None, f"no answer in {TIMEOUT_S} s"
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["no answer"]
        return None, lines[-1][:300]
    known = sum("skip_reason" not in one for one in found)
    if known < LEAST_SHARE * len(found) or not found:
        return None, f"it knows of {known} of {len(found)} packages"
    return found, ""


def told(found: list[dict[str, Any]], service: str) -> str:
    """The outcome, as lines."""
    lines = []
    for one in found:
        for known in one.get("vulns", ()):
            fixed = ", ".join(known.get("fix_versions", ())) or "no version yet"
            lines.append(f"{one['name']} {one['version']}: {known['id']}, fixed in {fixed}")
        if "skip_reason" in one:
            lines.append(f"{one['name']}: not audited: {one['skip_reason']}")
    number = sum(len(one.get("vulns", ())) for one in found)
    lines.append(f"{len(found)} packages, {number} known vulnerabilities ({service})")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
