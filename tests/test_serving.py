"""What a serving process needs, looked at from outside."""

import subprocess
import sys


def test_the_application_is_made_without_torch(tmp_path):
    script = (
        "import sys, app; app.app; "
        "heavy = {'torch', 'transformers', 'optimum', 'onnx'}; print(heavy & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"LLMHOST_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "set()"


def test_importing_the_engine_builds_no_application():
    script = "import sys, app.engine.engine; print('litestar' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
