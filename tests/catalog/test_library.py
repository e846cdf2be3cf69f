"""Models on disk are copied, deleted and fetched."""

import sys
from pathlib import Path

import psutil
import pytest

from app.catalog import library
from app.catalog.library import Library
from app.catalog.shelf import Shelf
from app.errors import InvalidParameter, ModelBroken, TryAgainLater, UnknownModel
from app.manifest import read_manifest
from tests.fakes import FakeCatalog
from tests.tiny_model import write_tiny_model

EXPORTER = """
import sys, pathlib
print('arguments:', sys.argv[1:], file=sys.stderr)
for n, step in enumerate(["resolve", "quantise"]):
    print(f"{step + ': ':<10}|####  | {n}/2 [00:00]", end="\\r", file=sys.stderr, flush=True)
if "refused" in sys.argv[1]:
    print("\\nrefused: it is no model", file=sys.stderr)
    sys.exit(1)
pathlib.Path(sys.argv[3]).mkdir()
"""


@pytest.fixture
def models(tmp_path: Path) -> Library:
    write_tiny_model(tmp_path, "tiny/random")
    return Library(tmp_path, FakeCatalog(None))


@pytest.fixture
def exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program that prints what the exporter does in its place."""
    folder = tmp_path / "elsewhere"
    (folder / "export").mkdir(parents=True)
    (folder / "export" / "__main__.py").write_text(EXPORTER)
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setenv("PYTHONPATH", "")


def inode(path: Path) -> int:
    return path.stat().st_ino


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_copy_is_a_model_of_its_own_that_shares_the_files(models: Library, tmp_path: Path):
    await models.copy("tiny/random", "mine/copy")
    manifest = read_manifest(tmp_path / "mine--copy")
    assert manifest.model_id == "mine/copy"
    for name in manifest.files:
        assert inode(tmp_path / "mine--copy" / name) == inode(tmp_path / "tiny--random" / name)
    with pytest.raises(InvalidParameter, match="destination is 'mine/copy', expected a name that"):
        await models.copy("tiny/random", "mine/copy")
    await models.delete("tiny/random")
    assert [one.model_id for one in Shelf(tmp_path).available()] == ["mine/copy"]
    assert not (tmp_path / "tiny--random").exists()


@pytest.mark.parametrize("name", ["", "copy", "../x/y", "a/b/c", "a/..", "/etc/passwd", "a/b\n"])
async def test_no_name_leads_out_of_the_folder(models: Library, tmp_path: Path, name: str):
    before = names(tmp_path)
    with pytest.raises(InvalidParameter):
        await models.copy("tiny/random", name)
    with pytest.raises(InvalidParameter):
        await anext(models.pull(name))
    with pytest.raises(UnknownModel):
        await models.delete(name)
    assert names(tmp_path) == before


@pytest.mark.usefixtures("exporter")
async def test_a_model_is_fetched_step_by_step(models: Library, tmp_path: Path):
    steps = [(step.name, step.done, step.total) async for step in models.pull("a/good")]
    assert steps[0] == ("", 0, 0)
    assert steps[-1] == ("quantise", 1, 2)
    assert (tmp_path / "a--good").is_dir()


@pytest.mark.usefixtures("exporter")
async def test_what_the_exporter_refuses_is_told_with_its_reason(models: Library):
    with pytest.raises(ModelBroken, match="a/refused was not exported: refused: it is no model"):
        async for _ in models.pull("a/refused"):
            pass


@pytest.mark.usefixtures("exporter")
async def test_one_model_is_fetched_at_a_time(models: Library):
    others = set(psutil.Process().children())  # of other tests; they may end meanwhile
    first = models.pull("a/good")
    await anext(first)
    with pytest.raises(TryAgainLater, match="a/good is being fetched"):
        await anext(models.pull("a/other"))
    assert set(psutil.Process().children()) - others
    await first.aclose()
    assert not set(psutil.Process().children()) - others, "its process ends with it"
    await anext(second := models.pull("a/other"))
    await second.aclose()


def test_the_bar_of_the_real_exporter_is_read():
    from tqdm import tqdm

    bar = tqdm(total=7, initial=3, bar_format="{desc:<10}|{bar:30}| {n}/{total} [{elapsed}]")
    bar.set_description("quantise", refresh=False)
    assert library._BAR.findall(str(bar)) == [("quantise", "3", "7")]
    bar.close()


async def test_a_linked_model_loses_its_link_alone(tmp_path: Path) -> None:
    original = write_tiny_model(tmp_path / "elsewhere", "tiny/random")
    (tmp_path / "models").mkdir()
    link = tmp_path / "models" / original.name
    link.symlink_to(original)
    await Library(tmp_path / "models", FakeCatalog(None)).delete("tiny/random")
    assert not link.exists()
    assert read_manifest(original).model_id == "tiny/random"
