// Sign in or register: in a dialog, or in place of the conversation where the server wants it.

import { Dialog, html, useRef, useState } from "../lib/ui.js";
import { ask, signIn } from "../lib/api.js";
import { state } from "../chat/state.js";

export function SignIn({ onClose, inline = false }) {
  const [registers, setRegisters] = useState(false);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const form = useRef(null);
  const title = registers ? "Create an account" : "Sign in";
  const submit = async (event) => {
    event.preventDefault();
    const { username, password } = form.current.elements;
    setBusy(true);
    setProblem(null);
    try {
      if (registers) {
        const body = { username: username.value, password: password.value };
        await ask("register", { method: "POST", body });
      }
      await signIn(username.value, password.value);
    } catch (error) {
      setProblem(error instanceof TypeError ? "The server can't be reached." : error.message);
      setBusy(false);
    }
  };
  const content = html`
    ${inline && html`<h2>${title}</h2>
      <p class="muted small">This server answers those who are signed in.</p>`}
    ${!inline && !registers && html`<p class="muted small">Your chats are then kept in your account, on this server.
      Those in this browser stay here.</p>`}
    <form ref=${form} class="stack" onSubmit=${submit}>
      <div class="field"><label for="username">Name</label>
        <input id="username" name="username" autocomplete="username" required autocapitalize="none" spellcheck="false"
          ref=${(input) => { if (input && !inline && !input.dataset.seen) { input.dataset.seen = "1"; input.focus(); } }} /></div>
      <div class="field"><label for="password">Password</label>
        <input id="password" name="password" type="password" required
          autocomplete=${registers ? "new-password" : "current-password"} /></div>
      ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
      <div class="row between">
        <button class="button primary" disabled=${busy}>${title}</button>
        <button type="button" class="button quiet" onClick=${() => { setRegisters(!registers); setProblem(null); }}>
          ${registers ? "I have an account" : "I have no account yet"}</button>
      </div>
    </form>`;
  if (inline) return html`<section class="signin stack">${content}</section>`;
  return html`<${Dialog} title=${title} onClose=${onClose ?? (() => state.set({ dialog: null }))}>${content}<//>`;
}
