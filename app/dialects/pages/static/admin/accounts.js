// Users and their keys; changing them takes an administrator who has signed in.

import { html, useState, useStore } from "../lib/ui.js";
import { copyText } from "../lib/clipboard.js";
import { act, state } from "./state.js";

export function Accounts() {
  const users = useStore(state, (now) => now.users);
  const { administrator, username } = useStore(state, (now) => now.overview);
  const [made, setMade] = useState(null);
  if (users === null) return null;
  return html`<section aria-labelledby="users-title" class="stack">
    <h2 id="users-title">Users and API keys</h2>
    ${!administrator && html`<p class="small muted">To change them, sign in as an administrator. The first one is made
      on the server's machine: <code>llmhost users create NAME --admin</code>.</p>`}
    ${made && html`<div class="notice" role="status"><p>The key of ${made.username}. It is shown now and never again.</p>
      <p class="row"><code class="grow">${made.key}</code><button type="button" class="button small"
        onClick=${() => copyText(made.key)}>Copy</button></p></div>`}
    ${users.length === 0 ? html`<p class="muted">Nobody has an account.</p>` : html`<div class="wide"><table class="plain">
      <thead><tr><th scope="col">User</th><th scope="col">Role</th><th scope="col">API keys</th>
        ${administrator && html`<th scope="col"><span class="sr-only">Change</span></th>`}</tr></thead>
      <tbody>${users.map((user) => html`<${User} key=${user.username} user=${user} may=${administrator}
        self=${user.username === username} onKey=${setMade} />`)}</tbody></table></div>`}
  </section>`;
}

function User({ user, may, self, onKey }) {
  const [asked, setAsked] = useState(null); // "key" or "delete"
  const { username } = user;
  const other = user.role === "admin" ? "user" : "admin";
  const create = async (event) => {
    event.preventDefault();
    const { name, days } = event.target.elements;
    const body = { username, name: name.value, ...(days.value ? { expires_in_days: Number(days.value) } : {}) };
    const answer = await act("admin/api/keys/create", body, { users: true });
    if (answer !== null) {
      onKey({ username, key: answer.key });
      setAsked(null);
    }
  };
  return html`<tr>
    <th scope="row">${username}</th>
    <td>${user.role}</td>
    <td>${user.keys.map((key) => html`<div class="row" key=${key.id}>
        <span class="grow">${key.name} <span class="mono muted">…${key.ending}</span> <span class="tiny muted">${used(key)}</span></span>
        ${may && html`<button type="button" class="button small danger" aria-label=${`Revoke ${key.name} of ${username}`}
          onClick=${() => act("admin/api/keys/revoke", { username, key_id: key.id }, { users: true })}>Revoke</button>`}</div>`)}
      ${asked === "key" && html`<form class="row" onSubmit=${create}>
        <input name="name" class="grow" required maxlength="64" aria-label=${`Name of a new key of ${username}`} placeholder="Name" />
        <input name="days" type="number" class="days" min="1" max="3650" aria-label="Days until it expires" placeholder="Days" />
        <button class="button small">Make it</button></form>`}</td>
    ${may && html`<td><div class="row">
      <button type="button" class="button small" aria-expanded=${asked === "key"} aria-label=${`New key for ${username}`}
        onClick=${() => setAsked(asked === "key" ? null : "key")}>New key</button>
      ${!self && html`
        <button type="button" class="button small" aria-label=${`Make ${username} ${other === "admin" ? "an administrator" : "a user"}`}
          onClick=${() => act("admin/api/users/role", { username, role: other }, { users: true })}>Make ${other}</button>
        ${asked === "delete"
          ? html`<button type="button" class="button small danger" aria-label=${`Delete ${username} for good`}
              onClick=${() => act("admin/api/users/delete", { username }, { users: true })}>Delete for good</button>
            <button type="button" class="button small" onClick=${() => setAsked(null)}>Keep</button>`
          : html`<button type="button" class="button small danger" aria-label=${`Delete ${username}…`}
              onClick=${() => setAsked("delete")}>Delete…</button>`}`}
    </div></td>`}
  </tr>`;
}

function used(key) {
  const last = key.last_used_at === null ? "never used" : `used ${new Date(key.last_used_at).toLocaleString()}`;
  return key.expires_at === null ? last : `${last}, until ${new Date(key.expires_at).toLocaleDateString()}`;
}
