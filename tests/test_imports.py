"""Imports go one way, and third-party names have homes: the two lists of the design, held."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.contract import models

ROOT = Path(__file__).parents[1]

LEAVES = {
    "contract",
    "current_request",
    "encoder_manifest",
    "engine_gauges",
    "errors",
    "excerpts",
    "manifest",
    "metric_series",
    "metrics",
    "model_files",
    "recent_errors",
    "routine",
    "setting_sources",
    "settings",
    "system",
    "tracing",
}
MAY_IMPORT = {
    "app.errors": {"app.excerpts"},
    "app.excerpts": set(),
    "app.contract": set(),
    "app.current_request": set(),
    "app.setting_sources": set(),
    "app.settings": {"app.setting_sources"},
    "app.recent_errors": set(),
    "app.routine": set(),
    "app.system": set(),
    "app.model_files": set(),
    "app.encoder_manifest": {"app.errors", "app.model_files"},
    "app.manifest": {"app.contract", "app.encoder_manifest", "app.errors", "app.model_files"},
    "app.engine_gauges": set(),
    "app.metric_series": {"app.engine_gauges"},
    "app.metrics": {"app.engine_gauges", "app.errors", "app.metric_series"},
    "app.tracing": {"app.contract", "app.errors", "app.metrics", "app.settings"},
    "app.process": {
        *("app.asgi", "app.auth", "app.contract", "app.current_request", "app.errors"),
        "app.settings",
    },
    "app.runtime": {"app.encoder_manifest", "app.errors", "app.manifest"},
    "app.engine": {
        *("app.contract", "app.engine_gauges", "app.errors", "app.excerpts", "app.metrics"),
        "app.runtime",
    },
    "app.encoding": {
        *("app.contract", "app.engine", "app.engine_gauges", "app.errors", "app.metrics"),
        "app.runtime",
    },
    "app.catalog": {
        *("app.contract", "app.errors", "app.manifest", "app.metrics", "app.settings"),
        *("app.encoder_manifest", "app.runtime", "app.engine", "app.encoding"),
    },
    "app.embedding": {
        *("app.contract", "app.encoder_manifest", "app.encoding", "app.errors", "app.catalog"),
        "app.runtime",
    },
    "app.generation": {
        *("app.contract", "app.current_request", "app.errors", "app.engine", "app.catalog"),
        *("app.metrics", "app.tracing"),
    },
    "app.storage": {"app.errors", "app.routine", "app.settings"},
    "app.auth": {"app.errors", "app.routine", "app.settings", "app.storage"},
    # nothing below the contract: no dialect sees an engine, a tokenizer or a manifest
    "app.dialects": {
        "app.current_request",
        *("app.contract", "app.errors", "app.excerpts", "app.metrics", "app.settings"),
        *("app.auth", "app.recent_errors", "app.storage", "app.system"),
    },
    "app.__main__": {"app.cli"},
    "app.cli": None,  # beside what it hands over to: export
    "app": {"app.process"},
    "app.asgi": None,  # knows them all
    "export": {
        *("app.contract", "app.encoder_manifest", "app.errors", "app.manifest", "app.model_files"),
        "app.runtime",
    },
}
"""Beside itself; the parts of app/ by name, None: anything."""

DIALECTS = {path.parent.name for path in (ROOT / "app/dialects").glob("*/__init__.py")} - {"kit"}

HOMES = {
    "onnxruntime": {"app.cli.doctor", "app.runtime", "export"},
    "numpy": {"app.runtime", "app.engine", "export"},
    "tokenizers": {"app.catalog", "app.embedding", "app.generation", "export"},
    "jinja2": {"app.catalog.render_template"},
    "llguidance": {"app.catalog.grammars", "app.catalog.check_schemas"},
    "litestar": {
        "app.dialects",
        "app.auth.guards",
        "app.auth.operators",
        "app.asgi",
        "app.process",
    },
    "granian": {"app.cli.serve", "app.process.interfaces"},
    "jwt": {"app.auth"},
    "argon2": {"app.auth"},
    "click": {"app.cli"},
    "httpx": {"app.cli"},
    "prompt_toolkit": {"app.cli"},
    "rich": {"app.cli", "app.process.banner"},
    "multipart": {"app.dialects.accounts.forms", "app.dialects.openai.batches.uploads"},
    "sqlalchemy": {"app.storage", "app.auth"},
    "limits": {"app.storage.store"},
    "redis": {"app.storage.store"},
    "alembic": {"app.storage"},
    "advanced_alchemy": {"app.storage"},
    "prometheus_client": {
        *("app.cli.ps", "app.metrics", "app.metric_series", "app.engine_gauges"),
    },
    "opentelemetry": {"app.tracing"},
    "psutil": {"app.cli", "app.system", "app.catalog", "app.process.sockets"},
    "pynvml": {"app.system"},
    "msgspec": {"app", "export"},
    "openapi_ui_bundles": {"app.dialects.kit"},
    "torch": {"export"},
    "transformers": {"export"},
    "optimum": {"export"},
    "onnx": {"export"},
}
"""Where a third-party name may be imported: these packages and modules, and no others."""


def imports() -> Iterator[tuple[str, str]]:
    """(module, what it imports), imports inside functions too."""
    for package in ("app", "export"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            module = module.removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from ((module, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{module}: a relative import"
                    # `from app.auth import commands` is about app.auth.commands
                    yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)


IMPORTS = sorted(set(imports()))


def part(module: str) -> str:
    """`app.auth.guards` → `app.auth`; export is one part."""
    names = module.split(".")
    return names[0] if names[0] == "export" else ".".join(names[:2])


def inside(module: str, homes: set[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def test_the_parts_are_those_of_the_list():
    assert {part(module) for module, _ in IMPORTS} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("importer", MAY_IMPORT)
def test_imports_go_one_way(importer):
    allowed = MAY_IMPORT[importer]
    found = {
        (module, part(imported))
        for module, imported in IMPORTS
        if part(module) == importer and imported.split(".")[0] in ("app", "export")
    }
    assert not {
        f"{module} imports {imported}"
        for module, imported in found
        if allowed is not None and imported not in allowed | {importer}
    }


def test_no_dialect_imports_another():
    wanted = {
        "accounts",
        "anthropic",
        "locallab",
        "llm_host",
        "neptun",
        "ollama",
        "openai",
        "operations",
        "pages",
    }
    assert wanted <= DIALECTS, "else this looks in the wrong place"
    assert not {
        f"{module} imports {imported}"
        for module, imported in IMPORTS
        for dialect in DIALECTS
        if inside(imported, {f"app.dialects.{dialect}"})
        and inside(module, {"app.dialects"})
        and not inside(module, {f"app.dialects.{dialect}"})
    }


def test_the_kit_knows_no_dialect():
    assert not {
        f"{module} imports {imported}"
        for module, imported in IMPORTS
        if inside(module, {"app.dialects.kit"})
        and inside(imported, {f"app.dialects.{dialect}" for dialect in DIALECTS})
    }


def test_generation_takes_models_from_anybody():
    """`generation.models` says what it needs of them; the catalog is one that fits."""
    names = {imported for module, imported in IMPORTS if inside(module, {"app.generation"})}
    assert "app.catalog.chat_template.ChatTemplate" in names, "else this looks in the wrong place"
    assert not {
        name for name in names if inside(name, {"app.catalog.catalog", "app.catalog.loaded"})
    }


def test_the_contract_has_no_door_to_an_engine():
    public = {
        name
        for record in vars(models).values()
        if isinstance(record, type) and record.__module__ == models.__name__
        for name in (*vars(record), *getattr(record, "__struct_fields__", ()))
    }
    assert {"model_id", "capacity", "load"} <= public, "else this looks in the wrong place"
    assert public.isdisjoint({"engine", "tokenizer", "manifest", "chat_template", "decoder"})


def test_third_party_names_stay_at_home():
    assert not {
        f"{module} imports {imported}"
        for module, imported in IMPORTS
        for name, homes in HOMES.items()
        if imported.split(".")[0] == name and not inside(module, homes)
    }


def test_every_third_party_name_of_the_app_has_a_home():
    names = {imported.split(".")[0] for module, imported in IMPORTS if inside(module, {"app"})}
    assert names - sys.stdlib_module_names - {"app", "export"} <= HOMES.keys()


def test_leaves_are_leaves():
    for leaf in LEAVES:
        allowed = MAY_IMPORT[f"app.{leaf}"]
        assert allowed <= {f"app.{other}" for other in LEAVES}
