"""`python -m app models …`: what is on disk, without loading it."""

import argparse
import sys
from typing import Any

from app.catalog.shelf import Shelf
from app.manifest import Manifest
from app.settings import load_settings


def add_to(groups: Any) -> None:
    """Add the group to the command line; `groups` is what `add_subparsers` returned."""
    models = groups.add_parser("models", help="list models, show a model's figures")
    commands = models.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("list", help="list the models on disk").set_defaults(run=_list)
    show = commands.add_parser("show", help="show a model's figures")
    show.add_argument("model_id", help="publisher/name")
    show.set_defaults(run=_show)


def _list(_: argparse.Namespace) -> None:
    for manifest in Shelf(load_settings().models_dir).available():
        scheme, size = manifest.quantisation.scheme, manifest.size_bytes / 1e6
        sys.stdout.write(f"{manifest.model_id}\t{scheme}\t{size:.0f} MB\n")


def _show(arguments: argparse.Namespace) -> None:
    _, manifest = Shelf(load_settings().models_dir).find(arguments.model_id)
    for name, value in _figures(manifest).items():
        sys.stdout.write(f"{name:<22} {value}\n")


def _figures(manifest: Manifest) -> dict[str, object]:
    graph, quantisation, quality = manifest.graph, manifest.quantisation, manifest.quality
    block = f", blocks of {quantisation.block_size}" if quantisation.block_size else ""
    return {
        "model": manifest.model_id,
        "description": manifest.description or "–",
        "source": manifest.source,
        "license": manifest.license or "–",
        "created": manifest.created,
        "architecture": manifest.architecture,
        "size on disk": f"{manifest.size_bytes} bytes",
        "context": f"{graph.context_length} tokens",
        "vocabulary": f"{graph.vocab_size} tokens",
        "KV cache": f"{graph.kv_bytes_per_token} bytes per token, {graph.kv_dtype}",
        "weights": f"{quantisation.scheme}{block}",
        "batch-invariant": "yes" if quantisation.batch_invariant else "no",
        "chat template": "yes" if manifest.chat else "no",
        "measured on": f"{quality.text_tokens} tokens",
        "mean KL divergence": f"{quality.mean_kl:.4g} nats per token",
        "top-1 agreement": f"{quality.top1_agreement:.2%}",
        "perplexity": f"{quality.perplexity:.4g}, unquantised {quality.reference_perplexity:.4g}",
    }
