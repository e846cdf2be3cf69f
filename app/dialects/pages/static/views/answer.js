// An answer as it is: thinking, text, JSON by a schema, tool calls, and how fast it came.

import { html, Icon, IconButton, useEffect, useLayoutEffect, useRef, useState, useStore } from "../lib/ui.js";
import { live, splitThinking, spoken } from "../chat/answer.js";
import { models } from "../chat/models.js";
import { choose, giveResults, isWriting, regenerate, state } from "../chat/state.js";
import { Branches, CopyButton } from "./question.js";

const WHY = { length: "Cut off: the limit of tokens or the context was reached.", stopped: "Stopped." };

export function Answer({ chat, node, last, beside = null }) {
  const writing = useLive(node);
  const busy = useStore(state, isWriting);
  const { thought, said, thinking } = splitThinking(node);
  const label = beside ? `Answer ${beside.index + 1} of ${beside.count}` : "Answer";
  const broken = !writing && !node.finish && !node.error;
  return html`<article class=${`turn assistant ${beside?.chosen ? "chosen" : ""}`} aria-label=${label}
    aria-busy=${writing}>
    ${thought && html`<${Thinking} text=${thought} now=${writing && (thinking || !said)} />`}
    ${node.format === "json" ? html`<${Json} text=${said} writing=${writing} />`
      : html`<${Words} text=${said} writing=${writing} />`}
    ${writing && !said && !thought && !node.calls && html`<p class="waiting muted small">
      <span class="dots" aria-hidden="true"></span>${node.stats ? "" : "Waiting for the first word"}</p>`}
    ${node.calls?.length > 0 && html`<${Calls} node=${node} open=${last && !writing && !beside} busy=${busy} />`}
    ${node.error && html`<p class="notice bad" role="alert">${node.error}</p>`}
    ${WHY[node.finish] && html`<p class="tiny muted">${WHY[node.finish]}</p>`}
    ${broken && html`<p class="tiny muted">This answer broke off.</p>`}
    <div class="tools">
      ${beside ? html`<button type="button" class="button small" aria-pressed=${beside.chosen}
          disabled=${busy} onClick=${() => choose(node)}>
          ${beside.chosen && html`<${Icon} name="check" />`}${beside.chosen ? "The chat goes on from this" : "Go on from this"}</button>`
        : html`<${Branches} chat=${chat} node=${node} what="answer" />`}
      <${CopyButton} text=${() => spoken(node)} what="answer" />
      ${(!beside || beside.chosen) && html`<${IconButton} small icon="redo" label="Answer again in a new branch"
        disabled=${busy} onClick=${() => regenerate(node)} />`}
      <${Figures} node=${node} />
    </div>
  </article>`;
}

/** Whether a node is being written; draws the view anew with each frame that brought something. */
function useLive(node) {
  const [, draw] = useState(0);
  const now = live.get(node.id);
  useEffect(() => {
    if (now === undefined) return undefined;
    let frame = 0;
    const leave = now.follow(() => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw((count) => count + 1);
      });
    });
    return () => {
      cancelAnimationFrame(frame);
      leave();
    };
  }, [node, now]);
  return now !== undefined;
}

/** Markdown that grows. The next piece waits until the page has had three times its drawing. */
function Words({ text, writing }) {
  const element = useRef(null);
  const drawing = useRef(null);
  useLayoutEffect(() => {
    drawing.current ??= { wanted: null, view: null, timer: 0, freeAt: 0 };
    const mine = drawing.current;
    mine.wanted = { text, final: !writing };
    const draw = async () => {
      mine.timer = 0;
      if (mine.view === null) {
        let LiveText;
        try {
          ({ LiveText } = await import("../text/live.js"));
        } catch {
          if (element.current) element.current.textContent = mine.wanted.text;
          return;
        }
        if (element.current === null) return;
        mine.view ??= new LiveText(element.current);
      }
      const began = performance.now();
      mine.view.update(mine.wanted.text, mine.wanted.final);
      const now = performance.now();
      mine.freeAt = now + 3 * (now - began);
    };
    if (mine.timer) return;
    const wait = mine.freeAt - performance.now();
    if (!writing || wait <= 0) draw();
    else mine.timer = setTimeout(draw, wait);
  }, [text, writing]);
  useEffect(() => () => clearTimeout(drawing.current?.timer), []);
  return html`<div class="text" ref=${element}></div>`;
}

function Thinking({ text, now }) {
  return html`<details class="thinking" open=${now}>
    <summary class="small">${now ? "Thinking…" : "Thought"}</summary>
    <div class="thought small" dir="auto">${text.trim()}</div>
  </details>`;
}

function Json({ text, writing }) {
  let shown = text;
  let fits = !writing && text !== "";
  try {
    if (fits) shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    fits = false;
  }
  if (!text) return null;
  return html`<figure class="code"><figcaption><span>JSON by the schema</span>
    ${!writing && !fits && html`<span class="tiny">not whole</span>`}</figcaption>
    <pre tabindex="0" dir="ltr"><code>${shown}</code></pre></figure>`;
}

function Calls({ node, open, busy }) {
  const form = useRef(null);
  const wanted = open && node.finish === "tool_calls";
  const submit = (event) => {
    event.preventDefault();
    giveResults(node, node.calls.map((_, index) => form.current.elements[`result-${index}`].value));
  };
  const calls = node.calls.map((call, index) => html`<div class="call" key=${call.id || index}>
    <p class="small"><span class="tag">tool call</span> <code>${call.name}</code></p>
    <pre tabindex="0" dir="ltr"><code>${pretty(call.args)}</code></pre>
    ${wanted && html`<div class="field"><label for=${`result-${call.id}`}>Result of ${call.name}</label>
      <textarea id=${`result-${call.id}`} name=${`result-${index}`} rows="2"
        placeholder="What the tool answers; the page runs none"></textarea></div>`}
  </div>`);
  if (!wanted) return html`<div class="calls">${calls}</div>`;
  return html`<form class="calls" ref=${form} onSubmit=${submit}>${calls}
    <button class="button small primary" disabled=${busy}>Go on with ${node.calls.length > 1 ? "these results" : "this result"}</button>
  </form>`;
}

function Figures({ node }) {
  const { stats, model } = node;
  const chosen = useStore(models, (now) => now.chosen);
  if (!stats) return null;
  const about = stats.estimated ? "≈ " : "";
  const parts = [
    stats.perSecond && [`${stats.perSecond.toFixed(1)} tok/s`, "Tokens per second after the first"],
    [`${stats.ttftMs.toLocaleString()} ms`, "Time to first token"],
    [`${about}${stats.tokens.toLocaleString()} tokens`, "Tokens of this answer"],
    model !== chosen && [model.slice(model.indexOf("/") + 1), "Model"],
    stats.cached > 0 && [`${stats.cached.toLocaleString()} cached`, "Tokens of the prompt that were computed before"],
  ].filter(Boolean);
  return html`<dl class="figures tiny muted number">${parts.map(([value, meaning]) => html`<div title=${meaning}>
    <dt class="sr-only">${meaning}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function pretty(args) {
  try {
    return JSON.stringify(JSON.parse(args), null, 2);
  } catch {
    return args; // not whole yet
  }
}
