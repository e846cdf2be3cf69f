"""What an error tells clients and what it tells the log."""

import pytest

from app.errors import EngineFailure, InvalidParameter, ModelBroken


@pytest.mark.parametrize(
    ("whole", "told"),
    [
        ("/srv/models/a--b/tokenizer.json: expected value", "tokenizer.json: expected value"),
        ("/srv/my models/a--b/model.onnx: no graph", "model.onnx: no graph"),
        ("/srv/a/m.json: [Errno 2] no such file: '/srv/a/m.json'", None),
        ("Load model from /srv/a/model.onnx failed", "Load model from model.onnx failed"),
        ("chat template, line 3: unexpected '/'", "chat template, line 3: unexpected '/'"),
        ("tiny/random needs 3 and/or 4", "tiny/random needs 3 and/or 4"),
    ],
)
def test_clients_are_told_a_files_name_and_the_log_its_folder(whole: str, told: str | None) -> None:
    for kind in (ModelBroken, EngineFailure):
        error = kind(whole)
        assert str(error) == whole
        assert error.message == (told or "m.json: [Errno 2] no such file: 'm.json'")


def test_what_a_client_sent_itself_is_quoted_as_it_was() -> None:
    assert "/srv/x/y" in InvalidParameter("prompt", "/srv/x/y", "another").message
