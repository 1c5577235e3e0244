"""docker/compose.yaml is what Compose reads, and fits the image and the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

SERVICES = ("gpu", "gpus", "cpu")


def verdict(path: Path) -> subprocess.CompletedProcess[str]:
    """What check-jsonschema says, by the schema of the Compose specification that it holds."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def filled_in(text: str, environment: dict[str, str]) -> str:
    """Variables replaced as Compose does: ``${A:-default}``, ``${A:?message}``."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        found = environment.get(name, "")
        if not found and kind == ":?":
            raise KeyError(f"{name}: {rest}")
        return found or (rest if kind == ":-" else "")

    return re.sub(r"\$\{(\w+)(:-|:\?)?([^}]*)\}", value, text)


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    return YAML(typ="safe").load(filled_in(text, {"UID": "1234", "GID": "1234"}))


def test_the_compose_specification_takes_it(folder: Path) -> None:
    said = verdict(folder / "compose.yaml")
    assert said.returncode == 0, said.stdout


def test_the_validator_refuses_a_key_that_is_none(text: str, tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text.replace("stop_grace_period", "stop_grace_time"))
    said = verdict(wrong)
    assert said.returncode == 1
    assert "stop_grace_time" in said.stdout


def test_it_says_what_to_export_where_the_caller_is_not_known(text: str) -> None:
    for missing in ("UID", "GID"):
        others = {"UID": "1", "GID": "1"} | {missing: ""}
        with pytest.raises(KeyError, match="export UID and GID"):
            filled_in(text, others)


def test_it_documents_every_variable_it_reads(text: str) -> None:
    header = text[: text.index("\nname:")]
    variables = set(re.findall(r"\$\{(\w+)", text[len(header) :]))
    assert {"UID", "GID", "QUANTSHIP_WORKSPACE", "HF_TOKEN_FILE"} <= variables
    assert {name for name in variables if name not in header} == set()


def test_services_are_locked_down_and_write_as_the_caller(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(SERVICES)
    for service in compose["services"].values():
        assert service["user"] == "1234:1234"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        (tmp,) = service["tmpfs"]
        assert tmp.startswith("/tmp:exec,mode=1777")


def test_mounts_are_where_the_image_looks(compose: dict[str, Any], image: Any) -> None:
    for service in compose["services"].values():
        assert service["working_dir"] == image.workdir
        targets = {mount["target"]: mount["source"] for mount in service["volumes"]}
        assert targets == {image.workdir: "..", image.environment["HF_HOME"]: "hub-cache"}
        (secret,) = service["secrets"]
        assert f"/run/secrets/{secret}" == image.environment["HF_TOKEN_PATH"]
    assert compose["secrets"] == {"hf_token": {"file": "/dev/null"}}
    assert set(compose["volumes"]) == {"hub-cache"}


def test_images_are_built_from_stages_that_there_are(
    compose: dict[str, Any], image: Any, folder: Path
) -> None:
    for name, service in compose["services"].items():
        build = service["build"]
        assert (folder / build["context"] / build["dockerfile"]).samefile(folder / "Dockerfile")
        assert build["target"] in image.targets
        assert build["target"] == ("cpu" if name == "cpu" else "cuda")
        assert service["image"] == ("quantship:cpu" if name == "cpu" else "quantship")


def test_every_service_but_cpu_gets_gpus(compose: dict[str, Any]) -> None:
    counts = {}
    for name, service in compose["services"].items():
        devices = service.get("deploy", {"resources": {"reservations": {"devices": []}}})
        found = devices["resources"]["reservations"]["devices"]
        assert all(one["capabilities"] == ["gpu"] and one["driver"] == "nvidia" for one in found)
        counts[name] = [one["count"] for one in found]
    assert counts == {"gpu": [1], "gpus": ["all"], "cpu": []}


def test_its_launcher_understands_its_options_and_ends_before_docker_kills(
    compose: dict[str, Any], launched: Any, understood: Any
) -> None:
    service = compose["services"]["gpus"]
    options, words = launched([*service["entrypoint"], "recipe.yaml", "--profile", "smoke"])
    assert options.nproc_per_node == "gpu"
    assert options.standalone
    assert understood(words)["recipe"] == "recipe.yaml"
    assert 30 < options.shutdown_timeout < seconds(service["stop_grace_period"])
    assert "entrypoint" not in compose["services"]["gpu"]  # the image's own, which is quantship
