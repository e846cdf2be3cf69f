"""The OpenAPI document, and the page at `/schema` for humans: Swagger UI, from this server.

A proxy may serve us at a path of its own, which we are not told: so every link is relative to the
page. Litestar's own page loads its scripts from elsewhere.
"""

from typing import Any, Final

from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin

DOCUMENT: Final = "/schema"
PAGE_FILES: Final = f"{DOCUMENT}/files"


class WrittenDocument(JsonRenderPlugin):
    """The document as JSON, written once: it never changes, and takes 5 ms each time."""

    def __init__(self) -> None:
        super().__init__()
        self._written = b""

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        """Write the document, or give what was written."""
        self._written = self._written or super().render(request, openapi_schema)
        return self._written


class HumanPage(SwaggerRenderPlugin):
    """Swagger UI whose links begin at the page."""

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        """Write the page."""
        up = way_up(request.scope["raw_path"].decode("latin-1"))
        files = f"{up}{PAGE_FILES.removeprefix('/')}"
        page = SwaggerRenderPlugin(
            js_url=f"{files}/swagger-ui-bundle.js",
            css_url=f"{files}/swagger-ui.css",
            standalone_preset_js_url=f"{files}/swagger-ui-standalone-preset.js",
            favicon=f"<link rel='icon' type='image/png' href='{files}/favicon-32x32.png'>",
        )
        return page.render(request, _relative(openapi_schema, up))


def way_up(path: str) -> str:
    """The way from a path of ours up to the root of the server: `./`, `../` and so on."""
    return "../" * (path.count("/") - 1) or "./"


def _relative(document: dict[str, Any], up: str) -> dict[str, Any]:
    """The document with the addresses that Swagger UI calls relative to the page."""
    components = document.get("components", {})
    schemes = dict(components.get("securitySchemes", {}))
    for name, scheme in schemes.items():
        flows = {
            kind: {
                key: up + value.removeprefix("/") if key.endswith("Url") else value
                for key, value in flow.items()
            }
            for kind, flow in scheme.get("flows", {}).items()
        }
        if flows:
            schemes[name] = {**scheme, "flows": flows}
    return {
        **document,
        "servers": [{"url": up}],
        "components": {**components, "securitySchemes": schemes},
    }
