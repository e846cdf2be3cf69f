"""What a failed start says."""

import logging
import sys

import pytest

from app.process.start import report


def test_a_missing_onnx_runtime_is_one_sentence_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        __import__("onnxruntime")
    with caplog.at_level(logging.ERROR):
        report(caught.value)
    [record] = caplog.records
    assert "pip install 'llmhost[cpu]'" in record.getMessage()
    assert record.exc_info is None, "nothing that a traceback would explain"


def test_another_missing_module_is_a_bug_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        report(ModuleNotFoundError("No module named 'numpy'", name="numpy"))
    [record] = caplog.records
    assert record.exc_info is not None
