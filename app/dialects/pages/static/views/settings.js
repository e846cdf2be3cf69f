// The settings of one chat: system prompt, parameters, tools, a JSON schema.

import { Dialog, html, useEffect, useState, useStore } from "../lib/ui.js";
import { PARAMETERS } from "../chat/parameters.js";
import { changeSettings, keepDefaults, keepSettings, state } from "../chat/state.js";

export function Settings({ onClose }) {
  useStore(state, (now) => now.version);
  const { settings } = useStore(state, (now) => now.chat);
  useEffect(() => keepSettings, []);
  const set = (name) => (event) => changeSettings({ [name]: event.target.value });
  const setParameter = (name, value) => {
    const parameters = { ...settings.parameters };
    if (value === undefined) delete parameters[name];
    else parameters[name] = value;
    changeSettings({ parameters });
  };
  return html`<${Dialog} title="Settings of this chat" onClose=${onClose} className="settings">
    <div class="field">
      <label for="system">System prompt</label>
      <textarea id="system" rows="4" dir="auto" value=${settings.system} onInput=${set("system")}
        aria-describedby="system-hint"></textarea>
      <p class="hint" id="system-hint">Said to the model before everything else. Empty: the model's own, if it has one.</p>
    </div>
    <fieldset class="parameters">
      <legend>Parameters</legend>
      ${PARAMETERS.map((parameter) => html`<${Parameter} key=${parameter.name} parameter=${parameter}
        value=${settings.parameters[parameter.name]} onChange=${(value) => setParameter(parameter.name, value)} />`)}
    </fieldset>
    <div class="field">
      <label for="tools">Tools</label>
      <textarea id="tools" class="mono" rows="3" spellcheck="false" dir="ltr" value=${settings.tools}
        onInput=${set("tools")} aria-describedby="tools-hint"
        placeholder=${'[{"type": "function", "function": {"name": "weather", "parameters": {…}}}]'}></textarea>
      <p class="hint" id="tools-hint">What the model may call, as in OpenAI's API. The page shows calls and asks you for their results; it runs nothing.</p>
      ${problem(settings.tools)}
      <label class="small" for="tool-choice">Calls are</label>
      <select id="tool-choice" value=${settings.tool_choice} onChange=${set("tool_choice")}>
        <option value="auto">up to the model</option>
        <option value="required">required</option>
        <option value="none">not allowed</option>
      </select>
    </div>
    <div class="field">
      <label for="schema">JSON schema of answers</label>
      <textarea id="schema" class="mono" rows="3" spellcheck="false" dir="ltr" value=${settings.schema}
        onInput=${set("schema")} aria-describedby="schema-hint"
        placeholder=${'{"type": "object", "properties": {…}}'}></textarea>
      <p class="hint" id="schema-hint">Answers follow it token by token. Empty: answers are text.</p>
      ${problem(settings.schema)}
    </div>
    <div class="row between">
      <button type="button" class="button" onClick=${() => changeSettings({ parameters: {} })}>Reset the parameters</button>
      <div class="row">
        <button type="button" class="button" onClick=${keepDefaults}>Keep for new chats</button>
        <button type="button" class="button primary" onClick=${onClose}>Done</button>
      </div>
    </div>
  <//>`;
}

function Parameter({ parameter, value, onChange }) {
  const { name, label, hint, initial, kind = "number" } = parameter;
  const id = `parameter-${name}`;
  const hinted = { id, "aria-describedby": `${id}-hint` };
  const said = initial === null || initial === "" ? "empty" : initial === false ? "off" : initial;
  const explanation = html`<p class="hint" id=${`${id}-hint`}>${hint} <span class="default">Default: ${said}.</span></p>`;
  if (kind === "flag") {
    return html`<div class="parameter"><div class="row">
      <input type="checkbox" ...${hinted} checked=${value ?? initial}
        onChange=${(event) => onChange(event.target.checked || undefined)} />
      <label for=${id}>${label}</label></div>${explanation}</div>`;
  }
  if (kind === "choice") {
    return html`<div class="parameter"><label for=${id}>${label}</label>
      <select ...${hinted} value=${value ?? ""} onChange=${(event) => onChange(event.target.value || undefined)}>
        <option value="">up to the model</option>
        ${parameter.options.map((option) => html`<option value=${option}>${option}</option>`)}
      </select>${explanation}</div>`;
  }
  if (kind !== "number") {
    return html`<div class="parameter"><label for=${id}>${label}</label>
      <textarea ...${hinted} rows=${kind === "lines" ? 2 : 1} class=${kind === "lines" ? "" : "mono"} spellcheck="false"
        value=${value ?? ""} onInput=${(event) => onChange(event.target.value || undefined)}></textarea>
      ${explanation}${kind === "json" && problem(value ?? "")}</div>`;
  }
  return html`<div class="parameter"><label for=${id}>${label}</label>
    <${Amount} parameter=${parameter} value=${value} onChange=${onChange} hinted=${hinted} />${explanation}</div>`;
}

/** A number that is typed, and where its range is short drawn. What is typed is left as it is meanwhile. */
function Amount({ parameter: { label, min, max, step, initial }, value, onChange, hinted }) {
  const [typed, setTyped] = useState(null);
  const within = (number) => Math.min(max, Math.max(min, number));
  const take = (event) => {
    const number = event.target.valueAsNumber;
    onChange(Number.isNaN(number) ? undefined : within(number));
  };
  const type = (event) => {
    setTyped(event.target.value);
    take(event);
  };
  return html`<div class="row">
    ${max <= 2 && html`<input type="range" class="grow" aria-label=${label} min=${min} max=${max} step=${step}
      value=${value ?? initial} onInput=${take} />`}
    <input type="number" ...${hinted} class="number" min=${min} max=${max} step=${step} placeholder=${initial ?? ""}
      value=${typed ?? value ?? ""} onInput=${type} onBlur=${() => setTyped(null)} />
  </div>`;
}

function problem(text) {
  if (!text.trim()) return null;
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return html`<p class="tiny bad" role="alert">Not JSON: ${error.message}</p>`;
  }
}
