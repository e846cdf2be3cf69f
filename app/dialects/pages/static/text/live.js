// A text that grows on the page: what is whole is drawn once, only the end is drawn anew.

import { blocksOf, nodesOf } from "./markdown.js";

const DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;
const MANY = 20; // items or rows after which a list or table is drawn in pieces too

/** Draws Markdown into an element. */
export class LiveText {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.drawn = "";
    this.fixed = 0; // characters whose nodes stay
    this.tail = []; // nodes of what comes behind them
    this.long = null; // { kind, parent, head } of a long list or table whose beginning is fixed
    this.element.replaceChildren();
  }

  /** Show a text; `final`: it won't grow. Appending costs as much as its last block or item. */
  update(source, final) {
    const text = source.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
    if (text === this.drawn && !final) return;
    if (!text.startsWith(this.drawn.slice(0, this.fixed))) this.clear();
    // definitions of links at the end change what stands before them
    if (final && this.fixed > 0 && DEFINITION.test(text)) this.clear();
    this.drawn = text;
    let tokens;
    try {
      // rows mean nothing without their table's head
      tokens = blocksOf((this.long?.head ?? "") + text.slice(this.fixed));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.dropTail();
      this.element.append(text.slice(this.fixed)); // nested a thousand deep: no reader wants it drawn
      this.fixed = text.length;
      return;
    }
    // a list or a table may go on behind a blank line: the last block is never whole while it grows
    const last = final ? tokens.length : Math.max(0, tokens.findLastIndex(({ type }) => type !== "space"));
    if (last === 0 && this.long === null && growCode(this.tail, tokens[0])) return;
    this.dropTail();
    if (this.long !== null && tokens[0]?.type !== this.long.kind) {
      this.clear(); // it became something else: all of it is read anew
      this.update(source, final);
      return;
    }
    tokens.forEach((token, index) => {
      if (index < last) this.addWhole(token);
      else if (token.type !== "space") this.addGrowing(token);
    });
  }

  addWhole(token) {
    this.place(token, true);
    this.fixed += token.raw.length - (this.long?.head.length ?? 0);
    this.long = null;
  }

  addGrowing(token) {
    const parts = PARTS[token.type]?.(token);
    if (!parts || parts.count <= MANY) {
      this.tail = this.place(token, false);
      return;
    }
    // Blank lines between items are looked for in each piece by itself: a list may get a little
    // more room between items when it is read again as a whole.
    const nodes = this.place(parts.first, true);
    const parent = this.long?.parent ?? PARENT[token.type](nodes[0]);
    this.fixed += parts.length - (this.long?.head.length ?? 0);
    this.long = { kind: token.type, parent, head: parts.head };
    this.tail = this.place(parts.rest, false);
  }

  /** Append a block, or to the long one that it goes on with; returns the nodes. */
  place(token, whole) {
    const fragment = nodesOf([token], whole);
    const nodes = this.long === null
      ? [...fragment.childNodes] : [...PARENT[token.type](fragment.firstChild).childNodes];
    (this.long?.parent ?? this.element).append(...nodes);
    return nodes;
  }

  dropTail() {
    for (const node of this.tail) node.remove();
    this.tail = [];
  }
}

/** What holds the items or rows of a drawn list or table. */
const PARENT = { list: (node) => node, table: (node) => node.querySelector("tbody") };

/** A list or table as all but its last item or row, how long that is, and the last one. */
const PARTS = {
  list(token) {
    const { items } = token;
    const first = items.slice(0, -1);
    const length = first.reduce((sum, { raw }) => sum + raw.length, 0);
    const rest = { ...token, items: items.slice(-1) };
    return { count: items.length, first: { ...token, items: first }, rest, length, head: "" };
  },
  table(token) {
    const lines = token.raw.split("\n");
    const { rows } = token;
    const length = lines.slice(0, rows.length + 1).reduce((sum, line) => sum + line.length + 1, 0);
    return {
      count: rows.length, first: { ...token, rows: rows.slice(0, -1) }, length,
      rest: { ...token, rows: rows.slice(-1) }, head: `${lines[0]}\n${lines[1]}\n`,
    };
  },
};

/** Let code that is drawn already grow by what is new; false: it is no such code. */
function growCode(tail, token) {
  if (token?.type !== "code" || tail.length !== 1 || !tail[0].matches?.("figure.code")) return false;
  const text = tail[0].querySelector("code").firstChild;
  if (text === null || tail[0].dataset.info !== (token.lang ?? "") || !token.text.startsWith(text.data)) return false;
  text.appendData(token.text.slice(text.data.length));
  return true;
}
