// Code: a block with its language and a button that copies it, coloured when it is whole.

import { copyText } from "../lib/clipboard.js";

const MOST_CHARACTERS = 12_000; // beyond this, colouring would hold the page up
let library = null;

/** The block of some code. */
export function codeBlock(text, info, final) {
  const language = /^[\w+#.-]{1,30}/.exec(info)?.[0] ?? "";
  const figure = document.createElement("figure");
  figure.className = "code";
  figure.dataset.info = info;
  const head = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = language || "text";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "button quiet small";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", `Copy this ${language ? `${language} ` : ""}code`);
  copy.addEventListener("click", async () => {
    copy.textContent = (await copyText(code.textContent)) ? "Copied" : "Not copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  head.append(name, copy);
  const pre = document.createElement("pre");
  pre.tabIndex = 0; // long lines scroll, by keyboard too
  pre.dir = "ltr";
  const code = document.createElement("code");
  code.textContent = text;
  pre.append(code);
  figure.append(head, pre);
  if (final && language && text.length <= MOST_CHARACTERS) colour(code, text, language);
  return figure;
}

async function colour(code, text, language) {
  library ??= import("../vendor/highlight/highlight.js");
  let highlight;
  try {
    highlight = (await library).default;
  } catch {
    return; // the server was updated and has other files now: it stays black
  }
  if (!highlight.getLanguage(language)) return;
  const idle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 1));
  idle(() => {
    const result = highlight.highlight(text, { language, ignoreIllegals: true });
    // its tree and not its HTML: nothing is parsed
    const fragment = document.createDocumentFragment();
    addTree(fragment, result._emitter.rootNode.children);
    code.replaceChildren(fragment);
  });
}

function addTree(parent, children) {
  for (const child of children) {
    if (typeof child === "string") parent.append(child);
    else if (child.scope && !child.language) {
      const span = document.createElement("span");
      span.className = child.scope.split(".").map((part) => `hljs-${part}`).join(" ");
      addTree(span, child.children);
      parent.append(span);
    } else addTree(parent, child.children);
  }
}
