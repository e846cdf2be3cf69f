// Above the conversation: the menu on small screens, the model and how far it is loaded, settings.

import { html, IconButton, setTheme, chosenTheme, useState, useStore } from "../lib/ui.js";
import { chooseModel, chosenModel, models } from "../chat/models.js";
import { show, startChat, state } from "../chat/state.js";

export function Header() {
  const menu = useStore(state, (now) => now.menu);
  const closed = useStore(state, (now) => now.closed);
  return html`<header class="top">
    <${IconButton} icon="menu" label=${menu ? "Hide chats" : "Show chats"} className="menu-button"
      aria-expanded=${menu} aria-controls="chats" onClick=${() => state.set({ menu: !menu })} />
    ${!closed && html`<${ModelPicker} />`}
    <span class="grow"></span>
    <${ThemeButton} />
    ${!closed && html`
      <${IconButton} icon="plus" label="New chat (Ctrl+Shift+O)" className="new-button" onClick=${startChat} />
      <${IconButton} icon="sliders" label="Settings of this chat (Ctrl+,)" onClick=${() => show("settings")} />`}
  </header>`;
}

function ModelPicker() {
  const { list, loading, error } = useStore(models, (now) => now);
  const chosen = useStore(models, chosenModel);
  if (!list.length) return html`<p class="small muted">No model yet</p>`;
  const progress = list.find(({ id }) => id === loading)?.progress;
  return html`<div class="picker">
    <label class="sr-only" for="model">Model</label>
    <select id="model" value=${chosen?.id} onChange=${(event) => chooseModel(event.target.value)}>
      ${list.map((model) => html`<option value=${model.id} selected=${model.id === chosen?.id}>
        ${model.name}${model.loaded ? "" : " (not loaded)"}</option>`)}
    </select>
    ${loading && html`<div class="loading">
      <progress aria-label="Loading the model" max="1" ...${progress ? { value: progress } : {}}></progress>
      <span class="tiny muted">Loading${progress ? ` ${Math.round(progress * 100)} %` : ""}</span>
    </div>`}
    ${error && html`<p class="tiny bad" role="alert">${error}</p>`}
  </div>`;
}

function ThemeButton() {
  const [theme, draw] = useState(chosenTheme());
  const next = { light: "dark", dark: null }[theme] ?? (theme === null ? "light" : null);
  const name = (value) => value ?? "the system's";
  const onClick = () => {
    setTheme(next);
    draw(next);
  };
  return html`<${IconButton} icon="theme" onClick=${onClick}
    label=${`Theme: ${name(theme)}. Change to ${name(next)}`} />`;
}
