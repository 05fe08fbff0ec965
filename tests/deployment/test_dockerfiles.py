"""The Dockerfiles pass hadolint, and keep promises that it does not know."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import REPOSITORY
from tests.deployment.compose_file import services
from tests.deployment.dockerfile import Stage, final_stage, stages

DOCKERFILES = ["Dockerfile.api", "Dockerfile.worker", "deploy/mlflow/Dockerfile"]
TARGETS = [
    ("Dockerfile.api", ""),
    ("Dockerfile.worker", "cpu"),
    ("Dockerfile.worker", "gpu"),
    ("deploy/mlflow/Dockerfile", ""),
]


def hadolint(*files: Path) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("hadolint"))
    return subprocess.run(
        [program, "--no-color", *map(str, files)], capture_output=True, text=True, check=False
    )


@pytest.fixture(params=TARGETS, ids=lambda target: "-".join(filter(None, target)))
def stage(request: pytest.FixtureRequest) -> Stage:
    """The stage that an image is made of."""
    dockerfile, target = request.param
    return final_stage(REPOSITORY / dockerfile, target)


def test_hadolint_finds_nothing() -> None:
    result = hadolint(*(REPOSITORY / name for name in DOCKERFILES))
    assert result.returncode == 0, result.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python\nRUN cd /tmp && pip install x\n")
    assert hadolint(wrong).returncode != 0


def test_compose_builds_these_images_and_no_others() -> None:
    assert {each.target for each in services().values()} - {None} == set(TARGETS)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_all_stages_are_of_one_pinned_image(name: str) -> None:
    """A virtual environment works only beside the interpreter that it was made by."""
    found = stages(REPOSITORY / name)
    images = {each.image for each in found.values()} - set(found)
    assert len(images) == 1
    assert re.fullmatch(r"python:\d\.\d+-slim-\w+", images.pop())


def test_the_process_is_nobody_in_particular(stage: Stage) -> None:
    assert stage.last("USER") == "10001"
    runs = [each.value for each in stage.instructions if each.name == "RUN"]
    assert any("useradd --uid 10001" in run for run in runs)


def test_signals_reach_the_process(stage: Stage) -> None:
    """In exec form, without a shell in between; both of these are JSON."""
    assert stage.command
    assert stage.health_check
    assert not [each for each in stage.instructions if each.name == "ENTRYPOINT"]


def test_what_is_installed_is_installed_as_locked(stage: Stage) -> None:
    for each in install_lines(stage):
        assert "--constraint requirements.lock" in each or "--no-deps" in each, each


def test_another_index_gives_what_it_is_named_for_and_nothing_that_that_needs() -> None:
    """PyTorch's index has old versions of other people's packages, and not all of them."""
    lines = install_lines(final_stage(REPOSITORY / "Dockerfile.worker", "gpu"))
    [options] = [
        found for line in lines for found in re.findall(r"\$\{TORCH_INDEX:\+(.*?)\}", line)
    ]
    assert options == '--no-deps --index-url "$TORCH_INDEX"'
    after = lines[[("TORCH_INDEX" in line) for line in lines].index(True) + 1]
    assert "--extra gpu" in after


def test_environments_are_copied_to_where_they_were_made(stage: Stage) -> None:
    """They hold absolute paths."""
    copied = stage.stages_copied
    assert copied
    for _, source, destination in copied:
        assert source == destination


def test_the_final_stage_installs_nothing(stage: Stage) -> None:
    assert not install_lines(stage, follow=False)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_copied_exists_and_reaches_the_builder(name: str) -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for each in stages(REPOSITORY / name).values():
        for source in each.sources:
            assert (REPOSITORY / source).exists(), source
            assert any(fnmatch.fnmatch(source.split("/")[0], pattern) for pattern in sent), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_no_secret_is_built_in(name: str) -> None:
    for each in stages(REPOSITORY / name).values():
        for instruction in each.own:
            if instruction.name in {"ARG", "ENV"}:
                assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", instruction.value)


def test_the_front_and_the_cpu_worker_are_without_frameworks() -> None:
    for name, target in (("Dockerfile.api", ""), ("Dockerfile.worker", "cpu")):
        lines = " ".join(install_lines(final_stage(REPOSITORY / name, target)))
        extras = set(re.findall(r"--extra (\w+)", lines))
        assert extras <= {"api", "client", "flower", "worker"}
        assert "torch" not in lines


def install_lines(stage: Stage, *, follow: bool = True) -> list[str]:
    """Return the commands that install, of a stage and the stages that it copies."""
    name = next(
        dockerfile
        for dockerfile in DOCKERFILES
        if stage in stages(REPOSITORY / dockerfile).values()
    )
    all_stages = stages(REPOSITORY / name)
    made_of = [all_stages[source] for source, _, _ in stage.stages_copied] if follow else [stage]
    runs = [
        instruction.value
        for each in made_of
        for instruction in each.instructions
        if instruction.name == "RUN"
    ]
    return [
        line for run in runs for line in run.split("&&") if "pip " in line and "install" in line
    ]
