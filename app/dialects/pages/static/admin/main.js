// The operator's page: draw it and begin to ask.

import { html, render } from "../lib/ui.js";
import { followSession } from "../lib/session.js";
import { App } from "./app.js";
import { follow } from "./state.js";

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${App} />`, page);
follow();
followSession(() => follow()); // in another tab too
