// Markdown to nodes of the document. No text is ever read as HTML: elements come from this list
// alone, their words are text nodes, and the page's policy (Trusted Types) forbids the other way.

import { Marked } from "../vendor/marked/marked.js";
import { codeBlock } from "./code.js";
import { mathNode, mathSyntax } from "./math.js";

const marked = new Marked({ gfm: true }, { extensions: mathSyntax });
const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: "\"", apos: "'", nbsp: "\u00a0", copy: "©", reg: "®", deg: "°",
  mdash: "—", ndash: "–", hellip: "…", times: "×", larr: "←", rarr: "→", bull: "•", middot: "·",
  lsquo: "‘", rsquo: "’", ldquo: "“", rdquo: "”", laquo: "«", raquo: "»", euro: "€", pound: "£",
};

/** Read blocks; each token's `raw` is its part of the text, so that they can be read in pieces. */
export function blocksOf(text) {
  return marked.lexer(text);
}

/** Make the nodes of blocks. `final` is false for what may still change: it isn't coloured yet. */
export function nodesOf(tokens, final = true) {
  const fragment = fragmentOf(tokens, final);
  // a block runs as its first letters do, and what is in it runs with it
  for (const block of fragment.children) if (!block.dir) block.dir = "auto";
  return fragment;
}

function fragmentOf(tokens, final) {
  const fragment = document.createDocumentFragment();
  for (const token of tokens) append(fragment, token, final);
  return fragment;
}

function append(parent, token, final) {
  const make = MAKERS[token.type];
  if (make === undefined) parent.append(token.raw ?? "");
  else {
    const node = make(token, final);
    if (node !== null) parent.append(node);
  }
}

function element(name, children, final, attributes = {}) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (typeof children === "string") node.textContent = children;
  else for (const child of children ?? []) append(node, child, final);
  return node;
}

const MAKERS = {
  space: () => null,
  def: () => null,
  hr: () => document.createElement("hr"),
  br: () => document.createElement("br"),
  // h1 is the page's
  heading: ({ depth, tokens }, final) => element(`h${Math.min(6, depth + 1)}`, tokens, final),
  paragraph: ({ tokens }, final) => element("p", tokens, final),
  blockquote: ({ tokens }, final) => element("blockquote", tokens, final),
  code: ({ text, lang }, final) => codeBlock(text, lang ?? "", final),
  list: listNode,
  table: tableNode,
  text: ({ tokens, text }, final) => (tokens ? fragmentOf(tokens, final) : decoded(text)),
  escape: ({ text }) => document.createTextNode(text),
  strong: ({ tokens }, final) => element("strong", tokens, final),
  em: ({ tokens }, final) => element("em", tokens, final),
  del: ({ tokens }, final) => element("del", tokens, final),
  codespan: ({ text }) => element("code", text, true, { dir: "ltr" }),
  link: linkNode,
  image: linkNode, // fetching what a model names would tell its host that it was read
  html: ({ text, block }) => htmlNode(text, block),
  checkbox: ({ checked }) => element("span", checked ? "☑ " : "☐ ", true),
  blockMath: (token, final) => mathNode(token, final),
  inlineMath: (token, final) => mathNode(token, final),
};

function listNode({ ordered, start, items }, final) {
  const list = document.createElement(ordered ? "ol" : "ul");
  if (ordered && start !== 1) list.setAttribute("start", start);
  for (const item of items) {
    const entry = element("li", item.tokens, final);
    if (item.task) entry.className = "task";
    list.append(entry);
  }
  return list;
}

function tableNode({ header, rows }, final) {
  const cell = (name) => ({ tokens, align }) => {
    const node = element(name, tokens, final, { dir: "auto" });
    if (align) node.classList.add(align);
    return node;
  };
  const line = (cells, name) => {
    const row = document.createElement("tr");
    row.append(...cells.map(cell(name)));
    return row;
  };
  const head = document.createElement("thead");
  head.append(line(header, "th"));
  const body = document.createElement("tbody");
  body.append(...rows.map((row) => line(row, "td")));
  const table = document.createElement("table");
  table.append(head, body);
  // wide ones scroll by themselves, by keyboard too
  const frame = element("div", [], true, { class: "table", tabindex: "0", role: "group", "aria-label": "Table" });
  frame.append(table);
  return frame;
}

function linkNode({ type, href, title, tokens, text }, final) {
  let url = null;
  try {
    url = new URL(href);
  } catch {
    // relative, to a page that isn't this one: words alone
  }
  const words = type === "image" ? `[image: ${text || href}]` : tokens;
  if (url === null || !SCHEMES.has(url.protocol)) return element("span", words, final);
  const attributes = { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank" };
  if (title) attributes.title = title;
  return element("a", words, final, attributes);
}

function htmlNode(text, block) {
  if (/^<br\s*\/?>$/i.test(text.trim())) return document.createElement("br");
  return block ? element("p", text.trimEnd(), true) : document.createTextNode(text);
}

function decoded(text) {
  return document.createTextNode(
    text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w{2,8}));/gi, (whole, dec, hex, name) => {
      if (name) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : whole;
      const point = Number.parseInt(dec ?? hex, dec ? 10 : 16);
      return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : "\ufffd";
    }),
  );
}
