"""What is built, installed and imported, as users do it: by pip, without a network, beside anything."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.xdist_group("packaging")  # what is built is built once

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "jobs",
    "supervisor",
    "jobvisor",
)
DATA = (
    "py.typed",
    "jobs/store/sql/sqlite.sql",
    "jobs/store/sql/postgres.sql",
    "jobs/store/migrations/sqlite/0001_spine.sql",
    "jobs/store/migrations/postgres/0001_spine.sql",
    "supervisor/monitoring/dashboard.json",
    "supervisor/monitoring/rules.yml",
    "supervisor/web/templates/base.html",
    "supervisor/web/static/style.css",
    "supervisor/web/static/app.js",
)
BUILD = """
import os, sys
from setuptools import build_meta
folder = sys.argv[1]  # the builder puts its own arguments there
print(repr([build_meta.build_sdist(folder), build_meta.build_wheel(folder)]))
"""

#: supervisord, as far as its top-level name goes.
SUPERVISORD = {
    "pyproject.toml": '[project]\nname = "supervisor"\nversion = "4.3.0"\n'
    '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
    "supervisor/__init__.py": "",
    "supervisor/process.py": "OWNER = 'supervisord'\n",
}


class Built(NamedTuple):
    """A copy of the tree, and what was built of it."""

    tree: Path
    sdist: Path
    wheel: Path


class Place:
    """A fresh virtual environment that has the dependencies, and not jobvisor."""

    def __init__(self, folder: Path) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        self.bin = folder / "bin"
        self.site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
        dependencies = folder / "dependencies"
        _link_dependencies(dependencies)
        (self.site / "dependencies.pth").write_text(f"{dependencies}\n")

    def pip(self, *arguments: str) -> None:
        """This environment's pip, which has no network."""
        command, *rest = arguments
        quiet = ["--quiet", "--disable-pip-version-check"]
        if command == "install":
            rest = ["--no-index", "--no-deps", "--no-compile", "--no-build-isolation", *rest]
        run([sys.executable, "-m", "pip", *quiet, "--python", self.python, command, *rest])

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    def runs(self, script: str, cwd: Path) -> str:
        """What a script prints here."""
        return run([self.python, "-c", script], cwd=cwd)

    def has_jobvisor(self, cwd: Path) -> bool:
        """Whether it is whole: importable, with its command and its data."""
        script = (
            "import jobvisor, importlib.resources as r\n"
            f"print(all(r.files('jobvisor').joinpath(n).is_file() for n in {DATA}), jobvisor.__file__)"
        )
        said = self.runs(script, cwd)
        assert said == f"True {self.site}/jobvisor/__init__.py\n"
        command = [str(self.bin / "jobvisor"), "--version"]
        return run(command, cwd=cwd) == f"jobvisor {version('jobvisor')}\n"

    def has_supervisord(self, cwd: Path) -> bool:
        """Whether the other owner of a name is whole."""
        return (
            self.runs("from supervisor.process import OWNER; print(OWNER)", cwd) == "supervisord\n"
        )


def _link_dependencies(folder: Path) -> None:
    """Whatever is installed for the tests but jobvisor itself: .pth files of that are not read."""
    folder.mkdir()
    for site in map(Path, sys.path):
        if site.name in ("site-packages", "dist-packages"):
            for entry in site.iterdir():
                if "jobvisor" not in entry.name and not (folder / entry.name).exists():
                    (folder / entry.name).symlink_to(entry)


