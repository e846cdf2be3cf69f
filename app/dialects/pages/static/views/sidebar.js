// The chats, and who they belong to.

import { html, Icon, IconButton, useLayoutEffect, useRef, useState, useStore } from "../lib/ui.js";
import { deleteChat, openChat, renameChat, show, startChat, state } from "../chat/state.js";
import { titleOf } from "../chat/tree.js";
import { exportChat } from "../chat/export.js";

export function Sidebar() {
  const chats = useStore(state, (now) => now.chats);
  const shown = useStore(state, (now) => now.chat);
  const user = useStore(state, (now) => now.user);
  const [search, setSearch] = useState("");
  const words = search.trim().toLowerCase();
  const found = words ? chats.filter(({ title }) => title.toLowerCase().includes(words)) : chats;
  return html`<aside id="chats" class="side" aria-label="Chats">
    <div class="row between side-head">
      <p class="brand">llmhost</p>
      <${IconButton} icon="close" label="Hide chats" className="menu-close"
        onClick=${() => state.set({ menu: false })} />
    </div>
    <button type="button" class="button" onClick=${startChat}><${Icon} name="plus" />New chat</button>
    ${chats.length > 8 && html`<input type="search" aria-label="Search titles" placeholder="Search titles"
      value=${search} onInput=${(event) => setSearch(event.target.value)} />`}
    <nav aria-label="Your chats" class="grow">
      ${found.length === 0 && html`<p class="hint">${words ? "No title has these words." : "No chats yet."}</p>`}
      <ul class="chats">${found.map((chat) => html`<${Entry} key=${chat.id} chat=${chat}
        current=${chat.id === shown.id} />`)}</ul>
    </nav>
    <div class="side-foot">
      ${user === null
        ? html`<p class="hint">Chats stay in this browser.</p>
          <button type="button" class="button quiet" onClick=${() => show("signin")}>
            <${Icon} name="account" />Sign in</button>`
        : html`<button type="button" class="button quiet cut" onClick=${() => show("account")}>
            <${Icon} name="account" /><span class="cut">${user}</span></button>`}
      <${IconButton} icon="keyboard" label="Keys (?)" onClick=${() => show("keys")} />
    </div>
  </aside>`;
}

function Entry({ chat, current }) {
  const [mode, setMode] = useState(null); // null, "menu", "rename" or "delete"
  const item = useRef(null);
  const opened = useRef(false);
  useLayoutEffect(() => {
    if (opened.current && mode === null && document.activeElement === document.body) {
      item.current.querySelector(".more").focus(); // what had it is gone
    }
    opened.current ||= mode !== null;
  }, [mode]);
  const shown = useStore(state, (now) => (current ? now.version : 0)) >= 0 && current;
  const title = shown ? titleOf(state.get().chat) : chat.title;
  if (mode === "rename") {
    const done = (event) => {
      event.preventDefault();
      renameChat(chat.id, event.target.elements.title.value);
      setMode(null);
    };
    const leave = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // it would stop an answer too
      setMode(null);
    };
    return html`<li ref=${item}><form class="row" onSubmit=${done}>
      <input name="title" class="grow" aria-label="New title" maxlength="200" value=${title}
        ref=${(input) => input?.focus()} onKeyDown=${leave} />
      <${IconButton} small icon="check" label="Rename" type="submit" />
    </form></li>`;
  }
  return html`<li ref=${item} class=${current ? "current" : ""}>
    <button type="button" class="open cut" dir="auto" aria-current=${current ? "page" : undefined}
      onClick=${() => openChat(chat.id)}>${title}</button>
    <${IconButton} small icon="more" className="more" label=${`More of ${title}`} aria-expanded=${mode !== null}
      onClick=${() => setMode(mode === null ? "menu" : null)} />
    ${mode === "menu" && html`<div class="entry-menu">
      <button type="button" class="button small" onClick=${() => setMode("rename")}>Rename</button>
      <button type="button" class="button small" onClick=${() => exportChat(chat, "markdown")}>Markdown</button>
      <button type="button" class="button small" onClick=${() => exportChat(chat, "json")}>JSON</button>
      <button type="button" class="button small danger" onClick=${() => setMode("delete")}>Delete</button>
    </div>`}
    ${mode === "delete" && html`<div class="entry-menu" role="alert">
      <span class="small">Delete it for good?</span>
      <button type="button" class="button small danger" ref=${(button) => button?.focus()}
        onClick=${() => deleteChat(chat.id)}>Delete</button>
      <button type="button" class="button small" onClick=${() => setMode(null)}>Keep</button>
    </div>`}
  </li>`;
}
