// The page's frame: chats at the side, the conversation, and the dialog that is open.

import { html, useEffect, useStore } from "../lib/ui.js";
import { show, state } from "../chat/state.js";
import { titleOf } from "../chat/tree.js";
import { Account } from "./account.js";
import { Composer } from "./composer.js";
import { Header } from "./header.js";
import { Keys } from "./keys.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { SignIn } from "./signin.js";
import { Thread } from "./thread.js";

const DIALOGS = { account: Account, keys: Keys, settings: Settings, signin: SignIn };

/** The address names a chat, and is to go on doing so. */
function skip(event) {
  event.preventDefault();
  document.querySelector("#question, #username")?.focus();
}

export function App() {
  const dialog = useStore(state, (now) => now.dialog);
  const closed = useStore(state, (now) => now.closed);
  const menu = useStore(state, (now) => now.menu);
  const said = useStore(state, (now) => now.said);
  const title = useStore(state, (now) => titleOf(now.chat));
  const Opened = DIALOGS[dialog];
  useEffect(() => { document.title = `${title} · llmhost`; }, [title]);
  return html`
    <a class="skip" href="#question" onClick=${skip}>Skip to the question</a>
    <div class=${`frame ${menu ? "menu-open" : ""}`}>
      <${Sidebar} />
      <div class="main">
        <${Header} />
        <main class=${closed ? "closed" : "conversation"}>
          <h1 class="sr-only" dir="auto">${title}</h1>
          ${closed ? html`<${SignIn} inline />` : html`<${Thread} />`}
        </main>
        ${!closed && html`<${Composer} />`}
      </div>
    </div>
    <p class="sr-only" role="status" aria-live="polite">${said}</p>
    ${Opened && !(closed && dialog === "signin") && html`<${Opened} onClose=${() => show(null)} />`}`;
}
