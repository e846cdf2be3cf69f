// Where chats are kept: in this browser, or in the account of who is signed in.
//
// A shelf: { isHere, list(), read(id), save(chat), remove(id) }; list gives { id, title, updated }, the last
// used first.

import { ask } from "../lib/api.js";
import { branch, chatOfTurns, merged, titleOf } from "./tree.js";
import { spoken } from "./answer.js";
import { EMPTY_SETTINGS } from "./parameters.js";

const PAGE = 200;

/** Chats in this browser's IndexedDB; where that is off, until the page is left. */
export function browserShelf() {
  let opening = null;
  const memory = new Map();
  const open = () => {
    opening ??= new Promise((resolve) => {
      let request;
      try {
        request = indexedDB.open("llmhost", 1);
      } catch {
        resolve(null);
        return;
      }
      request.onupgradeneeded = () => {
        // lists need no whole chats
        request.result.createObjectStore("chats", { keyPath: "id" });
        request.result.createObjectStore("summaries", { keyPath: "id" });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
      request.onblocked = () => resolve(null);
    });
    return opening;
  };
  const run = async (mode, work) => {
    const database = await open();
    if (database === null) return null;
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(["chats", "summaries"], mode);
      const request = work(transaction.objectStore("chats"), transaction.objectStore("summaries"));
      transaction.oncomplete = () => resolve({ result: request?.result });
      transaction.onabort = () => reject(new Error(
        `This browser could not keep the chat: ${transaction.error?.message ?? "no room"}.`,
      ));
    });
  };
  return {
    isHere: true,
    async list() {
      const found = await run("readonly", (_, summaries) => summaries.getAll());
      const all = found === null ? [...memory.values()].map(summaryOf) : found.result;
      return all.sort((a, b) => b.updated - a.updated);
    },
    async read(id) {
      const found = await run("readonly", (chats) => chats.get(id));
      return (found === null ? memory.get(id) : found.result) ?? null;
    },
    async save(chat) {
      const done = await run("readwrite", (chats, summaries) => {
        const before = chats.get(chat.id);
        before.onsuccess = () => {
          const whole = merged(chat, before.result);
          chats.put(whole);
          summaries.put(summaryOf(whole));
        };
      });
      if (done === null) memory.set(chat.id, structuredClone(chat));
    },
    async remove(id) {
      const done = await run("readwrite", (chats, summaries) => {
        chats.delete(id);
        summaries.delete(id);
      });
      if (done === null) memory.delete(id);
    },
  };
}

/** The chats of who is signed in, which their other browsers and Neptun's clients have too. */
export function accountShelf() {
  const keys = new Map(); // the server's ids: another client's chat may have a name with a slash
  const path = (id) => `api/chats/${encodeURIComponent(keys.get(id) ?? id)}`;
  return {
    isHere: false,
    async list() {
      const all = [];
      for (let page = null; page === null || page.length === PAGE;) {
        page = (await ask(`api/chats?limit=${PAGE}&offset=${all.length}`)).chats;
        all.push(...page);
      }
      for (const chat of all) keys.set(chat.chat_id, chat.id);
      return all.map((chat) => ({ id: chat.chat_id, title: chat.title, updated: Date.parse(chat.updated_at) }));
    },
    async read(id) {
      const { chat, messages, document: kept } = await ask(path(id));
      if (kept !== null) return { ...JSON.parse(kept), id, title: chat.title };
      // the last turn is another client's: it keeps no tree
      const turns = messages.map(({ created_at: created, ...turn }) => (
        { ...turn, created: Date.parse(created), finish: turn.complete ? "stop" : undefined }
      ));
      return chatOfTurns(id, chat.title, turns, EMPTY_SETTINGS);
    },
    async save(chat) {
      const messages = branch(chat)
        .filter(({ role }) => role === "user" || role === "assistant")
        .map((node) => ({
          role: node.role, content: spoken(node), complete: node.role === "user" || node.complete === true,
          ...(node.model ? { model: node.model } : {}),
        }));
      await ask(path(chat.id), {
        method: "PUT", body: { title: titleOf(chat), messages, document: JSON.stringify(chat) },
      });
    },
    async remove(id) {
      await ask(path(id), { method: "DELETE" });
      keys.delete(id);
    },
  };
}

function summaryOf(chat) {
  return { id: chat.id, title: titleOf(chat), updated: chat.updated };
}
