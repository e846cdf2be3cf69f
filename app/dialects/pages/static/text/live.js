// A text that grows on the page: what is whole is drawn once, only the end is drawn anew.

import { blocksOf, nodesOf } from "./markdown.js";

const DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;

/** Draws Markdown into an element. */
export class LiveText {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.drawn = "";
    this.fixed = 0; // characters whose blocks are whole
    this.tail = [];
    this.element.replaceChildren();
  }

  /** Show a text; `final`: it won't grow. Appending costs as much as its last block. */
  update(source, final) {
    const text = source.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
    if (text === this.drawn && !final) return;
    if (!text.startsWith(this.drawn.slice(0, this.fixed))) this.clear();
    for (const node of this.tail) node.remove();
    this.tail = [];
    this.drawn = text;
    let tokens;
    try {
      tokens = blocksOf(text.slice(this.fixed));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.element.append(text.slice(this.fixed)); // nested a thousand deep: no reader wants it drawn
      this.fixed = text.length;
      return;
    }
    if (final && this.fixed > 0 && DEFINITION.test(text)) {
      // definitions of links at the end change what stands before them
      this.clear();
      this.update(source, true);
      return;
    }
    // a list or a table may go on behind a blank line: the last block is never whole while it grows
    let last = final ? tokens.length : tokens.findLastIndex(({ type }) => type !== "space");
    if (last < 0) last = 0;
    const whole = tokens.slice(0, last);
    this.element.append(nodesOf(whole));
    for (const { raw } of whole) this.fixed += raw.length;
    const fragment = nodesOf(tokens.slice(last), false);
    this.tail = [...fragment.childNodes];
    this.element.append(fragment);
  }
}
