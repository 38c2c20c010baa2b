"""The files for containers: they are well-formed, and name only what exists."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import stvsr
import typer
from stvsr.cli.app import app

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(stvsr.__file__).parent
DEPLOY = ROOT / "engine" / "serving" / "deploy"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
INSTRUCTIONS = set(
    [
        "ARG",
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ]
)


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and their arguments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def copied() -> list[str]:
    """Return the files and folders that the image is built of."""
    sources = [line.split()[:-1] for line in arguments_of("COPY") if not line.startswith("--from=")]
    return [source for line in sources for source in line]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def values_of(tree: Any, key: str) -> list[Any]:
    """Return every value of a key, at any depth."""
    if isinstance(tree, list):
        return [value for part in tree for value in values_of(part, key)]
    if not isinstance(tree, dict):
        return []
    return [value for k, v in tree.items() for value in ([v] if k == key else []) + values_of(v, key)]


def test_the_image_is_built_of_files_that_exist() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    for source in copied():
        assert list(ROOT.glob(source)), source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    folders = {folder.partition("/")[0] for folder in packages.values()} - {"."}
    assert folders <= set(copied()), "every room is in the image"


def test_every_extra_that_is_named_exists() -> None:
    texts = [path.read_text() for path in DEPLOY.iterdir()]
    named = [extras for text in texts for extras in re.findall(r"EXTRAS[=:] ?([\w,-]+)", text)]
    assert len(named) >= 4
    assert {extra for extras in named for extra in extras.split(",")} <= EXTRAS.keys()
    assert all(len({"cpu", "cuda"} & set(extras.split(","))) == 1 for extras in named), "one build of ONNX Runtime"


def test_the_container_runs_the_server_without_rights() -> None:
    assert arguments_of("USER") == ["10001:10001"]
    assert "/healthz" in arguments_of("HEALTHCHECK")[0]
    (entry,) = yaml.safe_load(arguments_of("ENTRYPOINT")[0])
    command = yaml.safe_load(arguments_of("CMD")[0])
    assert entry == "stvsr"
    name, *options = command
    typer.main.get_command(app).commands[name].make_context(name, options)  # type: ignore[attr-defined]
    assert not re.search(r"(?i)(secret|token|password)=", (DEPLOY / "Dockerfile").read_text())


def test_the_services_of_compose() -> None:
    (compose,) = documents("compose.yaml")
    assert set(compose["services"]) == {"cpu", "gpu"}
    for service in compose["services"].values():
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(compose["volumes"])
        assert set(service["secrets"]) <= set(compose["secrets"])


def test_the_service_of_kuberay() -> None:
    *others, service = documents("rayservice.yaml")
    assert {document["kind"] for document in others} == {"ServiceAccount", "PersistentVolumeClaim"}
    names = {document["metadata"]["name"] for document in others}
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert set(values_of(service, "serviceAccountName")) | set(values_of(service, "claimName")) == names
    for container in [container for containers in values_of(service, "containers") for container in containers]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
    for spec in values_of(service, "template"):
        volumes = {volume["name"] for volume in spec["spec"]["volumes"]}
        mounted = {mount["name"] for mounts in values_of(spec, "volumeMounts") for mount in mounts}
        assert mounted == volumes
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert list(application["args"]["front_resources"]) == re.findall(r'\\"(\w+)\\": 1', head["resources"])


def test_the_application_of_kuberay_can_be_built() -> None:
    pytest.importorskip("ray.serve", reason="stvsr[ray] is not installed")
    from stvsr.engine.serving import ray_serve

    (application,) = yaml.safe_load(documents("rayservice.yaml")[-1]["spec"]["serveConfigV2"])["applications"]
    module, _, function = application["import_path"].partition(":")
    assert module == ray_serve.__name__
    arguments = ray_serve.ServeArguments.model_validate(application["args"])
    assert getattr(ray_serve, function)(arguments) is not None
    front = getattr(ray_serve, function)(arguments)._bound_deployment
    assert (front.name, front.num_replicas) == ("Front", 1)
    assert front.ray_actor_options["resources"] == application["args"]["front_resources"]
    (engine,) = [argument._bound_deployment for argument in front.init_args]
    assert (engine.max_ongoing_requests, engine.ray_actor_options["num_gpus"]) == (1, 1)


@pytest.mark.slow
def test_the_package_is_built_of_what_the_image_copies(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", reason="the build has no network, so it needs this setuptools installed")
    for path in [path for source in copied() for path in ROOT.glob(source)]:
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tmp_path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-deps"]
    done = subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(tmp_path / "out"), str(tmp_path)])
    assert done.returncode == 0
    assert list((tmp_path / "out").glob("stvsr-*.whl"))
