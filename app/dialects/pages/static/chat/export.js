// A chat as a file: Markdown of the branch that is shown, or JSON of everything.

import { readChat } from "./state.js";
import { splitThinking } from "./answer.js";
import { branch, titleOf } from "./tree.js";

const NAMES = { user: "User", assistant: "Assistant", tool: "Tool result" };

/** Write a chat as Markdown. */
export function toMarkdown(chat) {
  const parts = [`# ${titleOf(chat)}`];
  const system = chat.settings.system.trim();
  if (system) parts.push(`## System\n\n${system}`);
  for (const node of branch(chat)) {
    const { thought, said } = splitThinking(node);
    const lines = [`## ${NAMES[node.role] ?? node.role}${node.model ? ` (${node.model})` : ""}`];
    if (thought.trim()) lines.push(thought.trim().split("\n").map((line) => `> ${line}`).join("\n"));
    if (said.trim()) lines.push(said.trim());
    for (const { name, args } of node.calls ?? []) lines.push(`Calls \`${name}\`:\n\n\`\`\`json\n${args}\n\`\`\``);
    parts.push(lines.join("\n\n"));
  }
  return `${parts.join("\n\n")}\n`;
}

/** Give a chat to the reader as a file. */
export async function exportChat({ id }, format) {
  const chat = await readChat(id);
  if (chat === null) return;
  const markdown = format === "markdown";
  const text = markdown ? toMarkdown(chat) : `${JSON.stringify(chat, null, 2)}\n`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: markdown ? "text/markdown" : "application/json" }));
  const name = titleOf(chat).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat";
  link.download = `${name}.${markdown ? "md" : "json"}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
