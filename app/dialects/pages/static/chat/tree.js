// A chat as a tree: an edit or another answer is a branch, and nothing said is lost.
//
// chat: { id, title, created, updated, settings, nodes: { [id]: node }, leaf }
// node: { id, parent, role, content, created } and of an answer { reasoning, calls, model, stats,
//         group, complete, error, format }; of a tool's result { callId }.
// Knows no view, no storage and no server.

/** An id that nobody else makes. (crypto.randomUUID is for trusted connections alone.) */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newChat(settings) {
  const now = Date.now();
  return {
    id: newId(), title: "", created: now, updated: now, settings: structuredClone(settings),
    nodes: {}, leaf: null,
  };
}

/** Add a node below another (null: the beginning) and return it; the branch shown ends there. */
export function addNode(chat, parent, fields) {
  const node = { id: newId(), parent, created: Date.now(), content: "", ...fields };
  const index = belowOf(chat);
  chat.nodes[node.id] = node;
  put(index, node);
  chat.leaf = node.id;
  return node;
}

/** The branch that is shown, from its beginning to its end. */
export function branch(chat, leaf = chat.leaf) {
  const nodes = [];
  for (let id = leaf; id !== null; id = chat.nodes[id].parent) nodes.push(chat.nodes[id]);
  return nodes.reverse();
}

const indices = new WeakMap(); // a chat's nodes → id of a parent → what stands below it

/** What stands below each node: every message asks for it whenever a chat is drawn. */
function belowOf({ nodes }) {
  let index = indices.get(nodes);
  if (index === undefined) {
    index = new Map();
    for (const node of Object.values(nodes)) put(index, node);
    indices.set(nodes, index);
  }
  return index;
}

function put(index, node) {
  const below = index.get(node.parent);
  if (below === undefined) index.set(node.parent, [node]);
  else below.push(node);
}

/** What stands below a node, the oldest first. */
export function childrenOf(chat, parent) {
  return [...(belowOf(chat).get(parent) ?? [])].sort((a, b) => a.created - b.created);
}

/** A node and the others in its place, the oldest first. */
export function siblingsOf(chat, node) {
  return childrenOf(chat, node.parent);
}

/** Answers that were asked for together, this one among them. */
export function groupOf(chat, node) {
  if (!node.group) return [node];
  return siblingsOf(chat, node).filter((sibling) => sibling.group === node.group);
}

/** Show the branch that goes through a node, to the newest end below it. */
export function showBranch(chat, node) {
  let last = node;
  for (let below = childrenOf(chat, last.id); below.length; below = childrenOf(chat, last.id)) {
    last = below.at(-1);
  }
  chat.leaf = last.id;
}

/** A chat with what another tab kept of it; of two states of an answer the one that has ended. */
export function merged(chat, kept) {
  const nodes = { ...kept?.nodes };
  for (const node of Object.values(chat.nodes)) {
    if (node.finish || !nodes[node.id]?.finish) nodes[node.id] = node;
  }
  return { ...chat, title: chat.title || kept?.title || "", nodes };
}

/** A title out of the first question. */
export function titleOf(chat) {
  if (chat.title) return chat.title;
  const first = branch(chat).find((node) => node.role === "user")?.content ?? "";
  // by characters: half of one is none
  const words = [...first.trim().slice(0, 400).split(/\s+/, 40).join(" ")];
  return words.length > 60 ? `${words.slice(0, 59).join("").trimEnd()}…` : words.join("") || "New chat";
}

/** Make a chat of turns that were kept without a tree. */
export function chatOfTurns(id, title, turns, settings) {
  const chat = { ...newChat(settings), id, title };
  for (const turn of turns) addNode(chat, chat.leaf, turn);
  return chat;
}
