// The account: sign out, password, API keys, and its end.

import { Dialog, html, useEffect, useRef, useState, useStore } from "../lib/ui.js";
import { ask, signOut } from "../lib/api.js";
import { copyText } from "../lib/clipboard.js";
import { keepSession, session } from "../lib/session.js";
import { adoptChats, countChatsHere, fail, say, state } from "../chat/state.js";

export function Account({ onClose }) {
  const user = useStore(state, (now) => now.user);
  const leave = async () => {
    onClose();
    await signOut().catch(fail); // here it is over in any case
  };
  return html`<${Dialog} title=${user} onClose=${onClose}>
    <div class="row between">
      <p class="small muted">Your chats are kept in this account.</p>
      <button type="button" class="button" onClick=${leave}>Sign out</button>
    </div>
    <${Adoption} />
    <${Keys} />
    <${Password} />
    <${Deletion} onClose=${onClose} />
  <//>`;
}

function Adoption() {
  const [count, setCount] = useState(0);
  useEffect(() => { countChatsHere().then(setCount); }, []);
  if (count === 0) return null;
  const adopt = async () => {
    await adoptChats();
    setCount(0);
    say("The chats are in the account");
  };
  return html`<div class="row between"><p class="small muted">${count} ${count === 1 ? "chat lies" : "chats lie"} in this browser alone.</p>
    <button type="button" class="button" onClick=${adopt}>Copy into the account</button></div>`;
}

function Keys() {
  const [keys, setKeys] = useState(null);
  const [made, setMade] = useState(null);
  const [problem, setProblem] = useState(null);
  const attempt = async (work) => {
    setProblem(null);
    try {
      await work();
      setKeys((await ask("me/keys")).keys);
    } catch (error) {
      setProblem(error.message);
    }
  };
  useEffect(() => { attempt(async () => {}); }, []);
  const create = (event) => {
    event.preventDefault();
    const { name, days } = event.target.elements;
    const body = { name: name.value, ...(days.value ? { expires_in_days: Number(days.value) } : {}) };
    attempt(async () => {
      setMade((await ask("me/keys", { method: "POST", body })).key);
      event.target.reset();
    });
  };
  const copy = async () => say((await copyText(made)) ? "Copied" : "The browser did not let this be copied");
  return html`<section class="stack" aria-labelledby="keys-title">
    <h3 id="keys-title">API keys</h3>
    <p class="hint">For programs: sent as <code>Authorization: Bearer sk-…</code>. A key may do what you may, but for the account itself.</p>
    ${made && html`<div class="notice" role="status"><p>This is the key. It is shown now and never again.</p>
      <p class="row"><code class="grow">${made}</code><button type="button" class="button small" onClick=${copy}>Copy</button></p></div>`}
    ${keys?.length > 0 && html`<table class="plain"><thead><tr><th>Name</th><th>Ends in</th><th>Last used</th><th>Expires</th><th><span class="sr-only">Revoke</span></th></tr></thead>
      <tbody>${keys.map((key) => html`<tr key=${key.id}><td>${key.name}</td><td class="mono">${key.ending}</td>
        <td>${day(key.last_used_at, "never")}</td><td>${day(key.expires_at, "never")}</td>
        <td><button type="button" class="button small danger" aria-label=${`Revoke ${key.name}`}
          onClick=${() => attempt(() => ask(`me/keys/${key.id}`, { method: "DELETE" }))}>Revoke</button></td></tr>`)}</tbody></table>`}
    <form class="row" onSubmit=${create}>
      <input name="name" class="grow" required maxlength="64" aria-label="Name of a new key" placeholder="Name of a new key" />
      <input name="days" type="number" class="days" min="1" max="3650" aria-label="Days until it expires" placeholder="Days" />
      <button class="button">Make a key</button>
    </form>
    ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
  </section>`;
}

function Password() {
  const [told, setTold] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    const body = { current_password: form.elements.current.value, new_password: form.elements.next.value };
    try {
      const tokens = await ask("me/password", { method: "POST", body });
      keepSession({ ...session(), access: tokens.access_token, refresh: tokens.refresh_token });
      form.reset();
      setTold({ words: "The password is changed; other sign-ins have ended.", bad: false });
    } catch (error) {
      setTold({ words: error.message, bad: true });
    }
  };
  return html`<section class="stack" aria-labelledby="password-title">
    <h3 id="password-title">Password</h3>
    <form class="row ends" onSubmit=${submit}>
      <input type="text" autocomplete="username" hidden value=${session()?.username} readonly />
      <div class="field grow"><label for="current">Current password</label>
        <input id="current" name="current" type="password" autocomplete="current-password" required /></div>
      <div class="field grow"><label for="next">New password</label>
        <input id="next" name="next" type="password" autocomplete="new-password" required /></div>
      <button class="button">Change</button>
    </form>
    ${told && html`<p class=${`notice ${told.bad ? "bad" : ""}`} role=${told.bad ? "alert" : "status"}>${told.words}</p>`}
  </section>`;
}

function Deletion({ onClose }) {
  const [asked, setAsked] = useState(false);
  const [problem, setProblem] = useState(null);
  const field = useRef(null);
  useEffect(() => { if (asked) field.current.focus(); }, [asked]);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await ask("me/delete", { method: "POST", body: { password: field.current.value } });
      onClose();
      keepSession(null);
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`<section class="stack" aria-labelledby="deletion-title">
    <h3 id="deletion-title">Delete the account</h3>
    ${!asked ? html`<div><button type="button" class="button danger" onClick=${() => setAsked(true)}>Delete the account…</button></div>`
      : html`<form class="row ends" onSubmit=${submit}>
          <div class="field grow"><label for="proof">Your password; the account goes with its chats and keys, for good</label>
            <input id="proof" ref=${field} type="password" autocomplete="current-password" required /></div>
          <button class="button danger">Delete for good</button>
          <button type="button" class="button" onClick=${() => setAsked(false)}>Keep it</button>
        </form>`}
    ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
  </section>`;
}

function day(time, otherwise) {
  return time === null ? otherwise : new Date(time).toLocaleDateString();
}
