// Math: where it begins and ends in Markdown, and KaTeX, which is fetched when there is some.

const BLOCK = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/;
const INLINE = [
  /^\$\$([^$]+?)\$\$/,
  // Pandoc's rule, by which $5 and $10 are money: no space inside, no digit behind
  /^\$((?:[^\s$\\]|\\[\s\S])(?:(?:[^$\\]|\\[\s\S])*?(?:[^\s$\\]|\\[\s\S]))?)\$(?!\d)/,
  /^\\\(([\s\S]+?)\\\)/,
  /^\\\[([\s\S]+?)\\\]/,
];
let library = null;

/** For Marked: `blockMath` and `inlineMath` tokens. */
export const mathSyntax = [
  {
    name: "blockMath",
    level: "block",
    start: (text) => /(?:^|\n) {0,3}(?:\$\$|\\\[)/.exec(text)?.index,
    tokenizer(text) {
      const found = BLOCK.exec(text);
      if (!found) return undefined;
      return { type: "blockMath", raw: found[0], tex: found[1] ?? found[2], display: true };
    },
  },
  {
    name: "inlineMath",
    level: "inline",
    start: (text) => /\$|\\[([]/.exec(text)?.index,
    tokenizer(text) {
      for (const [index, pattern] of INLINE.entries()) {
        const found = pattern.exec(text);
        if (found) {
          return { type: "inlineMath", raw: found[0], tex: found[1], display: index === 0 || index === 3 };
        }
      }
      return undefined;
    },
  },
];

/** The formula's source, which becomes the formula when KaTeX has it. */
export function mathNode({ raw, tex, display }, final) {
  const node = document.createElement(display ? "div" : "span");
  node.className = display ? "math display" : "math";
  node.dir = "ltr";
  node.textContent = raw.trim();
  if (display) node.tabIndex = 0; // wide ones scroll
  if (final) typeset(node, tex, display);
  return node;
}

async function typeset(node, tex, display) {
  library ??= load();
  try {
    const katex = await library;
    // drawn aside: where it fails the source stays
    const drawn = document.createElement("span");
    katex.render(tex, drawn, {
      displayMode: display, throwOnError: true, trust: false, maxExpand: 500, maxSize: 20, strict: "ignore",
    });
    node.replaceChildren(...drawn.childNodes);
  } catch {
    node.classList.add("mono"); // no TeX that KaTeX knows, or no KaTeX
  }
}

async function load() {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("../vendor/katex/katex.css", import.meta.url);
  document.head.append(sheet);
  await import("../vendor/katex/katex.js"); // a script for all loaders: it leaves a global
  return globalThis.katex;
}
