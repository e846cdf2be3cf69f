// Models on disk and in memory: load, unload, and fetch another one.

import { html, useState, useStore } from "../lib/ui.js";
import { bytes } from "./metrics.js";
import { act, state } from "./state.js";

export function Models() {
  const models = useStore(state, (now) => now.overview.models);
  return html`<section aria-labelledby="models-title" class="stack">
    <h2 id="models-title">Models</h2>
    <div class="wide"><table class="plain">
      <thead><tr><th scope="col">Model</th><th scope="col">State</th><th scope="col" class="number">Running</th>
        <th scope="col" class="number">Waiting</th><th scope="col" class="number">Context</th><th scope="col" class="number">On disk</th>
        <th scope="col" class="number">KV cache</th><th scope="col"><span class="sr-only">Load or unload</span></th></tr></thead>
      <tbody>${models.map((model) => html`<${Row} key=${model.model_id} model=${model} />`)}</tbody>
    </table></div>
    ${models.length === 0 && html`<p class="muted">There is no model on this server's disk yet.</p>`}
    <${Pull} />
  </section>`;
}

function Row({ model }) {
  const [busy, setBusy] = useState(false);
  const there = model.state === "loaded" || model.state === "failed";
  const change = async () => {
    setBusy(true);
    await act(there ? "models/unload" : "models/load", { model_id: model.model_id });
    setBusy(false);
  };
  const figure = (value) => (value === null ? "–" : value.toLocaleString("en"));
  return html`<tr>
    <th scope="row">${model.model_id} <span class="tag">${model.quantisation}</span></th>
    <td>${model.state === "loading"
      ? html`loading <progress aria-label=${`Loading ${model.model_id}`} max="1" ...${model.progress ? { value: model.progress } : {}}></progress>`
      : html`<span class=${model.state === "failed" ? "bad" : ""}>${model.state}</span>`}
      ${model.failure && html`<p class="tiny bad">${model.failure}</p>`}
      ${model.step_age_s > 5 && html`<p class="tiny warn">its step has taken ${Math.round(model.step_age_s)} s</p>`}</td>
    <td class="number">${model.slots === null ? "–" : `${model.running} of ${model.slots}`}</td>
    <td class="number">${figure(model.waiting)}</td>
    <td class="number">${figure(model.capacity ?? model.context_length)}</td>
    <td class="number">${bytes(model.size_bytes)}</td>
    <td class="number">${bytes(model.cache_bytes)}</td>
    <td><button type="button" class="button small" disabled=${busy || model.state === "loading"}
      aria-label=${`${there ? "Unload" : "Load"} ${model.model_id}`} onClick=${change}>${there ? "Unload" : "Load"}</button></td>
  </tr>`;
}

function Pull() {
  const { pull, cannot_pull: cannot } = useStore(state, (now) => now.overview);
  if (cannot !== null) {
    return html`<p class="small muted">Other models can't be fetched from here: ${cannot}.</p>`;
  }
  const running = pull?.state === "running";
  const start = (event) => {
    event.preventDefault();
    act("admin/api/pull", { name: event.target.elements.source.value.trim() });
  };
  return html`<div class="stack">
    <h3>Fetch a model</h3>
    <form class="row ends" onSubmit=${start}>
      <div class="field grow"><label for="source">Model on the Hugging Face Hub</label>
        <input id="source" name="source" required placeholder="publisher/name" autocapitalize="none" spellcheck="false"
          pattern="[A-Za-z0-9_][A-Za-z0-9_.\\-]*/[A-Za-z0-9_][A-Za-z0-9_.\\-]*" title="publisher/name" /></div>
      <button class="button" disabled=${running}>Fetch and export</button>
      ${running && html`<button type="button" class="button danger" onClick=${() => act("admin/api/pull/cancel")}>Cancel</button>`}
    </form>
    ${pull && html`<div class=${`notice ${pull.state === "failed" ? "bad" : ""}`} role="status">
      <p>${pull.name}: ${pull.state}${pull.step.name && `, ${pull.step.name}`}${pull.step.total ? ` ${pull.step.done} of ${pull.step.total}` : ""}</p>
      ${running && html`<progress aria-label=${`Fetching ${pull.name}`} ...${pull.step.total ? { max: pull.step.total, value: pull.step.done } : {}}></progress>`}
      ${pull.failure && html`<p class="small">${pull.failure}</p>`}
    </div>`}
  </div>`;
}
