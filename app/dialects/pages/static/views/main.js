// The chat page: draw it, begin, and listen to keys that work anywhere on it.

import { html, render } from "../lib/ui.js";
import { begin, fail, isWriting, show, startChat, state, stop } from "../chat/state.js";
import { App } from "./app.js";

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${App} />`, page);
begin().catch(fail);

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  const command = event.ctrlKey || event.metaKey;
  if (event.key === "Escape") {
    if (isWriting(state.get())) stop();
    else if (state.get().menu) state.set({ menu: false });
    else return;
  } else if (command && event.shiftKey && event.key.toLowerCase() === "o") {
    startChat();
    document.getElementById("question")?.focus();
  } else if (command && event.key === ",") show("settings");
  else if (!typing && !command && event.key === "/") document.getElementById("question")?.focus();
  else if (!typing && !command && event.key === "?") show("keys");
  else return;
  event.preventDefault();
});

// what is heavy comes when there is time for it, and not before the first paint
const idle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 200));
idle(() => import("../text/live.js").catch(() => {})); // a message that needs it tries again
