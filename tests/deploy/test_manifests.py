"""What is in deploy/ is well formed, says what the documentation says, and calls commands that exist."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from click.testing import CliRunner
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from bench import __version__, cli, cli_service, cli_upkeep
from bench.cluster import WATCHFUL
from bench.service.limits import Limits, limits
from bench.service.queue import Quotas
from bench.service.retention import Days

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = "1.34"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
(RAY,) = [one for one in MANIFESTS if one["kind"] == "RayCluster"]
CORE = [one for one in MANIFESTS if one["kind"] != "RayCluster"]


def named(kind: str) -> dict[str, Any]:
    return {one["metadata"].get("name", ""): one for one in MANIFESTS if one["kind"] == kind}


def ray_groups() -> Iterator[Mapping[str, Any]]:
    yield RAY["spec"]["headGroupSpec"]
    yield from RAY["spec"]["workerGroupSpecs"]


def pods() -> Iterator[Mapping[str, Any]]:
    """Templates of all pods."""
    yield from (one["spec"]["template"] for kind in ("Deployment", "Job") for one in named(kind).values())
    yield from (group["template"] for group in ray_groups())


def containers() -> Iterator[Mapping[str, Any]]:
    for pod in pods():
        yield from pod["spec"].get("initContainers", [])
        yield from pod["spec"]["containers"]


# --- against the schemas


def test_compose_keeps_to_the_compose_specification():
    text = resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    schema = json.loads(text)
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


@pytest.mark.parametrize("one", CORE, ids=lambda one: f"{one['kind']}-{one['metadata'].get('name', '')}")
def test_each_manifest_keeps_to_the_schema_of_kubernetes(one: dict[str, Any]):
    kubernetes_validate.validate(one, KUBERNETES, strict=True)


@pytest.mark.parametrize("group", list(ray_groups()), ids=lambda group: group.get("groupName", "head"))
def test_each_pod_of_ray_keeps_to_the_schema_of_kubernetes(group: dict[str, Any]):
    pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
    kubernetes_validate.validate({**pod, "metadata": {"name": "x", **pod["metadata"]}}, KUBERNETES, strict=True)


def test_a_mistake_in_a_manifest_is_noticed():
    wrong = json.loads(json.dumps(named("Deployment")["face"]).replace('"replicas"', '"replica"'))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_ray_s_own_autoscaler_can_read_the_cluster_of_kuberay():
    found = _derive_autoscaling_config_from_ray_cr(RAY)
    kinds = found["available_node_types"]
    assert {name: kind["max_workers"] for name, kind in kinds.items() if name != "headgroup"} == {
        "processors": 32, "gpus": 16,
    }  # fmt: skip
    assert kinds["gpus"]["resources"]["GPU"] == 1
    labels = {name: kind["labels"] for name, kind in kinds.items() if name != "headgroup"}
    assert labels == {"processors": {"tier": "processors"}, "gpus": {"tier": "gpus", "ray.io/accelerator-type": "H100"}}
    assert kinds["headgroup"]["resources"]["CPU"] == 4, "timings are taken there"


def test_ray_up_accepts_the_cluster_on_one_s_own_machines():
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    ready = prepare_config(config)
    validate_config(ready)
    assert ready["max_workers"] == len(config["provider"]["worker_ips"])


# --- among each other


def test_what_is_referred_to_is_there():
    volumes = {"PersistentVolumeClaim": "persistentVolumeClaim", "ConfigMap": "configMap"}
    for pod in pods():
        mounts = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= set(mounts)
        for kind, key in volumes.items():
            wanted = {one[key].get("claimName") or one[key].get("name") for one in mounts.values() if key in one}
            assert wanted <= set(named(kind))
    labels = [pod["metadata"]["labels"] for pod in pods()]
    for service in named("Service").values():
        assert [one for one in labels if service["spec"]["selector"].items() <= one.items()]
    allowed = {one["app.kubernetes.io/component"] for one in labels if "fetch" not in one.values()} | {"proxy"}
    text = (DEPLOY / "kubernetes" / "network.yaml").read_text()
    mentioned = re.findall(r"component: (\w+)", text) + re.findall(r"values: \[([\w, ]+)\]", text)
    assert {word for some in mentioned for word in some.split(", ")} == allowed
    assert all(one["metadata"].get("namespace", "gauntlet") == "gauntlet" for one in MANIFESTS)


def test_secrets_are_referred_to_and_never_written():
    for container in containers():
        for entry in container.get("env", ()):
            if re.search("SECRET|KEY|PASSWORD|DATABASE|TOKEN|STORE_URI", entry["name"]):
                assert "secretKeyRef" in entry["valueFrom"], entry
    for name, service in COMPOSE["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if re.search("SECRET|KEY|PASSWORD|DATABASE", key):
                assert ":?" in value, f"{name} would start without {key}"
    example = (DEPLOY / "environment.example").read_text()
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert asked == set(re.findall(r"^(\w+)=", example, re.M))
    assert not re.search(r"^(?=.*(PASSWORD|SECRET)).*=.+$", example, re.M)


def test_only_the_proxy_is_reached_from_outside_and_images_are_pinned():
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert [name for name, service in services.items() if "outside" in service["networks"]] == ["fetch", "proxy"]
    assert services["fetch"]["profiles"] == ["data"], "no part of the service"
    assert services["fetch"]["environment"] == {}, "and it is told no secret"
    assert COMPOSE["networks"]["inside"]["internal"] is True
    images = {service["image"] for service in services.values()} | {container["image"] for container in containers()}
    assert all(re.search(r":[\w.-]*\d", image) and not image.endswith(":latest") for image in images)
    assert f"gauntlet:{'.'.join(__version__.split('.')[:2])}" in images


def test_a_budget_for_disruptions_is_about_pods_that_there_are_more_of():
    faces = named("Deployment")["face"]
    for budget in named("PodDisruptionBudget").values():
        assert budget["spec"]["selector"] == faces["spec"]["selector"]
        assert budget["spec"]["minAvailable"] < faces["spec"]["replicas"]


def test_the_operator_s_pods_can_do_what_the_operator_leaves_to_them():
    """KubeRay gives its token to Ray's containers alone; its probes ask a dashboard that the image does not have."""
    head = RAY["spec"]["headGroupSpec"]["template"]["spec"]
    dispatcher = next(container for container in head["containers"] if container["name"] == "dispatcher")
    given = {entry["name"]: entry for entry in dispatcher["env"]}
    assert given["RAY_AUTH_MODE"]["value"] == RAY["spec"]["authOptions"]["mode"]
    assert given["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {
        "name": RAY["metadata"]["name"],
        "key": "auth_token",
    }
    assert head["shareProcessNamespace"] is True, "a driver looks for its raylet among the processes"
    assert RAY["spec"]["autoscalerOptions"]["version"] == "v1", "v2 restarts no container"
    for group in ray_groups():
        ray = group["template"]["spec"]["containers"][0]
        port = group["rayStartParams"].get("node-manager-port")
        for probe in (ray["livenessProbe"], ray["readinessProbe"]):
            assert str(probe["tcpSocket"]["port"]) == (port or "gcs")


