"""For schemathesis: somebody signed in and a model loaded, anew when a case has ended either.

OpenAI's bodies must name a model: where it is the documented example, the one that there is.
"""

import uuid
from typing import Any

import httpx
import schemathesis

from tests.e2e.scripted_app import FIRST
from tests.e2e.server import DEFAULT_MODEL

FORM = {"username": f"u{uuid.uuid4().hex}", "password": "testpassword"}
CHANGES = ("/me", "/models", "/api", "/admin", "/login", "/logout")
"""Below these, a case may sign us out, delete us or unload the model."""
client = httpx.Client(timeout=60)


@schemathesis.auth(refresh_interval=None)
class SignedIn:
    changed = True

    def get(self, case: schemathesis.Case[Any], _context: schemathesis.AuthContext) -> str:
        if not SignedIn.changed:
            return client.headers["Authorization"]
        SignedIn.changed = False
        url = case.operation.base_url.rstrip("/")
        client.post(f"{url}/models/load", json={"model_id": FIRST}).raise_for_status()
        if client.get(f"{url}/me").status_code == 401:
            client.post(f"{url}/register", json=FORM)
            tokens = client.post(f"{url}/login", data=FORM).raise_for_status().json()
            client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        return client.headers["Authorization"]

    def set(
        self, case: schemathesis.Case[Any], data: str, _context: schemathesis.AuthContext
    ) -> None:
        case.headers["Authorization"] = data


@schemathesis.hook
def after_call(
    _context: schemathesis.HookContext, case: schemathesis.Case[Any], response: Any
) -> None:
    if response.status_code == 401 or (case.method != "GET" and case.path.startswith(CHANGES)):
        SignedIn.changed = True


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: schemathesis.Case[Any], _kwargs: dict[str, Any]
) -> None:
    body = case.body
    if isinstance(body, dict) and body.get("model") == DEFAULT_MODEL:
        case.body = {**body, "model": FIRST}
