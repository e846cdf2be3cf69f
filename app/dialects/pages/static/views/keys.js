// What keys do here.

import { Dialog, html } from "../lib/ui.js";

const KEYS = [
  ["Enter", "Send the question"],
  ["Shift + Enter", "New line"],
  ["Esc", "Stop the answer; close what is open"],
  ["Ctrl + Shift + O", "New chat"],
  ["Ctrl + ,", "Settings of this chat"],
  ["/", "Go to the question"],
  ["?", "This list"],
];

export function Keys({ onClose }) {
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <table class="plain"><thead><tr><th>Key</th><th>What it does</th></tr></thead>
      <tbody>${KEYS.map(([key, what]) => html`<tr><td><kbd>${key}</kbd></td><td>${what}</td></tr>`)}</tbody></table>
  <//>`;
}