def test_the_settings_of_ray_s_head_survive_the_shell():
    said = shlex.split("ray start --system-config=" + RAY["spec"]["headGroupSpec"]["rayStartParams"]["system-config"])
    assert json.loads(said[-1].partition("=")[2]) == WATCHFUL


def test_whoever_runs_tasks_finds_the_data_sets():
    place = re.search(r"^ENV GAUNTLET_DATA=(\S+)$", (DEPLOY / "Containerfile").read_text(), re.M)
    assert place
    for group in ray_groups():
        for container in group["template"]["spec"]["containers"]:
            assert {"name": "data", "mountPath": place[1], "readOnly": True} in container["volumeMounts"]
    assert f"data:{place[1]}:ro" in COMPOSE["services"]["dispatcher"]["volumes"]
    assert f"data:{place[1]}" in COMPOSE["services"]["fetch"]["volumes"]
    (job,) = named("Job").values()
    assert {"name": "data", "mountPath": place[1]} in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]


def test_what_a_container_on_a_root_of_its_own_may_write_is_the_same_everywhere():
    """Docker alone lets a memory file system belong to somebody; so home is /tmp, where everybody may write."""
    assert "--home-dir /tmp " in (DEPLOY / "Containerfile").read_text()
    for service in COMPOSE["services"].values():
        assert all(set(mount.partition(":")[2].split(",")) <= {"", "exec", "mode=1777"}
                   for mount in service.get("tmpfs", []))  # fmt: skip
    for pod in pods():
        for container in pod["spec"]["containers"]:
            if container["securityContext"].get("readOnlyRootFilesystem"):
                assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"]


def test_containers_run_without_root_and_cannot_become_it():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["10001:10001"]
    assert lines.index("USER 10001:10001") > max(n for n, line in enumerate(lines) if line.startswith("RUN"))
    for pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    injected = RAY["spec"]["autoscalerOptions"]
    for container in (*containers(), injected):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    for name in ("face", "dispatcher", "mlflow", "schema", "bucket", "fetch"):
        assert COMPOSE["services"][name]["cap_drop"] == ["ALL"]


# --- commands


def commands() -> dict[str, list[str]]:
    found = {f"compose {name}": service["command"] for name, service in COMPOSE["services"].items()
             if service.get("image") == "gauntlet:0.1" and "entrypoint" not in service}  # fmt: skip
    for container in containers():
        if container.get("command", ["gauntlet"]) == ["gauntlet"] and "args" in container:
            found[f"kubernetes {container['name']}"] = container["args"]
    return found


@pytest.mark.parametrize("where", commands())
def test_every_command_takes_the_options_that_it_is_given(where: str):
    assert cli_service.serve
    assert cli_upkeep.fetch
    words = commands()[where]
    answer = CliRunner().invoke(typer.main.get_command(cli.app), [*words, "--help"])
    assert answer.exit_code == 0, answer.output
    help_ = answer.output
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in help_, f"{where}: {word}"


def test_the_quotas_in_the_example_are_those_that_hold_without_it():
    found = limits(DEPLOY / "quotas.yaml")
    assert found == Limits(Quotas(), 20.0, Days(), 100)
