// What the user said, and the results of tools: read, copied, edited into another branch.

import { html, IconButton, useLayoutEffect, useRef, useState, useStore } from "../lib/ui.js";
import { copyText } from "../lib/clipboard.js";
import { choose, editQuestion, isWriting, say, state } from "../chat/state.js";
import { siblingsOf } from "../chat/tree.js";

export function Question({ chat, node }) {
  const [edited, setEdited] = useState(null); // false: it was, and is no longer
  const article = useRef(null);
  useLayoutEffect(() => {
    if (edited === false) article.current.querySelector(".edit").focus();
  }, [edited]);
  const writing = useStore(state, isWriting);
  if (edited) return html`<${Editor} node=${node} onClose=${() => setEdited(false)} />`;
  return html`<article ref=${article} class="turn user" aria-label="You">
    <div class="said" dir="auto">${node.content}</div>
    <div class="tools">
      <${Branches} chat=${chat} node=${node} what="question" />
      <${CopyButton} text=${() => node.content} what="question" />
      <${IconButton} small icon="edit" className="edit" label="Edit the question in a new branch" disabled=${writing}
        onClick=${() => setEdited(true)} />
    </div>
  </article>`;
}

export function ToolResult({ chat, node }) {
  const name = chat.nodes[node.parent] && nameOfCall(chat, node);
  return html`<article class="turn tool" aria-label="Tool result">
    <details open><summary class="small">Result of <code>${name}</code></summary>
      <pre tabindex="0" dir="auto">${node.content}</pre></details>
  </article>`;
}

/** Which of the branches here is shown, and the way to the others. */
export function Branches({ chat, node, what }) {
  const all = siblingsOf(chat, node);
  if (all.length < 2) return null;
  const index = all.indexOf(node);
  return html`<span class="branches" role="group" aria-label=${`Branches of this ${what}`}>
    <${IconButton} small icon="left" label=${`Previous ${what}`} disabled=${index === 0}
      onClick=${() => choose(all[index - 1])} />
    <span class="tiny number">${index + 1} of ${all.length}</span>
    <${IconButton} small icon="right" label=${`Next ${what}`} disabled=${index === all.length - 1}
      onClick=${() => choose(all[index + 1])} />
  </span>`;
}

export function CopyButton({ text, what }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    const done = await copyText(text());
    say(done ? "Copied" : "The browser did not let this be copied");
    setCopied(done);
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<${IconButton} small icon=${copied ? "check" : "copy"} label=${`Copy the ${what}`} onClick=${copy} />`;
}

function Editor({ node, onClose }) {
  const area = useRef(null);
  const done = (event) => {
    event?.preventDefault();
    const text = area.current.value.trim();
    onClose();
    if (text) editQuestion(node, text);
  };
  const onKeyDown = (event) => {
    if (event.key === "Escape") {
      event.preventDefault();
      onClose();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) done(event);
  };
  return html`<form class="turn user editor" onSubmit=${done}>
    <textarea ref=${(element) => { if (element && !area.current) { area.current = element; element.focus(); } }}
      aria-label="Edited question" rows="3" dir="auto" onKeyDown=${onKeyDown}>${node.content}</textarea>
    <div class="row">
      <button class="button small primary">Ask in a new branch</button>
      <button type="button" class="button small" onClick=${onClose}>Cancel</button>
    </div>
  </form>`;
}

function nameOfCall(chat, node) {
  for (let above = chat.nodes[node.parent]; above; above = chat.nodes[above.parent]) {
    const call = above.calls?.find(({ id }) => id === node.callId);
    if (call) return call.name;
  }
  return "a tool";
}
