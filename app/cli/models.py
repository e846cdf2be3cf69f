"""`llmhost list`, `show` and `rm`: what is on disk, without loading it."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from app.catalog.shelf import Shelf, adapter_number, scheme_of, split_name
from app.cli.options import Chosen, with_settings
from app.cli.outcome import CommandFailed
from app.cli.output import gigabytes, print_figures, print_rows, with_json
from app.encoder_manifest import EncoderManifest
from app.errors import ModelBroken, UnknownModel
from app.manifest import MANIFEST_NAME, AnyManifest, Manifest, folder_name, read_any_manifest


@click.group()
def models() -> None:
    """List models, show a model's figures."""


@click.command("list")
@with_settings("models_dir")
@with_json
def list_(chosen: Chosen, as_json: bool) -> None:
    """List the models on disk; a broken one with what is wrong."""
    print_rows(
        [_row(folder) for folder in model_folders(chosen.settings.models_dir)],
        {
            "model": lambda row: row["model"],
            "weights": lambda row: row["weights"] or "broken",
            "kind": lambda row: row["kind"] or "",
            "size": lambda row: gigabytes(row["bytes"]),
            "context": lambda row: str(row["context"]) if row["context"] else row["broken"],
            "exported": lambda row: row["created"][:10],
        },
        as_json=as_json,
    )


@click.command()
@with_settings("models_dir")
@click.argument("model")
@with_json
def show(chosen: Chosen, model: str, as_json: bool) -> None:
    """Show a model's figures. MODEL is publisher/name, or the name where only one has it."""
    folder = chosen.settings.models_dir
    wanted = full_name(model, model_names(folder))
    try:
        base, adapter = split_name(wanted)
        _, manifest = Shelf(folder).find(base)
        if adapter is not None:
            adapter_number(manifest, adapter)
    except UnknownModel as error:
        raise CommandFailed(
            f"model {model!r} is not in {folder}; `llmhost list` shows what is"
        ) from error
    except ModelBroken as error:
        raise CommandFailed(f"{error}: `llmhost pull {wanted}` makes the model anew") from error
    print_figures(_figures(manifest), as_json=as_json)


@click.command("rm")
@with_settings("models_dir")
@click.argument("model")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
def remove(chosen: Chosen, model: str, yes: bool) -> None:
    """Remove a model from disk, a broken one too. MODEL is publisher/name.

    A server that has it in memory goes on until it unloads it.
    """
    folders = {folder.name: folder for folder in model_folders(chosen.settings.models_dir)}
    folder = folders.get(folder_name(model))
    if folder is None:
        raise CommandFailed(
            f"model {model!r} is not in {chosen.settings.models_dir}; `llmhost list` shows what is"
        )
    size = gigabytes(_bytes(folder))
    if not yes:
        if not sys.stdin.isatty():
            raise CommandFailed(f"{folder} has {size}: say --yes to remove it")
        click.confirm(f"Remove {folder}, {size}?", abort=True)
    # one move first, so that a server never sees half a model
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(folder.rename(doomed))
    click.echo(f"removed model={model} bytes={size}")


models.add_command(list_)
models.add_command(show)


def model_folders(models_dir: Path) -> list[Path]:
    """Folders that hold a model, whole or broken, by name."""
    return sorted(path.parent for path in models_dir.glob(f"*/{MANIFEST_NAME}"))


def model_names(models_dir: Path) -> list[str]:
    """Ids of the models on disk."""
    return [folder.name.replace("--", "/", 1) for folder in model_folders(models_dir)]


def full_name(asked: str, names: Sequence[str]) -> str:
    """Find the model that is meant: its name, or the only one whose name ends so.

    An adapter's name stays behind the colon.
    """
    base, colon, adapter = asked.partition(":")
    meant = [name for name in names if name.lower().endswith(f"/{base.lower()}")]
    found = meant[0] if base not in names and len(meant) == 1 else base
    return f"{found}{colon}{adapter}"


def _row(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_any_manifest(folder)
    except ModelBroken as error:
        return {
            "model": folder.name.replace("--", "/", 1),
            "kind": None,
            "weights": None,
            "bytes": _bytes(folder),
            "context": None,
            "created": "",
            "broken": str(error),
        }
    return {
        "model": manifest.model_id,
        "kind": manifest.kind,
        "weights": scheme_of(manifest),
        "bytes": manifest.size_bytes,
        "context": manifest.graph.context_length,
        "created": manifest.created,
        "broken": None,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _figures(manifest: AnyManifest) -> dict[str, object]:
    described: dict[str, object] = {
        "model": manifest.model_id,
        "kind": manifest.kind,
        "description": manifest.description or "–",
        "source": manifest.source,
        "license": manifest.license or "–",
        "created": manifest.created,
        "architecture": manifest.architecture,
        "size on disk": f"{manifest.size_bytes} bytes",
        "context": f"{manifest.graph.context_length} tokens",
    }
    if isinstance(manifest, Manifest):
        return described | _text_figures(manifest)
    return described | _encoder_figures(manifest)


def _encoder_figures(manifest: EncoderManifest) -> dict[str, object]:
    closeness = manifest.closeness
    return {
        "vocabulary": f"{manifest.graph.vocab_size} tokens",
        "vectors": f"{manifest.graph.width} numbers",
        "pooling": manifest.pooling or "–",
        "length 1": "yes" if manifest.normalised else "no",
        "prompts": ", ".join(manifest.prompts) or "–",
        "weights": manifest.scheme,
        "measured on": f"{closeness.texts} texts",
        "cosine": f"{closeness.mean_cosine:.6f}, at least {closeness.min_cosine:.6f}",
    }


def _text_figures(manifest: Manifest) -> dict[str, object]:
    graph, quantisation, quality = manifest.graph, manifest.quantisation, manifest.quality
    block = f", blocks of {quantisation.block_size}" if quantisation.block_size else ""
    return {
        "vocabulary": f"{graph.vocab_size} tokens",
        "KV cache": f"{graph.kv_bytes_per_token} bytes per token, {graph.kv_dtype}",
        "weights": f"{quantisation.scheme}{block}",
        "batch-invariant": "yes" if quantisation.batch_invariant else "no",
        "chat template": "yes" if manifest.chat else "no",
        "measured on": f"{quality.text_tokens} tokens",
        "mean KL divergence": f"{quality.mean_kl:.4g} nats per token",
        "top-1 agreement": f"{quality.top1_agreement:.2%}",
        "perplexity": f"{quality.perplexity:.4g}, unquantised {quality.reference_perplexity:.4g}",
        **{
            f"adapter {adapter.name}": f"rank {adapter.rank}, {', '.join(adapter.targets)}, "
            f"mean KL divergence {adapter.quality.mean_kl:.4g}"
            for adapter in manifest.adapters
        },
    }
