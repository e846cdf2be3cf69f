// What the page shows and what can be done with it. Views draw this store and call these functions.

import { ApiError } from "../lib/api.js";
import { followSession, session } from "../lib/session.js";
import { createStore } from "../lib/ui.js";
import { live, writeAnswers } from "./answer.js";
import { chosenModel, loadModel, lookAtModels, models } from "./models.js";
import { EMPTY_SETTINGS } from "./parameters.js";
import { accountShelf, browserShelf } from "./shelf.js";
import { addNode, newChat, newId, showBranch } from "./tree.js";

const SETTINGS = "llmhost.settings";

/**
 * `chat` is changed in place: `version` is another number then. `closed`: the server wants a
 * sign-in. `said` is what a screen reader is told.
 */
export const state = createStore({
  user: session()?.username ?? null, closed: false, chats: [], chat: newChat(defaults()),
  version: 0, dialog: null, menu: false, error: null, said: "",
});

let shelf = session() === null ? browserShelf() : accountShelf();
const saving = new Map(); // chat id → the save that runs, and whether another is wanted
const writing = new Set(); // chats whose answers are being written
const deleted = new Set(); // ids of chats: what is still written of them is not kept again

/** Begin: look at models and chats. */
export async function begin() {
  followSession((now, ended) => {
    if ((now?.username ?? null) !== state.get().user) changeUser(now, ended);
  });
  addEventListener("hashchange", openNamed); // another address was typed, or gone back to
  await enter();
}

/** Say something once. */
export const say = (text) => state.set({ said: text });
export const show = (dialog) => state.set({ dialog, menu: false });
export const fail = (error) => state.set({ error: error === null ? null : error.message ?? String(error) });

/** The chat was changed: draw it, and keep it. */
export function touch({ keep = true } = {}) {
  const { chat, version } = state.get();
  chat.updated = Date.now();
  state.set({ version: version + 1 });
  if (keep) save(chat);
}

/** Put an empty chat before the reader; it is kept once something was said. */
export function startChat() {
  state.set({ chat: newChat(defaults()), menu: false, error: null });
  name(null);
}

/** A chat as it is now, wherever that is; null: it is gone. */
export async function readChat(id) {
  const { chat } = state.get();
  if (chat.id === id) return chat;
  // one that is written beside this is further than what is kept of it
  const beside = [...writing].find((other) => other.id === id);
  return beside ?? attempt(() => shelf.read(id));
}

export async function openChat(id) {
  const chat = await readChat(id);
  if (!chat) return;
  deleted.delete(id);
  state.set({ chat, menu: false, error: null });
  name(id);
}

export async function deleteChat(id) {
  deleted.add(id);
  for (const chat of writing) if (chat.id === id) stopIn(chat);
  if (state.get().chat.id === id) startChat();
  await saving.get(id)?.running;
  if (await attempt(() => shelf.remove(id)) === null) deleted.delete(id); // it is still there
  await refreshChats();
  say("Chat deleted");
}

export async function renameChat(id, title) {
  const chat = await readChat(id);
  if (!chat) return;
  chat.title = [...title.trim()].slice(0, 200).join("");
  await save(chat);
  state.set({ version: state.get().version + 1 });
}

/** Ask a question at the end of the branch that is shown. */
export function askQuestion(text) {
  const { chat } = state.get();
  addNode(chat, chat.leaf, { role: "user", content: text });
  return answer();
}

/** Ask again with other words: a branch beside the question's. */
export function editQuestion(node, text) {
  const { chat } = state.get();
  addNode(chat, node.parent, { role: "user", content: text });
  return answer();
}

/** Another answer beside this one. */
export function regenerate(node) {
  return answer(node.parent);
}

/** Give the results of an answer's tool calls, in their order, and have the answer go on. */
export function giveResults(node, results) {
  const { chat } = state.get();
  let parent = node.id;
  results.forEach((content, index) => {
    parent = addNode(chat, parent, { role: "tool", content, callId: node.calls[index].id }).id;
  });
  return answer();
}

/** Show another branch. */
export function choose(node) {
  showBranch(state.get().chat, node);
  touch();
}

/** Stop what is being written in the chat that is shown. */
export const stop = () => stopIn(state.get().chat);

function stopIn(chat) {
  for (const { node, abort } of [...live.values()]) if (chat.nodes[node.id]) abort();
}

/** Whether an answer in the chat that is shown is being written. */
export const isWriting = ({ chat }) => [...live.keys()].some((id) => chat.nodes[id]);

