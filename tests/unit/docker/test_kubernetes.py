"""docker/kubernetes/ is what Kubernetes takes, and fits the image, its exit codes and a recipe."""

from __future__ import annotations

import copy
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

import quantship
from quantship import errors, stopping

VERSIONS = ("1.31", "1.34", "1.37")
JOBS = ("job.yaml", "nodes.yaml")
TERMINATED = 128 + 15
"""What is left of a process that SIGTERM met before Python could take it."""


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((folder / "kubernetes" / name).read_text()))


@pytest.fixture(scope="module", params=JOBS)
def job(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    (found,) = [one for one in read(folder, request.param) if one["kind"] == "Job"]
    return found


@pytest.fixture(scope="module")
def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def claims(folder: Path) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in read(folder, "storage.yaml")}


@pytest.fixture(scope="module")
def recipe(folder: Path) -> dict[str, Any]:
    (found,) = read(folder, "recipe.yaml")
    return found


def command_of(container: dict[str, Any]) -> list[str]:
    """What the container runs, in the second pod of an indexed job."""
    words = [*container["command"], *container["args"]]
    return [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in words]


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [one for one in items if one["name"] == name]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_kubernetes_take_every_file(folder: Path, version: str) -> None:
    names = sorted(path.name for path in (folder / "kubernetes").iterdir())
    assert names == ["job.yaml", "nodes.yaml", "recipe.yaml", "storage.yaml"]
    kinds = []
    for document in chain.from_iterable(read(folder, name) for name in names):
        assert kubernetes_validate.validate(document, version, strict=True) == version
        kinds.append(document["kind"])
    assert sorted(set(kinds)) == ["ConfigMap", "Job", "PersistentVolumeClaim", "Service"]


@pytest.mark.parametrize(
    ("path", "key"),
    [(("spec",), "backoffLimits"), (("spec", "template", "spec"), "terminationGracePeriod")],
)
def test_the_validator_refuses_a_key_that_is_none(
    job: dict[str, Any], path: tuple[str, ...], key: str
) -> None:
    wrong = copy.deepcopy(job)
    place = wrong
    for name in path:
        place = place[name]
    place[key] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match=key):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_pods_run_without_rights_and_on_a_read_only_root(pod: dict[str, Any], image: Any) -> None:
    rights = pod["securityContext"]
    assert rights["runAsNonRoot"] is True
    assert f"{rights['runAsUser']}:{rights['runAsGroup']}" == image.user
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_mounts_are_where_the_image_looks(
    pod: dict[str, Any], image: Any, claims: dict[str, Any], recipe: dict[str, Any]
) -> None:
    volumes = {one["name"]: one for one in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["workingDir"] == image.workdir
        at = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        lasting = (at[image.workdir], at[image.environment["HF_HOME"]])
        assert {one["persistentVolumeClaim"]["claimName"] for one in lasting} == set(claims)
        assert "emptyDir" in at["/tmp"]
        assert at["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        token = PurePosixPath(image.environment["HF_TOKEN_PATH"])
        secret = at[str(token.parent)]["secret"]
        assert [one["path"] for one in secret["items"]] == [token.name]
        assert secret["optional"] is True
        assert secret["defaultMode"] == 0o440
        assert at["/recipe"]["configMap"]["name"] == recipe["metadata"]["name"]
        words = container["args"]
        assert PurePosixPath(words[1]).parent == PurePosixPath("/recipe")
        assert PurePosixPath(words[1]).name in recipe["data"]


def test_commands_are_those_of_quantship(
    pod: dict[str, Any], launched: Any, understood: Any
) -> None:
    check = named(pod["initContainers"], "check")
    assert "command" not in check  # the image's entry point, which is quantship
    assert understood(check["args"])["command"] == "check"
    main = named(pod["containers"], "quantship")
    options, words = launched(command_of(main))
    asked = understood(words)
    assert asked["command"] == "run"
    assert asked["recipe"] == check["args"][1]
    assert options.nproc_per_node == "gpu"
    assert 30 < options.shutdown_timeout < pod["terminationGracePeriodSeconds"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] >= 1


def test_only_what_a_retry_may_mend_is_tried_again(job: dict[str, Any]) -> None:
    rules = job["spec"]["podFailurePolicy"]["rules"]
    decided: dict[tuple[str, int], str] = {}
    for rule in rules:
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            assert codes["operator"] == "In"
            assert 0 not in codes["values"]
            for code in codes["values"]:
                decided.setdefault((codes["containerName"], code), rule["action"])
    assert decided == {
        ("check", errors.RecipeError.exit_code): "FailJob",
        ("quantship", errors.GateError.exit_code): "FailJob",
        ("quantship", stopping.EXIT_CODE): "Ignore",
        ("quantship", TERMINATED): "Ignore",
    }
    assert rules[0]["action"] == "Ignore"
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    spec = job["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "Never"  # without which there is no such policy
    names = {one["name"] for one in (*spec["initContainers"], *spec["containers"])}
    assert {name for name, _ in decided} <= names
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["backoffLimit"] > 0


def test_a_pod_of_the_indexed_job_finds_the_first_one(folder: Path, launched: Any) -> None:
    service, job = read(folder, "nodes.yaml")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    main = named(pod["containers"], "quantship")
    options, words = launched(command_of(main))
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(options.nnodes) > 1
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in main["command"]
    host, port = options.rdzv_endpoint.split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert [one["port"] for one in service["spec"]["ports"]] == [int(port)]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert "--fsdp" in words


def test_several_nodes_share_one_file_system(claims: dict[str, Any]) -> None:
    assert {name: claim["accessModes"] for name, claim in claims.items()} == {
        name: ["ReadWriteMany"] for name in claims
    }


def test_its_recipe_is_sound_and_divides_over_the_gpus(
    recipe: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    version = tmp_path / "..2026_01_01"  # as kubelet lays a ConfigMap out
    version.mkdir()
    (version / "recipe.yaml").write_text(recipe["data"]["recipe.yaml"])
    (tmp_path / "..data").symlink_to(version.name)
    path = tmp_path / "recipe.yaml"
    path.symlink_to("..data/recipe.yaml")
    found = quantship.check(path)
    assert [step.stage for step in found.steps] == ["finetune", "quantize", "qat", "export"]
    _, job = read(folder, "nodes.yaml")
    pod = job["spec"]["template"]["spec"]
    gpus = named(pod["containers"], "quantship")["resources"]["limits"]["nvidia.com/gpu"]
    for step in found.steps:
        if step.stage in ("finetune", "qat"):
            options = step.model_dump()
            sequences = options["batch_size"] * options["gradient_accumulation"]
            assert sequences % (gpus * job["spec"]["completions"]) == 0
