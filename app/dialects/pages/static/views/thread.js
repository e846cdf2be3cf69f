// The conversation: the branch that is shown, and answers side by side at its end.

import { html, useEffect, useLayoutEffect, useRef, useStore } from "../lib/ui.js";
import { live } from "../chat/answer.js";
import { chosenModel, models } from "../chat/models.js";
import { state } from "../chat/state.js";
import { branch, groupOf } from "../chat/tree.js";
import { Answer } from "./answer.js";
import { Question, ToolResult } from "./question.js";

export function Thread() {
  const chat = useStore(state, (now) => now.chat);
  const error = useStore(state, (now) => now.error);
  useStore(state, (now) => now.version);
  const end = useRef(null);
  const nodes = branch(chat);
  useFollowing(end, chat);
  if (nodes.length === 0) return html`<${Welcome} error=${error} />`;
  const last = nodes.at(-1);
  const beside = groupOf(chat, last);
  const alone = beside.length === 1 ? nodes : nodes.slice(0, -1);
  return html`<div class="thread" role="log" aria-live="off" aria-label="Conversation">
    ${alone.map((node) => html`<${Turn} key=${node.id} chat=${chat} node=${node} last=${node === last} />`)}
    ${beside.length > 1 && html`<div class="beside" role="group" aria-label=${`${beside.length} answers`}>
      ${beside.map((node, index) => html`<${Answer} key=${node.id} chat=${chat} node=${node} last
        beside=${{ index, count: beside.length, chosen: node === last }} />`)}
    </div>`}
    ${error && html`<p class="notice bad" role="alert">${error}</p>`}
    <div ref=${end} class="end"></div>
  </div>`;
}

function Turn({ chat, node, last }) {
  if (node.role === "user") return html`<${Question} chat=${chat} node=${node} />`;
  if (node.role === "tool") return html`<${ToolResult} chat=${chat} node=${node} />`;
  return html`<${Answer} chat=${chat} node=${node} last=${last} />`;
}

function Welcome({ error }) {
  const model = useStore(models, chosenModel);
  const user = useStore(state, (now) => now.user);
  const endpoint = new URL("v1", document.baseURI).href;
  return html`<div class="welcome">
    <h2>${model ? model.name : "No model on this server"}</h2>
    ${model
      ? html`<dl class="facts">
          <div><dt>Context</dt><dd>${model.context.toLocaleString()} tokens</dd></div>
          <div><dt>Weights</dt><dd>${model.quantisation}, ${megabytes(model.bytes)}</dd></div>
          <div><dt>Chats</dt><dd>${user === null ? "in this browser" : `in the account ${user}`}</dd></div>
          <div><dt>OpenAI API</dt><dd><code>${endpoint}</code></dd></div>
          <div><dt>All endpoints</dt><dd><a href="schema">/schema</a></dd></div>
        </dl>`
      : html`<p class="muted">A model has to be exported before anybody can chat: see the README.</p>`}
    ${error && html`<p class="notice bad" role="alert">${error}</p>`}
  </div>`;
}

/** Keep the end in sight while an answer grows, unless the reader has scrolled away from it. */
function useFollowing(end, chat) {
  const follows = useRef(true);
  useEffect(() => {
    const scroller = document.scrollingElement;
    // only a reader's own movements count: growing text moves the end too
    const look = (event) => {
      const up = event.type === "wheel" && event.deltaY < 0; // told before the page has moved
      follows.current = !up && scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    };
    for (const kind of ["wheel", "touchmove", "keyup", "pointerup", "scrollend"]) {
      addEventListener(kind, look, { passive: true });
    }
    const growing = new ResizeObserver(() => {
      if (follows.current && live.size > 0) scroller.scrollTop = scroller.scrollHeight;
    });
    const thread = document.querySelector(".conversation");
    growing.observe(thread);
    return () => {
      growing.disconnect();
      for (const kind of ["wheel", "touchmove", "keyup", "pointerup", "scrollend"]) {
        removeEventListener(kind, look);
      }
    };
  }, []);
  useLayoutEffect(() => {
    follows.current = true;
    document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  }, [chat, chat.leaf]);
}

function megabytes(bytes) {
  const megabytes = bytes / 1e6;
  return megabytes >= 1000 ? `${(megabytes / 1000).toFixed(1)} GB` : `${Math.round(megabytes)} MB`;
}
