"""The measurement of what is reused, on a tiny model: that it runs and says what it promises."""

import argparse
import json

from bench import reuse
from tests.fakes import BYTES
from tests.tiny_model import write_tiny_model


def test_reuse_prints_its_figures_as_json(tmp_path, capsys):
    folder = write_tiny_model(tmp_path, "tiny/a", vocab_size=258, tokenizer=BYTES)
    parser = argparse.ArgumentParser()
    reuse.add_arguments(parser)
    options = ["--prompt-tokens", "40", "--shared-tokens", "34", "--rounds", "1", "--threads", "1"]
    reuse.run(parser.parse_args([str(folder), *options]))
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures.keys() == {"ttft", "copy", "prose"}
    assert all(figures[name]["ratio"] > 0 for name in figures)
    assert 0 <= figures["copy"]["texts_that_differ"] <= 3