def run(command: list[str], *, cwd: Path | None = None, code: int = 0) -> str:
    """What a command writes to stdout; it sees nothing of this process's imports."""
    environ = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "PYTEST_"))}
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def build(tree: Path, into: Path) -> Built:
    into.mkdir()
    names = ast.literal_eval(
        run([sys.executable, "-c", BUILD, str(into)], cwd=tree).splitlines()[-1]
    )
    return Built(tree, into / names[0], into / names[1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    for module in ("pip", "setuptools"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"there is no {module} here: pip install -e '.[dev]'")
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("this setuptools is too old to build: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    # A stranger's folder beside ours is not ours to ship.
    write(tree, {"tests/test_x.py": "", "app/__init__.py": ""})
    return build(tree, folder / "dist")


@pytest.fixture(scope="module")
def place(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The wheel, installed."""
    made = Place(tmp_path_factory.mktemp("place") / "venv")
    made.pip("install", str(built.wheel))
    return made


def _files_of_the_package() -> set[str]:
    folders = ("jobvisor", "jobs", "supervisor")
    wanted = (".py", ".sql", ".typed", ".html", ".css", ".js", ".svg", ".json", ".yml")
    found = [p for name in folders for p in (ROOT / name).rglob("*") if p.suffix in wanted]
    names = {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}
    return {name if name.startswith("jobvisor/") else f"jobvisor/{name}" for name in names}


def test_a_wheel_holds_all_of_jobvisor_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == _files_of_the_package()
        (top,) = (name for name in wheel.namelist() if name.endswith("top_level.txt"))
        assert wheel.read(top) == b"jobvisor\n"


def test_an_sdist_makes_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert {path.name for path in tree.iterdir() if path.is_dir()} == {
        "jobvisor", "jobvisor.egg-info",
    }  # fmt: skip
    again = build(tree, tmp_path / "dist")
    with zipfile.ZipFile(built.wheel) as first, zipfile.ZipFile(again.wheel) as second:
        sizes = [{i.filename: i.file_size for i in wheel.infolist()} for wheel in (first, second)]
    assert sizes[0] == sizes[1]


def test_an_installed_wheel_is_whole_and_takes_no_other_name(place: Place, tmp_path: Path) -> None:
    assert place.has_jobvisor(tmp_path)
    assert run([place.python, "-m", "jobvisor", "--version"]) == f"jobvisor {version('jobvisor')}\n"
    script = "import importlib.util as u; print([u.find_spec(n) for n in ('jobs', 'supervisor')])"
    assert place.runs(script, tmp_path) == "[None, None]\n"


def test_a_wheel_in_a_target_folder_is_found_by_its_path(built: Built, tmp_path: Path) -> None:
    place = Place(tmp_path / "venv")
    place.pip("install", "--target", str(tmp_path / "lib"), str(built.wheel))
    assert {path.name.split("-")[0] for path in (tmp_path / "lib").iterdir()} == {"jobvisor", "bin"}
    script = "import sys; sys.path.insert(0, 'lib'); import jobvisor; print(jobvisor.__file__)"
    assert place.runs(script, tmp_path) == f"{tmp_path}/lib/jobvisor/__init__.py\n"


def test_an_editable_install_runs_what_stands_in_the_tree(built: Built, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(built.tree, tree, symlinks=True, ignore=shutil.ignore_patterns("build"))
    place = Place(tmp_path / "venv")
    place.pip("install", "--editable", str(tree))
    with (tree / "jobs" / "clock.py").open("a") as file:
        file.write("\nEDITED = True\n")
    script = "import sys, jobvisor.jobs.clock as c; print(c.EDITED, 'jobs' in sys.modules)"
    assert place.runs(script, tmp_path) == "True False\n"
    assert run([str(place.bin / "jobvisor"), "--version"]) == f"jobvisor {version('jobvisor')}\n"


def test_a_checkout_runs_where_it_stands(built: Built, tmp_path: Path) -> None:
    place = Place(tmp_path / "venv")
    shutil.rmtree(built.tree / "jobvisor.egg-info", ignore_errors=True)
    said = run([place.python, "-m", "jobvisor", "--version"], cwd=built.tree)
    assert said == "jobvisor (not installed: running from its source tree)\n"


APP = """
from jobvisor import Client, Job, task

@task(retries=2)
def add(a: int, b: int) -> int:
    return a + b

def ask(client: Client) -> Job:
    return client.get(add.enqueue(1, 2).id)

total: int = add(1, 2)
"""


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]], ids=lambda c: c[0])
def test_a_type_checker_reads_the_annotations(
    place: Place, checker: list[str], tmp_path: Path
) -> None:
    module, *options = checker
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"there is no {module} here")
    write(tmp_path, {"right.py": APP, "wrong.py": APP + "add.enqueue('one', 2)\n"})
    command = [place.python, "-m", module, *options]
    run([*command, "right.py"], cwd=tmp_path)
    said = run([*command, "wrong.py"], cwd=tmp_path, code=1)
    assert "1 error" in said
    assert '"str"' in said


TEST_OF_A_USER = """
from jobvisor import Client
from app import add

def test_add():
    with Client("memory://") as client:
        job = client.enqueue(add, 1, 2)
        assert client.run_one()
        assert client.get(job.id).result == 3
"""


def test_a_project_tests_its_tasks_with_pytest(place: Place, tmp_path: Path) -> None:
    names = ("jobs", "supervisor")
    own = {f"tests/{name}/__init__.py": "" for name in names}
    own |= {f"tests/{name}/test_{name}.py": TEST_OF_A_USER for name in names}
    write(tmp_path, {"app.py": APP, "conftest.py": "", **own})
    said = run(
        [place.python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"], cwd=tmp_path
    )
    assert "2 passed" in said


def test_supervisord_lives_in_the_same_environment(built: Built, tmp_path: Path) -> None:
    theirs = build(write(tmp_path / "theirs", SUPERVISORD), tmp_path / "dist").wheel
    place = Place(tmp_path / "venv")
    place.pip("install", str(theirs))
    place.pip("install", str(built.wheel))
    assert place.has_supervisord(tmp_path)
    place.pip("uninstall", "--yes", "supervisor")
    assert place.has_jobvisor(tmp_path)
    place.pip("install", str(theirs))
    assert place.has_jobvisor(tmp_path)
    place.pip("uninstall", "--yes", "jobvisor")
    assert place.has_supervisord(tmp_path)


OWN_TASKS = """
from jobvisor import task
from supervisor import NAME

@task
def hail(): return f"hail {NAME}"
"""


@pytest.mark.parametrize("module", ["jobs.py", "jobs/__init__.py"])
def test_a_project_has_its_own_jobs_and_supervisor(
    place: Place, module: str, tmp_path: Path
) -> None:
    config = '[tasks]\nmodules = ["jobs"]\n[defaults]\nretries = 0\n'
    files = {module: OWN_TASKS, "supervisor/__init__.py": "NAME = 'own'", "config.toml": config}
    write(tmp_path, files)
    command = [place.python, "-m", "jobvisor"]  # puts the project at the front of sys.path
    number = run([*command, "enqueue", "jobs:hail"], cwd=tmp_path).split()[0]
    run([*command, "start", "--drain"], cwd=tmp_path)
    assert "hail own" in run([*command, "show", "--json", number], cwd=tmp_path)