/** Change settings of the chat that is shown; `keepSettings` is called when that is over. */
export function changeSettings(changes) {
  Object.assign(state.get().chat.settings, changes);
  touch({ keep: false });
}

export function keepSettings() {
  // a chat in which nothing was said isn't kept
  if (state.get().chat.leaf !== null) touch();
}

/** Have new chats begin with this chat's settings. */
export function keepDefaults() {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(state.get().chat.settings));
    say("New chats begin with these settings");
  } catch (error) {
    fail(error);
  }
}

async function answer(parent = state.get().chat.leaf) {
  const { chat } = state.get();
  const model = chosenModel(models.get());
  if (model === null) {
    fail("There is no model on this server.");
    return;
  }
  const count = chat.settings.parameters.n ?? 1;
  const group = newId();
  const nodes = Array.from({ length: count }, (_, index) => addNode(chat, parent, {
    role: "assistant", model: model.id, group, created: Date.now() + index,
    format: chat.settings.schema.trim() ? "json" : "text",
  }));
  chat.leaf = nodes[0].id;
  name(chat.id);
  const on = shelf;
  const written = writeAnswers(chat, nodes, model.id, () => loadModel(model.id));
  state.set({ error: null });
  touch();
  say("Answering");
  // what a closed tab would lose
  const keeping = setInterval(() => save(chat), state.get().user ? 15_000 : 3_000);
  writing.add(chat);
  await written;
  writing.delete(chat);
  clearInterval(keeping);
  const failed = nodes.find((node) => node.error);
  say(failed ? `The answer failed: ${failed.error}` : `Answer finished. ${nodes[0].content.slice(0, 500)}`);
  if (state.get().chat === chat) touch();
  // an account that was signed out of meanwhile leaves nothing behind here
  else if (on === shelf || on.isHere) save(chat, on);
  if (failed) attempt(lookAtModels, { told: true });
}

async function save(chat, on = shelf) {
  if (deleted.has(chat.id)) return undefined;
  const entry = saving.get(chat.id);
  if (entry) {
    entry.again = true;
    return entry.running;
  }
  const mine = { chat, again: false };
  saving.set(chat.id, mine);
  mine.running = (async () => {
    do {
      mine.again = false;
      await attempt(() => on.save(structuredClone(chat)));
    } while (mine.again && !deleted.has(chat.id));
    saving.delete(chat.id);
    await refreshChats();
  })();
  return mine.running;
}

/** How many chats lie in this browser while somebody is signed in. */
export async function countChatsHere() {
  return ((await attempt(() => browserShelf().list())) ?? []).length;
}

/** Put the chats of this browser into the account too; those of the same id are written over. */
export async function adoptChats() {
  const here = browserShelf();
  await attempt(async () => {
    for (const { id } of await here.list()) await shelf.save(await here.read(id));
  });
  await refreshChats();
}

async function refreshChats() {
  const chats = await attempt(() => shelf.list());
  if (chats) state.set({ chats });
}

/** Do what needs the server; a closed one shows the sign-in, other failures are told if they aren't yet. */
async function attempt(work, { told = false } = {}) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) state.set({ closed: true });
    else if (!told) fail(error instanceof TypeError ? "The server can't be reached." : error);
    return null;
  }
}

/** The page's address, by which a reload opens the same chat. */
function name(id) {
  history.replaceState(null, "", `${location.pathname}${location.search}${id ? `#${encodeURIComponent(id)}` : ""}`);
}

async function enter() {
  const looked = await attempt(async () => {
    await lookAtModels();
    return true;
  });
  if (!looked) return;
  state.set({ closed: false });
  await refreshChats();
  await openNamed();
}

/** Open the chat that the page's address names. */
async function openNamed() {
  let wanted = "";
  try {
    wanted = decodeURIComponent(location.hash.slice(1));
  } catch {
    // typed by hand: it names none
  }
  const { chat, chats } = state.get();
  if (wanted !== chat.id && chats.some(({ id }) => id === wanted)) await openChat(wanted);
}

async function changeUser(now, ended = false) {
  stop();
  shelf = now === null ? browserShelf() : accountShelf();
  state.set({
    user: now?.username ?? null, chats: [], chat: newChat(defaults()), dialog: null, error: null,
  });
  name(null);
  await enter();
  if (ended) fail("Your sign-in has ended. Sign in again to see your chats.");
}

function defaults() {
  try {
    return { ...structuredClone(EMPTY_SETTINGS), ...JSON.parse(localStorage.getItem(SETTINGS)) };
  } catch {
    return structuredClone(EMPTY_SETTINGS);
  }
}
